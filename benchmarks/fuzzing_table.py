"""Damage recordings, releases of corpora and recipes in many ways, and count what they are answered with.

python benchmarks/fuzzing_table.py --inputs 10000 --recordings 100000
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial

from common import REPOSITORY, command, hardware, publish


sys.path.insert(0, str(REPOSITORY / "tests"))
import test_audio_fuzz  # noqa: E402
import test_input_fuzz  # noqa: E402
from fuzzing import SECONDS, run  # noqa: E402

from merhan.reporting.markdown_tables import markdown_table  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="releases, over all readers, and recipes")
    parser.add_argument("--recordings", type=int, default=100_000, help="recordings, over all formats")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    os.environ["MERHAN_CORPORA"] = "corpora"  # the recipes refer to it
    readers = test_input_fuzz.READERS
    each = -(-arguments.inputs // len(readers))
    kinds: dict[str, tuple[Callable[[int], str], int]] = {
        **{f"reader: {name}": (partial(test_input_fuzz.reader_outcome, name), each) for name in readers},
        "recipes": (test_input_fuzz.recipe_outcome, arguments.inputs),
        "recordings": (test_audio_fuzz.outcome, arguments.recordings),
    }
    titles = [
        "damaged input",
        "cases",
        "read",
        "one sentence",
        f"anything else, or over {SECONDS:g} s",
        "seconds in all",
    ]
    rows = []
    for kind, (outcome, count) in kinds.items():
        rows.append(_row(kind, outcome, count, arguments.processes))
        publish("fuzzing", f"`{command()}`, {hardware()}.\n\n{markdown_table(titles, rows)}\n", arguments.write)


def _row(kind: str, outcome: Callable[[int], str], count: int, processes: int) -> list[str]:
    begun = time.monotonic()
    counts, failures = run(outcome, range(count), processes, chunk=50)
    for seed, text in failures[:20]:
        print(f"FAILED {kind}, seed {seed}: {text}", file=sys.stderr)
    numbers = [count, counts["accepted"], counts["refused"], len(failures), round(time.monotonic() - begun)]
    return [kind, *map(str, numbers)]


if __name__ == "__main__":
    main()
