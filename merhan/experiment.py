"""`merhan experiment`: recipes x folds x seeds, run one after another, and one table that compares them.

    name: fusions                # its runs and its table go to outputs/<name>/
    set: [data.max_seconds=6]    # for every row
    rows:
      hybrid: {config: ../quickstart.yaml}
      cross: {config: ../quickstart.yaml, set: [model.config.fusion=cross]}
      speech alone: {config: ../quickstart.yaml, condition: audio, against: hybrid}
    folds: [0, 1]                # of the protocol; `all`, or left out for data without folds
    seeds: [0, 1]
    metric: uar                  # what the rows are compared by

Rows of the same recipe and changes share their runs: a `condition` only reads another of its evaluations. A run is a
process of its own; a finished one is not run again, an interrupted one goes on. Test rows are reported, and choose
nothing: an epoch is chosen on validation alone, if at all, and what is compared, and by what, stands in the file before
anything runs.

Folds are pooled: every utterance is tested once, and a row's interval and its paired test draw speakers (or dialogues)
out of all folds. With several seeds the rows of all seeds are pooled too, each paired with the same seed of the other
row; a speaker is drawn with all its seeds. So interval and test speak of other speakers, the deviation of other seeds.
"""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import MISSING, OmegaConf
from tqdm.auto import tqdm

import modeling_merhan
from merhan.comparison import Difference, System, chance, compare_pairs, require_comparable, signed
from merhan.corpora import read_corpus
from merhan.errors import InputError, nearest
from merhan.evaluation import figures
from merhan.manifest import context_only
from merhan.metrics import SCORES
from merhan.pages import render
from merhan.protocols import load_protocol
from merhan.recipe import DataRecipe, Recipe, in_words, load_recipe
from merhan.report import TITLES, interval_note, markdown_table, with_interval
from merhan.run import check_run


PROGRAM = Path(modeling_merhan.__file__).parent / "train_hf_e2e.py"
LAST_LINES = 15  # of a failed run's log


@dataclass
class Row:
    """A line of the table."""

    config: str = MISSING  # recipe, relative to the experiment's file
    set: list[str] = field(default_factory=list)  # what differs from it, as `--set`
    condition: str | None = None  # `audio` or `text`: the model is given that alone
    against: str | None = None  # the row that it is compared with, null = the first


@dataclass
class Experiment:
    """What is compared."""

    name: str = MISSING
    rows: dict[str, Row] = MISSING
    set: list[str] = field(default_factory=list)
    folds: Any = None  # a list, `all`, or null for data without folds
    seeds: list[int] = field(default_factory=lambda: [0])
    metric: str = "uar"
    output_dir: str = "outputs"


class Run(NamedTuple):
    """One training."""

    config: str
    changes: tuple[str, ...]
    conditions: frozenset[str]  # what the table needs of its evaluations; the empty word is all that the model reads
    folder: Path


class Result(NamedTuple):
    """A line of the table, over all its runs."""

    name: str
    scores: list[Mapping[str, float]]  # of each run
    pooled: Mapping[str, Any]  # figures of the test rows of all folds and seeds
    system: System


