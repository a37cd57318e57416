"""Programs that are ended at random instants, started twice, or fail in several processes; a part of faults.py."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from common import REPOSITORY


sys.path.insert(0, str(REPOSITORY / "tests"))  # the Hub on the loopback interface, and its faults
from hub_server import Fault, Hub, impatient_hub, running_hub  # noqa: E402
from test_hub_faults import REPOSITORY as DEMO  # noqa: E402
from test_hub_faults import REQUESTS, WAYS, says_what_to_do  # noqa: E402

from merhan.content_hashes import damage  # noqa: E402
from merhan.errors import InputError  # noqa: E402
from merhan.evaluation.evaluate import FILES  # noqa: E402
from merhan.hub.publishing import GIT_ATTRIBUTES, publish  # noqa: E402


ANSWERS = ("one sentence", "the same result", "another result, silently", "traceback")
SENTENCE, SAME, SILENT, TRACEBACK = ANSWERS


class Program:
    """A program of this repository, in a process of its own with as many threads as this one.

    The last bits of weights depend on the number of threads, and `tests/conftest.py`, which is imported here, sets it.
    """

    def __init__(self, *words: str | Path, **environment: str):
        command = [sys.executable, *map(str, words)]
        own = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | environment
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=own, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def end(self) -> str:
        """Wait for its end; `one sentence` of an error, `the same result` of success, else `traceback`."""
        _, said = self.process.communicate(timeout=600)
        if self.process.returncode == 0:
            return SAME
        return SENTENCE if is_sentence(said.decode()) else TRACEBACK

    def seconds(self) -> float:
        """Wait for its success, and return how long it took."""
        begun = time.monotonic()
        _, said = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, f"the program fails without being ended: {said.decode()}"
        return time.monotonic() - begun

    def send(self, number: signal.Signals, seconds: float):
        """Send it a signal after so many seconds, and wait for its end."""
        time.sleep(seconds)
        self.process.send_signal(number)
        self.process.communicate()


def is_sentence(said: str) -> bool:
    """Whether one line of what a program printed is an error, and nothing is a traceback."""
    return len(re.findall(r"^error: ", said, re.MULTILINE)) == 1 and "Traceback" not in said


def training(recipe: Path, *options: str) -> Program:
    return Program("train_hf_e2e.py", "--config", recipe, *options)


def ended_trainings(
    start: Callable[[str], Path], resumed: Callable[[Path], str], number: signal.Signals, instants: int
) -> Counter:
    """End trainings at random instants of their duration, then resume them.

    Args:
        start: writes the recipe of a run of a name.
        resumed: resumes the run of a recipe in this process, and says what came of it.
    """
    duration, chance = training(start(f"timed-{number.name}")).seconds(), random.Random(0)
    answers: Counter = Counter()
    for instant in range(instants):
        recipe = start(f"{number.name}{instant}")
        training(recipe).send(number, duration * chance.random())
        answers[resumed(recipe)] += 1
        shutil.rmtree(recipe.parent)
    return answers


def killed_evaluations(run: Path, folder: Path, instants: int) -> Counter:
    """Kill evaluations; what is there must be whole, and a second evaluation must have the same metrics."""

    def evaluation(name: str) -> Program:
        return Program("evaluate_hf_e2e.py", "--checkpoint", run, "--output_dir", folder / name)

    duration, chance = evaluation("whole").seconds(), random.Random(1)
    answers: Counter = Counter()
    for instant in range(instants):
        name = f"killed{instant}"
        evaluation(name).send(signal.SIGKILL, duration * chance.random())
        is_whole = not (folder / name / "test").exists() or _is_whole(folder / name / "test")
        answer = evaluation(name).end()
        if answer == SAME and not (is_whole and _metrics(folder / name) == _metrics(folder / "whole")):
            answer = SILENT
        answers[answer] += 1
    return answers


def _is_whole(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} == set(FILES) and damage(folder) is None


def _metrics(folder: Path) -> dict:
    metrics = json.loads((folder / "test" / "metrics.json").read_text(encoding="utf-8"))
    return {key: value for key, value in metrics.items() if key != "date"}


def killed_exports(run: Path, folder: Path, instants: int) -> Counter:
    """Kill exports; the folder must be absent or complete, and a second export must write what a whole one does."""

    def exporting(name: str) -> Program:
        return Program("-m", "merhan", "export", run, "--out", folder / name)

    duration, chance = exporting("whole").seconds(), random.Random(3)
    whole = _contents(folder / "whole")
    answers: Counter = Counter()
    for instant in range(instants):
        name = f"exported{instant}"
        exporting(name).send(signal.SIGKILL, duration * chance.random())
        before = _contents(folder / name)
        answer = SAME
        if not before:
            answer = exporting(name).end()
        if answer == SAME and not (before in ({}, whole) and _contents(folder / name) == whole):
            answer = SILENT
        answers[answer] += 1
    return answers


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def killed_publications(run: Path, instants: int) -> Counter:
    """Kill publications; the repository must be absent, empty or complete, and a second one must complete it."""
    with running_hub() as hub:

        def publication(name: str) -> Program:
            environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
            environment |= {"HF_HUB_OFFLINE": "0", "HF_HOME": str(run / "hub")}
            return Program("-m", "merhan", "publish", run, f"me/{name}", **environment)

        duration, chance = publication("whole").seconds(), random.Random(2)
        answers: Counter = Counter()
        for instant in range(instants):
            name = f"killed{instant}"
            publication(name).send(signal.SIGKILL, duration * chance.random())
            whole, before = _published(hub, "whole"), _published(hub, name)
            answer = publication(name).end()
            if answer == SAME and not (before in ({}, whole) and _published(hub, name) == whole):
                answer = SILENT
            answers[answer] += 1
    return answers


def _published(hub: Hub, name: str) -> dict[str, bytes]:
    """The files of a repository but those of the Hub, its own name taken out."""
    if not hub.commits.get(f"me/{name}"):
        return {}
    files = hub.files(f"me/{name}")[1]
    return {
        path: content.replace(f"me/{name}".encode(), b"") for path, content in files.items() if path != GIT_ATTRIBUTES
    }


def hub_fault_answers(run: Path) -> Counter:
    """Publish while one request of publishing fails in one way, for each of both."""
    answers: Counter = Counter()
    with pytest.MonkeyPatch.context() as patch, impatient_hub(patch) as hub:
        for request in REQUESTS:
            for way in WAYS:
                hub.commits.clear()
                hub.faults[:] = [Fault(request, way)]
                answers[_publication_answer(run, request, way)] += 1
    return answers


def _publication_answer(run: Path, request: str, way: int | str) -> str:
    try:
        publish(run, DEMO)
    except InputError as error:
        return SENTENCE if says_what_to_do(run, request, way, str(error)) else TRACEBACK
    except Exception:
        return TRACEBACK
    return SILENT


def two_at_once(start: Callable[[str], Path], is_same: Callable[[Path], bool]) -> Counter:
    """Start a run, and once more while it trains, in each way; the first must not notice.

    Args:
        start: writes the recipe of a run of a name.
        is_same: whether a run has the weights that it should have.
    """
    answers: Counter = Counter()
    for number, options in enumerate(([], ["--resume"], ["--overwrite"])):
        recipe = start(f"twice{number}")
        first, folder = training(recipe), recipe.parent / "outputs"
        while not (folder / "small" / "recipe.yaml").exists() and first.process.poll() is None:
            time.sleep(0.05)
        first.process.send_signal(signal.SIGSTOP)  # so that it does not end before the second reaches the folder
        answers[training(recipe, *options).end()] += 1
        first.process.send_signal(signal.SIGCONT)
        unharmed = first.end() == SAME and is_same(folder / "small")
        answers[SAME if unharmed else SILENT] += 1
    return answers


def rank_answers(recipe: Path, changes: Sequence[str]) -> Counter:
    """Errors of two processes at once, from changes of a recipe: one sentence of one of them."""
    answers: Counter = Counter()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train_hf_e2e.py"]
    for change in changes:
        program = Program(*launcher, "--config", recipe, "--set", change)
        _, said = program.process.communicate(timeout=600)
        own = said.decode().split("Traceback")[0]  # the launcher's own comes last
        answers[SENTENCE if program.process.returncode and is_sentence(own) else TRACEBACK] += 1
    return answers
