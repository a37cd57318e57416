"""Run an experiment (`merhan experiment`), and put its tables into a section of RESULTS.md.

    python benchmarks/experiment.py configs/experiments/emodb.yaml --section emodb --jobs 2 --write

Runs that are finished are not run again.
"""

import argparse
import os
import sys

from common import command, hardware, publish

from merhan.cli.console import exits_cleanly
from merhan.experiments.run import run_experiment


@exits_cleanly
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="the experiment")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores (default: 1)")
    parser.add_argument("--section", required=True, help="section of RESULTS.md")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    arguments = parser.parse_args()
    folder, failures = run_experiment(arguments.file, arguments.jobs)
    if failures:
        sys.exit("\n".join(failures))
    _, report = (folder / "report.md").read_text().split("\n", 1)
    shown = command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))
    # Tests in every other score stay in the report; the first table has those in the score that was named before.
    parts = [part for part in report.strip().split("\n## ") if not part.startswith("Paired tests")]
    tables = "\n### ".join(parts)  # one level down: RESULTS.md has sections of its own
    publish(arguments.section, f"`{shown}`, {hardware()}.\n\n{tables}\n", arguments.write)


if __name__ == "__main__":
    main()
