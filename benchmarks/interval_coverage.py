"""How often a 95 % interval holds the score that other speakers would give, over simulated corpora.

    python benchmarks/interval_coverage.py

Speakers differ in how easily they are understood. An interval over speakers should hold the truth in 95 of 100 corpora;
one over rows takes the rows of one speaker for independent.
"""

import argparse

import numpy as np
from common import command, publish

from merhan.metrics.intervals import bootstrap_intervals
from merhan.reporting.markdown_tables import markdown_table


TRUTH = 0.6  # the mean ease of all the speakers there could be


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=int, default=1000, help="how many to simulate (default: 1000)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    sizes = [(speakers, rows) for speakers in (10, 40) for rows in (10, 40)]
    table = [
        [speakers, rows, *(f"{share:.1%}" for share in coverage(arguments.corpora, speakers, rows).values())]
        for speakers, rows in sizes
    ]
    header = ["speakers", "rows of each", "drawing speakers holds", "drawing rows holds"]
    text = f"""`{command()}`

{arguments.corpora} corpora of each size, accuracy by speaker uniform from 0.3 to 0.9, 95 % intervals of WAR, seed 0.

{markdown_table(header, table)}
"""
    publish("interval-coverage", text, arguments.write)


def coverage(
    corpora: int, speakers: int = 40, rows: int = 10, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Share of the simulated corpora whose interval holds the truth, drawing speakers and drawing rows."""
    rng = np.random.default_rng(seed)
    held: dict[str, list[bool]] = {"speakers": [], "rows": []}
    for _ in range(corpora):
        ease = rng.uniform(TRUTH - 0.3, TRUTH + 0.3, speakers)
        references = rng.integers(0, 4, speakers * rows)
        right = rng.random(len(references)) < np.repeat(ease, rows)
        predictions = np.where(right, references, (references + 1) % 4)
        for name, clusters in (("speakers", np.repeat(np.arange(speakers), rows)), ("rows", np.arange(len(right)))):
            low, high = bootstrap_intervals(predictions, references, clusters, 4, resamples=resamples)["war"]
            held[name].append(low <= TRUTH <= high)
    return {name: float(np.mean(found)) for name, found in held.items()}


if __name__ == "__main__":
    main()
