"""Processor time of training and evaluation with and without content hashes and locks, side by side.

python benchmarks/cost_of_safety.py

Each repetition trains and evaluates the same run twice, once as it is and once with hashes and locks replaced by
nothing, beginning alternately with either; 13 runs take about five minutes on an idle machine. Because two equal runs
differ by some percent, the time within the hashes alone is measured as well. Sound in formats that libsndfile reads is
decoded in the process itself, so the decoder's own process costs nothing there.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from common import command, hardware, publish

from merhan import api, content_hashes
from merhan.reporting.markdown_tables import markdown_table


RECIPE = """
run_name: small
output_dir: {folder}
data: {{corpus: demo, source: {data}, options: {{scale: 0.2}}, accept_leaks: [text]}}
model: {{audio_backbone: light, text_backbone: tiny}}
stages: [{{name: full, epochs: 3, learning_rate: {{head: 1.0e-3, audio: 1.0e-4, text: 1.0e-4}}}}]
trainer: {{per_device_train_batch_size: 8, report_to: none, use_cpu: true}}
"""
# Where hashes are written, checked, and folders are locked.
NOTHING = {
    "merhan.content_hashes._hash": lambda path: "",
    "merhan.training.run_folder.locked": lambda folder: nullcontext(),
}


class Cost(NamedTuple):
    """Processor time in seconds, and how much of it hashing takes."""

    seconds: float
    hashing: float


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # threads that wait would count as work
    costs: dict[bool, list[tuple[Cost, Cost]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), "warm", safe=True)
        for repetition in range(arguments.repetitions):
            for safe in (repetition % 2 == 0, repetition % 2 == 1):
                costs[safe].append(measure(Path(name), f"{repetition}-{safe}", safe))
    (trained, evaluated), (bare_trained, bare_evaluated) = (zip(*costs[safe], strict=True) for safe in (True, False))
    rows = [_row("training", trained, bare_trained), _row("evaluation", evaluated, bare_evaluated)]
    titles = ["processor time, seconds (median)", "with", "without", "ratio of medians", "ratios of pairs"]
    table = markdown_table([*titles, "share of hashing"], rows)
    publish("safety-cost", f"`{command()}`, {hardware()}.\n\n{table}\n", arguments.write)


def measure(folder: Path, name: str, safe: bool) -> tuple[Cost, Cost]:
    """The cost of a training with its export, and of an evaluation of all splits."""
    (folder / name).mkdir()
    recipe = folder / name / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder / name, data=folder / "demo"), encoding="utf-8")
    hashing: list[float] = []
    with timed_hashes(hashing) if safe else without_safety():
        begun = time.process_time()
        run = api.train(recipe)
        trained = Cost(time.process_time() - begun, sum(hashing))
        hashing.clear()
        begun = time.process_time()
        for split in ("train", "validation", "test"):
            api.evaluate(run, split=split)
        return trained, Cost(time.process_time() - begun, sum(hashing))


@contextmanager
def timed_hashes(seconds: list[float]) -> Iterator[None]:
    """Within it, the processor time of each hash is noted."""
    compute = content_hashes._hash

    def timed(path: Path) -> str:
        begun = time.process_time()
        result = compute(path)
        seconds.append(time.process_time() - begun)
        return result

    with mock.patch("merhan.content_hashes._hash", timed):
        yield


@contextmanager
def without_safety() -> Iterator[None]:
    """Within it, files are neither hashed nor locked."""
    with ExitStack() as patches:
        for name, replacement in NOTHING.items():
            patches.enter_context(mock.patch(name, replacement))
        yield


def _row(work: str, with_safety: Sequence[Cost], without: Sequence[Cost]) -> list[str]:
    medians = [statistics.median(cost.seconds for cost in costs) for costs in (with_safety, without)]
    ratios = [first.seconds / second.seconds for first, second in zip(with_safety, without, strict=True)]
    share = statistics.median(cost.hashing / cost.seconds for cost in with_safety)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    return [work, f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{medians[0] / medians[1]:.3f}", spread, f"{share:.2%}"]


if __name__ == "__main__":
    main()
