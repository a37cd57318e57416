"""The report of an experiment: scores over folds and seeds, and paired tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from merhan.errors import InputError
from merhan.evaluation.comparison import (
    Difference,
    System,
    compare_pairs,
    format_difference,
    format_p_value,
    require_comparable,
)
from merhan.evaluation.prediction_table import read_metrics, read_predictions, score_predictions
from merhan.evaluation.run_description import format_date, protocol_text
from merhan.experiments.plan import Experiment, Run, is_finished, predictions_file
from merhan.files import write_text
from merhan.names import SCORE_TITLES, SCORES
from merhan.reporting.markdown_tables import format_score, interval_note, markdown_table, protocol_note
from merhan.reporting.pages import render


class Result(NamedTuple):
    """The scores of a row, over all its runs."""

    name: str
    scores: list[dict[str, Any]]  # metrics of each run
    pooled: dict[str, Any]  # metrics of the test rows of all folds and seeds
    system: System  # their predictions


class Table(NamedTuple):
    """A table of the report."""

    title: str
    header: list[str]
    rows: list[list[Any]]


def write_report(
    experiment: Experiment, plan: Mapping[str, Sequence[Run]], folder: Path, failures: Sequence[str] = ()
) -> list[Table]:
    """Write `report.md` and `report.html` from the predictions of the rows whose runs are all finished.

    Args:
        experiment: the experiment.
        plan: row -> runs.
        folder: the folder to write.
        failures: messages of the runs that failed.

    Returns:
        The tables of the report; the first one compares the rows. None without finished rows.
    """
    finished = {name: runs for name, runs in plan.items() if all(map(is_finished, runs))}
    results = {name: collect_result(name, runs, experiment.rows[name].condition) for name, runs in finished.items()}
    differences, notes = compare_rows(experiment, results)
    tables: list[Table] = []
    unfinished = [name for name in plan if name not in finished]
    if unfinished:
        notes.append(f"Not shown, because not all of their runs are finished: {', '.join(unfinished)}.")
    if results:
        notes = [*_method_notes(experiment, plan, next(iter(results.values()))), *notes]
        tables = report_tables(experiment, plan, results, differences)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.md", _markdown(experiment.name, notes, tables, failures))
    header = _header(experiment, plan, results)
    page = render(
        "experiment.html.jinja", experiment=experiment, header=header, notes=notes, failures=failures, tables=tables
    )
    write_text(folder / "report.html", page)
    return tables


def _markdown(name: str, notes: Sequence[str], tables: Sequence[Table], failures: Sequence[str]) -> str:
    parts = [f"# {name}", *notes]
    for table in tables:
        parts += [f"## {table.title}", markdown_table(table.header, table.rows)]
    parts += [f"Failed:\n\n    {failure}" for failure in failures]
    return "\n\n".join(parts) + "\n"


def _header(experiment: Experiment, plan: Mapping[str, Sequence[Run]], results: Mapping[str, Result]) -> dict[str, str]:
    """The header of the page, as title -> value."""
    runs = {run.folder for runs in plan.values() for run in runs}
    finished = {run.folder for runs in plan.values() for run in runs if is_finished(run)}
    header = {
        "Rows": str(len(plan)),
        "Runs": f"{len(finished)} of {len(runs)} finished",
        "Seeds": ", ".join(map(str, experiment.seeds)),
        "Compared by": SCORE_TITLES[experiment.metric],
        "Date of the report": format_date(datetime.now(UTC).isoformat()),
    }
    for result in results.values():
        header["Protocol"] = protocol_text(result.system.protocol)
    return header


def collect_result(name: str, runs: Sequence[Run], condition: str | None) -> Result:
    """Collect the scores of each run, and score all their test rows together.

    Args:
        name: of the row.
        runs: finished runs.
        condition: of the row.
    """
    files = [predictions_file(run, condition) for run in runs]
    metrics = [read_metrics(file.parent) for file in files]
    tables = [read_predictions(file).assign(run=number) for number, file in enumerate(files)]
    # Sorted by utterance, then by run, so that the rows of two systems with the same folds and seeds are aligned.
    rows = pd.concat(tables, ignore_index=True).sort_values(["utterance_id", "run"], ignore_index=True)
    labels = sorted({label for run_metrics in metrics for label in run_metrics["labels"]})
    protocol = {key: metrics[0]["protocol"].get(key) for key in ("name", "version", "hash")}
    return Result(name, metrics, score_predictions(rows, labels), System(name, rows, protocol))


def compare_rows(experiment: Experiment, results: Mapping[str, Result]) -> tuple[list[Difference], list[str]]:
    """Compare each row with the row that it names; also returns a note for each pair that cannot be compared."""
    pairs, notes = [], []
    for name, row in experiment.rows.items():
        against = row.against or ""
        if name == against or against not in results or name not in results:
            continue
        first, second = results[against].system, results[name].system
        try:
            require_comparable(first, second)
            pairs.append((first, second))
        except InputError as error:
            notes.append(str(error))
    return compare_pairs(pairs), notes


def _method_notes(experiment: Experiment, plan: Mapping[str, Sequence[Run]], first: Result) -> list[str]:
    """How the scores, intervals and tests were computed."""
    protocol, seeds = first.system.protocol, len(experiment.seeds)
    folds = len(plan[first.name]) // seeds
    numbers = ", ".join(map(str, experiment.seeds))
    return [
        f"Protocol {protocol_note(protocol)}, {_count(folds, 'fold')} x {_count(seeds, 'seed')} ({numbers}). Columns "
        f"of scores: mean over folds and seeds (standard deviation). {interval_note(first.pooled)}",
        f"{_test_note(experiment, first)} Test rows were not used to select anything.",
    ]


def _test_note(experiment: Experiment, first: Result) -> str:
    if not first.pooled["intervals"]:
        return "No paired tests, for the same reason."
    note = (
        f"Tests: paired, over {first.pooled['interval_clusters']}, by approximate randomisation, of "
        f"{SCORE_TITLES[experiment.metric]} in the first table; p corrected over its rows (Holm)."
    )
    if len(experiment.seeds) > 1:
        note += (
            " Rows of all seeds are pooled and paired by seed, and a cluster is resampled with all its seeds: "
            "intervals and p-values describe the variation over speakers, the standard deviation includes that over "
            "seeds."
        )
    return note


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}s"


def report_tables(
    experiment: Experiment,
    plan: Mapping[str, Sequence[Run]],
    results: Mapping[str, Result],
    differences: Sequence[Difference],
) -> list[Table]:
    """All tables that have rows; with a single row there is nothing to test."""
    tables = [
        _comparison(experiment.metric, results, differences),
        _pooled_scores(results),
        _class_scores(results),
        _paired_tests(differences),
        _runs(plan, results),
    ]
    return [table for table in tables if table.rows]


def _comparison(metric: str, results: Mapping[str, Result], differences: Sequence[Difference]) -> Table:
    tested = {difference.second: difference for difference in differences if difference.score == metric}
    rows = []
    for name, result in results.items():
        means = [_format_mean([scores[score] for scores in result.scores]) for score in SCORES]
        change = p_value = ""
        if name in tested:
            difference = tested[name]
            change = f"{format_difference(difference)}, over {difference.first}"
            p_value = format_p_value(difference.p_holm)
        rows.append([name, len(result.scores), *means, format_score(result.pooled, metric), change, p_value])
    pooled = f"{SCORE_TITLES[metric]} of all rows"
    return Table("Comparison", ["row", "runs", *_score_titles(), pooled, "difference", "p"], rows)


def _pooled_scores(results: Mapping[str, Result]) -> Table:
    rows = []
    for name, result in results.items():
        rows.append([name, result.pooled["n"], *(format_score(result.pooled, score) for score in SCORES)])
    return Table("All test rows", ["row", "n", *_score_titles()], rows)


def _class_scores(results: Mapping[str, Result]) -> Table:
    labels = sorted({label for result in results.values() for label in result.pooled["labels"]})
    rows = []
    for name, result in results.items():
        f1 = dict(zip(result.pooled["labels"], result.pooled["per_class"]["f1"], strict=True))
        rows.append([name, *(_format_f1(f1.get(label)) for label in labels)])
    return Table("F1 of each class", ["row", *labels], rows)


def _paired_tests(differences: Sequence[Difference]) -> Table:
    rows = []
    for difference in differences:
        pair, title = f"{difference.second} over {difference.first}", SCORE_TITLES[difference.score]
        p_values = [format_p_value(difference.p), format_p_value(difference.p_holm)]
        rows.append([pair, title, format_difference(difference), *p_values])
    return Table("Paired tests", ["rows", "score", "difference", "p", "p (Holm)"], rows)


def _runs(plan: Mapping[str, Sequence[Run]], results: Mapping[str, Result]) -> Table:
    rows = []
    for name, result in results.items():
        for run, scores in zip(plan[name], result.scores, strict=True):
            figures = [f"{scores[score]:.3f}" for score in SCORES]
            rows.append([f"{name}, {run.folder.name}", scores["n"], *figures])
    return Table("Runs", ["run", "n", *_score_titles()], rows)


def _score_titles() -> list[str]:
    return [SCORE_TITLES[score] for score in SCORES]


def _format_mean(values: Sequence[float]) -> str:
    """Mean with standard deviation, as `0.612 (0.021)`, or only the value of a single run."""
    text = f"{np.mean(values):.3f}"
    if len(values) > 1:
        text += f" ({np.std(values, ddof=1):.3f})"
    return text


def _format_f1(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}"