def run_experiment(
    path: str | Path, jobs: int = 1, launcher: str | None = None, dry_run: bool = False
) -> tuple[Path, list[str]]:
    """Run what is missing, and write the table.

    Args:
        path: the experiment's file.
        jobs: runs at a time; they share the cores.
        launcher: what starts a run in place of this Python, as `accelerate launch --multi_gpu`.
        dry_run: rehearse every row in place of it all.

    Returns:
        The folder with `report.md` and `report.html`, and a sentence for each run that failed.

    Raises:
        InputError: anything is wrong with the file or one of its recipes, before anything runs.
    """
    if jobs < 1:
        raise InputError(f"--jobs: is {jobs}, should be 1 or more.")
    experiment = read_experiment(path)
    program = [*_launcher(launcher), str(PROGRAM)]
    name = experiment.name
    folder = Path(experiment.output_dir) / name
    if dry_run:
        said = [_rehearse(program, experiment.set, *row) for row in experiment.rows.items()]
        return folder, [one for one in said if one]
    plan = plan_runs(experiment)
    for run in {run for runs in plan.values() for run in runs}:
        check_run(_recipe(run.config, run.changes), resume=True, overwrite=False)
    runs = list(dict.fromkeys(run for part in zip(*plan.values(), strict=True) for run in part))
    missing = [run for run in runs if not _is_done(run)]
    print(f"{name}: {len(runs)} runs, {len(runs) - len(missing)} of them are there", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        trained = pool.map(partial(_train, program, jobs), missing)
        failures = [said for said in tqdm(trained, name, len(missing), unit="run", disable=not missing) if said]
    write_tables(experiment, plan, folder, failures)
    return folder, failures


def _launcher(words: str | None) -> list[str]:
    try:
        program = shlex.split(words or shlex.quote(sys.executable))
    except ValueError as error:
        raise InputError(f"--launcher: {words!r} is no command line ({error}).") from None
    if shutil.which(program[0]) is None:
        raise InputError(f"--launcher: there is no program {program[0]!r}; give one, as 'accelerate launch'.")
    return program


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's file; the recipes' paths become relative to the working directory.

    Raises:
        InputError: as for a recipe, a value out of its range, and a row that is compared with one that is not there.
    """
    with in_words(path, Experiment):
        given = OmegaConf.merge(OmegaConf.structured(Experiment), OmegaConf.load(path))
        experiment = OmegaConf.to_object(given)
    rows = experiment.rows
    if not rows or experiment.metric not in SCORES:
        raise InputError(f"{path}: needs rows, and a metric of {', '.join(SCORES)}.")
    _check_ranges(experiment, path)
    for name, row in rows.items():
        row.config = os.path.normpath(Path(path).parent / row.config)
        row.against = row.against or next(iter(rows))
        if row.against not in rows:
            raise InputError(f"{path}: rows.{name}.against: no row {row.against!r}{nearest(row.against, rows)}")
    return experiment


def _check_ranges(experiment: Experiment, path: str | Path):
    name, folds = experiment.name, experiment.folds
    numbers = isinstance(folds, list) and all(type(fold) is int for fold in folds) and _differ(folds)
    rules = {
        "name": (Path(name).name == name not in ("", ".."), "a plain folder's name, without / and .."),
        "folds": (folds in (None, "all") or numbers, "a list of numbers, as [0, 1], or `all`, or left out; none twice"),
        "seeds": (_differ(experiment.seeds), "a list of one number or more, as [0], none of them twice"),
    }
    for key, (holds, wanted) in rules.items():
        if not holds:
            raise InputError(f"{path}: {key}: is {getattr(experiment, key)!r}, should be {wanted}.")


def _differ(numbers: Sequence[int]) -> bool:
    return 0 < len(numbers) == len(set(numbers))


def plan_runs(experiment: Experiment) -> dict[str, list[Run]]:
    """Row -> its runs, seed by seed and fold by fold; rows of one recipe and the same changes have the same runs."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, row in experiment.rows.items():
        shared.setdefault((row.config, *row.set), []).append(name)
    first = next(iter(experiment.rows.values()))
    folds = _folds(experiment.folds, load_recipe(first.config, [*experiment.set, *first.set]).data)
    plan = {}
    for names in shared.values():
        runs = [_run(experiment, names, fold, seed) for seed in experiment.seeds for fold in folds]
        plan |= dict.fromkeys(names, runs)
    _refuse_shared_folders(plan)
    return {name: plan[name] for name in experiment.rows}


def _refuse_shared_folders(plan: Mapping[str, Sequence[Run]]):
    owners: dict[Path, tuple[str, Run]] = {}
    for name, (run, *_) in plan.items():
        other, same = owners.setdefault(run.folder, (name, run))
        if same != run:
            raise InputError(f"rows: {other!r} and {name!r} would both run in {run.folder}; give one another name.")


def _folds(folds: Any, data: DataRecipe) -> list[int | None]:
    if folds is None:
        return [None]
    if folds != "all":
        return list(folds)
    rows = read_corpus(data.corpus, data.source, data.label_map, **data.options).rows
    protocol = load_protocol(data.protocol, rows[~context_only(rows)])
    if "folds" not in protocol:
        raise InputError(f"folds: {protocol['name']} has none; leave `folds` out.")
    return list(range(len(protocol["folds"])))


def _run(experiment: Experiment, names: Sequence[str], fold: int | None, seed: int) -> Run:
    row = experiment.rows[names[0]]
    slug = "".join(letter if letter.isalnum() or letter in "._+-" else "-" for letter in names[0])
    name = f"{slug}{'' if fold is None else f'-fold{fold}'}-seed{seed}"
    folder = Path(experiment.output_dir) / experiment.name
    changes = [*experiment.set, *row.set, f"seed={seed}", f'run_name="{name}"', f"output_dir={json.dumps(str(folder))}"]
    changes += [] if fold is None else [f"data.fold={fold}"]
    conditions = frozenset(experiment.rows[one].condition or "" for one in names)
    return Run(row.config, (*changes, *_evaluated(conditions)), conditions, folder / name)


def _evaluated(conditions: Iterable[str]) -> list[str]:
    alone = sorted(set(conditions) - {""})
    return [f"evaluation.conditions=[{', '.join(alone)}]"] if alone else []


def _recipe(config: str, changes: Sequence[str]) -> Recipe:
    """A row's recipe; what the table reads must be what its run will write."""
    recipe = load_recipe(config, changes)
    if "test" not in recipe.evaluation.splits:
        raise InputError(
            f"{config}: evaluation.splits: is {recipe.evaluation.splits}, and an experiment compares `test`; give "
            f"the experiment `set: ['evaluation.splits=[test]']`, which covers every test set."
        )
    return recipe


def _predictions(run: Run, condition: str | None) -> Path:
    return run.folder / "evaluation" / (f"test--{condition}" if condition else "test") / "predictions.parquet"


def _is_done(run: Run) -> bool:
    there = (_predictions(run, condition).with_name("metrics.json").is_file() for condition in run.conditions)
    return (run.folder / "model" / "README.md").is_file() and all(there)


def _words(program: Sequence[str], config: str, changes: Sequence[str]) -> list[str]:
    return [*program, "--config", config, *(word for change in changes for word in ("--set", change))]


def _train(program: Sequence[str], jobs: int, run: Run) -> str | None:
    """Train and evaluate; returns what went wrong, with the end of the log."""
    log = run.folder.with_name(f"{run.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    tqdm.write(f"{run.folder}: training, see {log}")
    sys.stdout.flush()
    threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // jobs, 1))}
    with log.open("ab") as file:
        try:
            # The run inherits the lock with the file: one that outlived a killed experiment still holds it.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"{run.folder}: another process is at it; wait for its end."
        words = [*_words(program, run.config, run.changes), "--resume"]
        done = subprocess.run(words, env=threads | os.environ, stdout=file, stderr=file, check=False)
    return _failure(f"{run.folder}, see {log}", done.returncode, log.read_bytes())


def _rehearse(program: Sequence[str], changes: Sequence[str], name: str, row: Row) -> str | None:
    changes = [*changes, *row.set, *_evaluated([row.condition or ""])]
    _recipe(row.config, [*changes, "data.source=null"])  # a rehearsal needs no data
    words = [*_words(program, row.config, changes), "--dry_run"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return _failure(name, done.returncode, done.stdout)


def _failure(name: str, code: int, said: bytes) -> str | None:
    lines = said.decode(errors="replace").replace("\r", "\n").splitlines()[-LAST_LINES:]
    return "\n    ".join([f"{name}: failed with exit code {code}", *lines]) if code else None


# --- the table --------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A part of the report."""

    title: str
    header: list[str]
    rows: list[list[Any]]


def write_tables(
    experiment: Experiment, plan: Mapping[str, Sequence[Run]], folder: Path, failures: Sequence[str] = ()
) -> list[Table]:
    """Gather the predictions that are there into `report.md` and `report.html`; the first table compares the rows."""
    whole = {name: runs for name, runs in plan.items() if all(map(_is_done, runs))}
    results = {name: gather(name, runs, experiment.rows[name].condition) for name, runs in whole.items()}
    differences, notes = compare_rows(experiment, results)
    if absent := [name for name in plan if name not in whole]:
        notes.append(f"Without all of their runs, and so without figures: {', '.join(absent)}.")
    if results:
        notes = [*_about(experiment, plan, next(iter(results.values()))), *notes]
    tables = [_comparison(experiment, results, differences), *_details(plan, results, differences)] if results else []
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {experiment.name}", *notes]
    for table in tables:
        parts += [f"## {table.title}", markdown_table(table.header, table.rows)]
    parts += [f"Failed:\n\n    {failure}" for failure in failures]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")
    page = render(
        "experiment.html.jinja", experiment=experiment, notes=notes, failures=failures, tables=tables, titles=TITLES
    )
    (folder / "report.html").write_text(page)
    return tables


def gather(name: str, runs: Sequence[Run], condition: str | None) -> Result:
    """The figures of each run, and those of all their test rows together."""
    found = [json.loads(_predictions(run, condition).with_name("metrics.json").read_text()) for run in runs]
    # Sorted by utterance, then by run, so that rows of two systems that ran alike stand side by side.
    tables = [pd.read_parquet(_predictions(run, condition)).assign(run=number) for number, run in enumerate(runs)]
    rows = pd.concat(tables, ignore_index=True).sort_values(["utterance_id", "run"], ignore_index=True)
    labels = sorted({label for one in found for label in one["labels"]})
    protocol = {key: found[0]["protocol"].get(key) for key in ("name", "version", "hash")}
    return Result(name, found, figures(rows, labels), System(name, rows, protocol))


def compare_rows(experiment: Experiment, results: Mapping[str, Result]) -> tuple[list[Difference], list[str]]:
    """Each row over the one that it is compared with, and sentences on those that cannot be compared."""
    pairs, notes = [], []
    for name, row in experiment.rows.items():
        if name != row.against and {name, row.against} <= set(results):
            pair = (results[row.against].system, results[name].system)
            try:
                require_comparable(*pair)
                pairs.append(pair)
            except InputError as error:
                notes.append(str(error))
    return compare_pairs(pairs), notes


def _about(experiment: Experiment, plan: Mapping[str, Sequence[Run]], first: Result) -> list[str]:
    protocol, runs = first.system.protocol, plan[first.name]
    seeds = len(experiment.seeds)
    folds = len(runs) // seeds
    several = (
        " Rows of all seeds are pooled, paired by seed, and a cluster is drawn with all its seeds: the interval and p "
        "speak of other speakers, not of other seeds; those are in the deviation."
    )
    tests = (
        f"Tests: paired, over {first.pooled['interval_clusters']}, by approximate randomisation, of "
        f"{TITLES[experiment.metric]} in the first table; p corrected over its rows (Holm)." + several * (seeds > 1)
        if first.pooled["intervals"]
        else "Without paired tests, for the same reason."
    )
    return [
        f"Protocol `{protocol['name']}` version {protocol['version']} (hash `{protocol['hash']}`), {folds} "
        f"fold{'s' * (folds != 1)} x {seeds} seed{'s' * (seeds != 1)} ({', '.join(map(str, experiment.seeds))}). "
        f"Columns of scores: mean over folds and seeds (standard deviation). {interval_note(first.pooled)}",
        f"{tests} This experiment chose nothing by test rows.",
    ]


def _comparison(experiment: Experiment, results: Mapping[str, Result], differences: Sequence[Difference]) -> Table:
    metric = experiment.metric
    tested = {one.second: one for one in differences if one.score == metric}
    rows = []
    for name, found in results.items():
        means = [_mean([one[score] for one in found.scores]) for score in SCORES]
        one = tested.get(name)
        over = [f"{signed(one)}, over {one.first}", chance(one.p_holm)] if one else ["", ""]
        rows.append([name, len(found.scores), *means, with_interval(found.pooled, metric), *over])
    header = ["", "runs", *(TITLES[score] for score in SCORES), f"{TITLES[metric]} of all rows", "difference", "p"]
    return Table("Comparison", header, rows)


def _details(
    plan: Mapping[str, Sequence[Run]], results: Mapping[str, Result], differences: Sequence[Difference]
) -> list[Table]:
    titles = [TITLES[score] for score in SCORES]
    pooled = [
        [name, one.pooled["n"], *(with_interval(one.pooled, score) for score in SCORES)]
        for name, one in results.items()
    ]
    labels = sorted({label for one in results.values() for label in one.pooled["labels"]})
    f1 = [dict(zip(one.pooled["labels"], one.pooled["per_class"]["f1"], strict=True)) for one in results.values()]
    classes = [
        [name, *(f"{scores[label]:.3f}" if label in scores else "" for label in labels)]
        for name, scores in zip(results, f1, strict=True)
    ]
    tests = [
        [f"{one.second} over {one.first}", TITLES[one.score], signed(one), chance(one.p), chance(one.p_holm)]
        for one in differences
    ]
    runs = [
        [f"{name}, {run.folder.name}", one["n"], *(f"{one[score]:.3f}" for score in SCORES)]
        for name, found in results.items()
        for run, one in zip(plan[name], found.scores, strict=True)
    ]
    tables = [
        Table("All test rows", ["", "n", *titles], pooled),
        Table("F1 of each class", ["", *labels], classes),
        Table("Paired tests", ["", "score", "difference", "p", "p (Holm)"], tests),
        Table("Runs", ["", "n", *titles], runs),
    ]
    return [table for table in tables if table.rows]  # one row alone has nothing to be paired with


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else "")
