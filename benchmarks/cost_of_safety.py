"""Processor time of training and evaluation with and without content hashes and locks, side by side.

python benchmarks/cost_of_safety.py

Each repetition trains and evaluates the same run twice, once as it is and once with hashes and locks replaced by
nothing, beginning alternately with either. Sound in formats that libsndfile reads is decoded in the process itself, so
the decoder's own process costs nothing there.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

from common import command, hardware, publish

from merhan import api
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), "warm", safe=True)
        for repetition in range(arguments.repetitions):
            for safe in (repetition % 2 == 0, repetition % 2 == 1):
                seconds[safe].append(measure(Path(name), f"{repetition}-{safe}", safe))
    (trained, evaluated), (bare_trained, bare_evaluated) = (zip(*seconds[safe], strict=True) for safe in (True, False))
    rows = [_row("training", trained, bare_trained), _row("evaluation", evaluated, bare_evaluated)]
    titles = ["processor time, seconds (median)", "with", "without", "ratio of medians", "ratios of pairs"]
    publish("safety-cost", f"`{command()}`, {hardware()}.\n\n{markdown_table(titles, rows)}\n", arguments.write)


def measure(folder: Path, name: str, safe: bool) -> tuple[float, float]:
    """Processor time of a training with its export, and of an evaluation of all splits."""
    (folder / name).mkdir()
    recipe = folder / name / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder / name, data=folder / "demo"), encoding="utf-8")
    with nullcontext() if safe else without_safety():
        begun = time.process_time()
        run = api.train(recipe)
        trained = time.process_time()
        for split in ("train", "validation", "test"):
            api.evaluate(run, split=split)
        return trained - begun, time.process_time() - trained


@contextmanager
def without_safety() -> Iterator[None]:
    """Within it, files are neither hashed nor locked."""
    patches = [mock.patch(name, replacement) for name, replacement in NOTHING.items()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        mock.patch.stopall()


def _row(work: str, with_safety: Sequence[float], without: Sequence[float]) -> list[str]:
    medians = statistics.median(with_safety), statistics.median(without)
    ratios = [first / second for first, second in zip(with_safety, without, strict=True)]
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    return [work, f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{medians[0] / medians[1]:.3f}", spread]


if __name__ == "__main__":
    main()
