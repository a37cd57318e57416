"""Tabulate finished runs side by side, with the commands that made them.

python benchmarks/runs.py --section quickstart outputs/quickstart
"""

import argparse
import json
import os
from pathlib import Path

from common import command, hardware, publish

from merhan.reporting.markdown_tables import (
    Markdown,
    class_table,
    interval_note,
    markdown_table,
    scores_table,
    temperatures_note,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--section", required=True, help="section of RESULTS.md")
    parser.add_argument(
        "--hide", action="append", default=[], metavar="NAME=PATH", help="show $NAME in place of a path"
    )
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    hidden = dict(pair.split("=", 1) for pair in arguments.hide)
    if corpora := os.environ.get("MERHAN_CORPORA"):
        hidden["MERHAN_CORPORA"] = corpora
    evaluations = {name: metrics for run in arguments.runs for name, metrics in figures_of(run)}
    first = next(iter(evaluations.values()))
    protocol = first["protocol"]
    seeds = sorted({json.loads((run / "provenance.json").read_text())["seed"] for run in arguments.runs})
    commands = [[Markdown(f"`{run.name}`"), Markdown(command_of(run, hidden))] for run in arguments.runs]
    text = f"""`{command(**hidden)}`

{markdown_table(["run", "command"], commands)}

Protocol `{protocol["name"]}` version {protocol["version"]} (hash `{protocol["hash"]}`), seed {seeds}, {hardware()}.
{interval_note(first)}

{scores_table(evaluations, "run")}

Temperature fitted on validation, and the calibration of the scores on {first["split"]} with it and without:

{calibrations(evaluations)}

`{arguments.runs[0].name}`, class by class:

{class_table(first)}
"""
    publish(arguments.section, text, arguments.write)


def figures_of(run: Path):
    """Every evaluation of a run, by name."""
    for path in sorted((run / "evaluation").glob("*/metrics.json")):
        metrics = json.loads(path.read_text())
        yield Markdown(f"`{run.name}`, {metrics['split']}, {metrics['condition']}"), metrics


def calibrations(evaluations: dict[str, dict]) -> str:
    """One row per evaluation."""
    columns = [(kind, score) for score in ("ece", "log_loss") for kind in ("uncalibrated", "calibration")]
    rows = []
    for name, metrics in evaluations.items():
        scores = [f"{metrics[kind][score]:.3f}" for kind, score in columns]
        rows.append([name, temperatures_note(metrics), *scores])
    header = ["run", "temperature", "ECE without", "ECE with", "log loss without", "log loss with"]
    return markdown_table(header, rows)


def command_of(run: Path, hidden: dict[str, str]) -> str:
    words = (run / "command.txt").read_text().strip()
    for name, path in hidden.items():
        words = words.replace(path, f"${name}")
    return f"`{words}`"


if __name__ == "__main__":
    main()
