"""Running the missing runs of an experiment, each in a process of its own."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from merhan.errors import InputError
from merhan.experiments.plan import (
    Experiment,
    ExperimentRow,
    Run,
    condition_changes,
    is_finished,
    plan_runs,
    read_experiment,
    row_recipe,
)
from merhan.experiments.report import write_report
from merhan.logs import get_logger, progress
from merhan.training.run_folder import check_run_folder, is_started


logger = get_logger(__name__)

TRAIN = ("-m", "merhan", "train")  # follows the launcher, by default this Python

LAST_LINES = 15  # of the log of a failed run


def run_experiment(
    path: str | Path, jobs: int = 1, launcher: str | None = None, dry_run: bool = False
) -> tuple[Path, list[str]]:
    """Run what is missing, and write the report.

    Args:
        path: the experiment's file.
        jobs: number of runs at a time; they share the cores.
        launcher: command that starts a run in place of this Python, as `accelerate launch --multi_gpu`.
        dry_run: only try every row on tiny stand-ins; nothing is written.

    Returns:
        The folder with `report.md` and `report.html`, and a message for each run that failed.

    Raises:
        InputError: the file or one of its recipes is wrong; raised before anything runs.
    """
    if jobs < 1:
        raise InputError(f"--jobs: is {jobs}, should be 1 or more.")
    experiment = read_experiment(path)
    program = [*_launcher(launcher), *TRAIN]
    folder = Path(experiment.output_dir) / experiment.name
    if dry_run:
        outcomes = [_dry_run(program, experiment.set, name, row) for name, row in experiment.rows.items()]
        return folder, _failures(outcomes)
    plan = plan_runs(experiment)
    _check_runs(plan)
    failures = _train_missing(experiment, plan, program, jobs)
    write_report(experiment, plan, folder, failures)
    return folder, failures


def _launcher(command: str | None) -> list[str]:
    """The words of the launcher; by default this Python."""
    try:
        words = shlex.split(command or shlex.quote(sys.executable))
    except ValueError as error:
        raise InputError(f"--launcher: {command!r} is no command line ({error}).") from None
    if shutil.which(words[0]) is None:
        raise InputError(f"--launcher: there is no program {words[0]!r}; give one, as 'accelerate launch'.")
    return words


def _check_runs(plan: Mapping[str, Sequence[Run]]):
    """Check every recipe, and that existing folders belong to the same recipe."""
    for run in {run for runs in plan.values() for run in runs}:
        check_run_folder(row_recipe(run.config, run.changes), resume=is_started(run.folder), overwrite=False)


def _train_missing(
    experiment: Experiment, plan: Mapping[str, Sequence[Run]], program: Sequence[str], jobs: int
) -> list[str]:
    """Train the runs that are not finished, all rows of the first seed and fold first; returns failure messages."""
    runs = list(dict.fromkeys(run for group in zip(*plan.values(), strict=True) for run in group))
    missing = [run for run in runs if not is_finished(run)]
    logger.info(f"{experiment.name}: {len(runs)} runs, {len(runs) - len(missing)} of them finished")
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(partial(_train, program, jobs), missing)
        bar = progress(outcomes, desc=experiment.name, total=len(missing), unit="run", disable=not missing)
        return _failures(bar)


def _failures(outcomes: Iterable[str | None]) -> list[str]:
    return [message for message in outcomes if message is not None]


def _command(program: Sequence[str], config: str, changes: Sequence[str]) -> list[str]:
    command = [*program, "--config", config]
    for change in changes:
        command += ["--set", change]
    return command


def _train(program: Sequence[str], jobs: int, run: Run) -> str | None:
    """Train and evaluate one run; returns the failure message with the end of the log, or None."""
    log = run.folder.with_name(f"{run.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    logger.info(f"{run.folder}: training, see {log}")
    environment = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // jobs, 1))} | os.environ
    with log.open("ab") as file:
        command = _command(program, run.config, run.changes)
        if is_started(run.folder):
            command.append("--resume")
        process = subprocess.run(command, env=environment, stdout=file, stderr=file, check=False)
    return _failure(f"{run.folder}, see {log}", process.returncode, log.read_bytes())


def _dry_run(program: Sequence[str], changes: Sequence[str], name: str, row: ExperimentRow) -> str | None:
    """Try one row on tiny stand-ins; returns the failure message, or None."""
    changes = [*changes, *row.set, *condition_changes([row.condition or ""])]
    row_recipe(row.config, [*changes, "data.source=null"])  # a dry run needs no data
    command = [*_command(program, row.config, changes), "--dry_run"]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return _failure(name, process.returncode, process.stdout)


def _failure(name: str, code: int, output: bytes) -> str | None:
    if code == 0:
        return None
    lines = output.decode(errors="replace").replace("\r", "\n").splitlines()[-LAST_LINES:]
    return "\n    ".join([f"{name}: failed with exit code {code}", *lines])
