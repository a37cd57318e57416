"""Coverage of 95 % intervals over simulated corpora: how often they contain the true score.

    python benchmarks/interval_coverage.py

Speakers differ in how easily they are recognised. An interval over speakers should contain the true score in 95 of 100
corpora; one over rows treats the rows of one speaker as independent.
"""

import argparse

import numpy as np
from common import command, publish

from merhan.metrics.intervals import bootstrap_intervals
from merhan.reporting.markdown_tables import markdown_table


TRUTH = 0.6  # mean accuracy over all possible speakers


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
    header = ["speakers", "rows of each", "coverage, resampling speakers", "coverage, resampling rows"]
    text = f"""`{command()}`

{arguments.corpora} corpora of each size, accuracy by speaker uniform from 0.3 to 0.9, 95 % intervals of WAR, seed 0.

{markdown_table(header, table)}
"""
    publish("interval-coverage", text, arguments.write)


def coverage(
    corpora: int, speakers: int = 40, rows: int = 10, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Share of the simulated corpora whose interval contains the true score, resampling speakers and rows."""
    rng = np.random.default_rng(seed)
    covered: dict[str, list[bool]] = {"speakers": [], "rows": []}
    for _ in range(corpora):
        accuracy = rng.uniform(TRUTH - 0.3, TRUTH + 0.3, speakers)
        references = rng.integers(0, 4, speakers * rows)
        right = rng.random(len(references)) < np.repeat(accuracy, rows)
        predictions = np.where(right, references, (references + 1) % 4)
        for name, clusters in (("speakers", np.repeat(np.arange(speakers), rows)), ("rows", np.arange(len(right)))):
            low, high = bootstrap_intervals(predictions, references, clusters, 4, resamples=resamples)["war"]
            covered[name].append(low <= TRUTH <= high)
    return {name: float(np.mean(hits)) for name, hits in covered.items()}


if __name__ == "__main__":
    main()
