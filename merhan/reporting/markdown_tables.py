"""Markdown tables and sentences about metrics."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from merhan.names import SCORE_TITLES, SCORES


class Markdown(str):
    """A text of ours with markup; every other text is escaped."""


# What begins markup in Markdown or HTML, and what would end a table row, heading or list item.
_MARKUP = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|\[(?=[^\]]*\]\()|&(?=#?\w+;)|[\x00-\x1f\x7f\x85\u2028\u2029]+")


def escape_markdown(text: Any) -> str:
    """A text, as a name or a quote, so that Markdown shows it as it is, in a cell, a heading or a list item."""
    if isinstance(text, Markdown):
        return str(text)
    return _MARKUP.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    character = match.group()[0]
    if character < " " or character in "\x7f\x85\u2028\u2029":
        return " "
    return f"&#{ord(character)};"


def code_span(text: Any) -> str:
    """A text as code, whatever it holds."""
    escaped = escape_markdown(text)
    if escaped != str(text):
        return f"<code>{escaped}</code>"
    return f"`{text}`"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A GitHub table; the first column is left-aligned, the others are right-aligned. Cells are escaped."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(escape_markdown, line)) + " |" for line in (header, rule, *rows))


def format_score(metrics: Mapping[str, Any], score: str) -> str:
    """A score with its interval if there is one, as `0.612 [0.580, 0.645]`."""
    text = f"{metrics[score]:.3f}"
    bounds = metrics["intervals"].get(score)
    if bounds:
        text += f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return text


def interval_note(metrics: Mapping[str, Any]) -> str:
    """How the intervals were computed, or why there are none."""
    clusters = metrics["interval_clusters"]
    if metrics["intervals"]:
        return f"In brackets: 95 % intervals, bootstrap over {clusters}."
    from merhan.metrics.intervals import FEWEST_CLUSTERS  # here, because it loads datasets and evaluate

    return f"No intervals: they need at least {FEWEST_CLUSTERS} {clusters}."


def scores_table(named: Mapping[str, Mapping[str, Any]], first: str = "input") -> str:
    """One row per evaluation: the number of utterances and the four scores with their intervals.

    Args:
        named: name of the row -> metrics.
        first: title of the first column.
    """
    rows = [
        [name, metrics["n"], *(format_score(metrics, score) for score in SCORES)] for name, metrics in named.items()
    ]
    return markdown_table([first, "n", *(SCORE_TITLES[score] for score in SCORES)], rows)


def class_table(metrics: Mapping[str, Any]) -> str:
    """One row per class: precision, recall, F1 and support."""
    columns = metrics["per_class"]
    rows = []
    for number, label in enumerate(metrics["labels"]):
        scores = [f"{columns[name][number]:.3f}" for name in ("precision", "recall", "f1")]
        rows.append([label, *scores, columns["support"][number]])
    return markdown_table(["class", "precision", "recall", "F1", "support"], rows)


def confusion_table(metrics: Mapping[str, Any]) -> str:
    """Counts, references by predictions."""
    labels = metrics["labels"]
    rows = [[label, *counts] for label, counts in zip(labels, metrics["confusion_matrix"], strict=True)]
    return markdown_table(["label", *labels], rows)


def temperatures_note(metrics: Mapping[str, Any]) -> str:
    """The fitted temperature, as `1.42`; with the modalities of each if rows differ in their modalities."""
    temperatures = metrics["temperatures"]
    if len(temperatures) == 1:
        return f"{next(iter(temperatures.values())):.2f}"
    return ", ".join(f"{value:.2f} ({modalities})" for modalities, value in temperatures.items())


def faultless_note(metrics: Mapping[str, Any]) -> str:
    """That validation rows without a mistake bound a temperature; empty if there was a mistake."""
    rows = metrics.get("temperature_rows", {})
    sentences = [
        f"The temperature given {name} was fitted on {rows[name]} validation rows without a mistake, so none of their "
        f"scores is sharpened beyond {(rows[name] + 1) / (rows[name] + 2):.3f}, which so many rows support."
        for name in metrics["temperatures"]
        if name in rows
    ]
    return " ".join(sentences)


def calibration_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Name, temperature, ECE, Brier score, log loss and top-2 accuracy, calibrated and uncalibrated."""
    variants = (("calibrated", "calibration", temperatures_note(metrics)), ("uncalibrated", "uncalibrated", "1.00"))
    rows = []
    for name, key, temperature in variants:
        scores = [f"{metrics[key][score]:.3f}" for score in ("ece", "brier", "log_loss", "top2")]
        rows.append([name, temperature, *scores])
    return rows


CALIBRATION_HEADER = ["scores", "temperature", "ECE", "Brier score", "log loss", "top-2 accuracy"]


def calibration_table(metrics: Mapping[str, Any]) -> str:
    """Calibration of the scores with the fitted temperature and without."""
    return markdown_table(CALIBRATION_HEADER, calibration_rows(metrics))


RISK_COVERAGE_HEADER = ["coverage", "minimum confidence", "accuracy"]


def risk_coverage_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Coverage, threshold and accuracy, one row per threshold that differs as it is printed."""
    curve = metrics["risk_coverage"]
    rows: dict[str, list[str]] = {}
    for coverage, threshold, risk in zip(curve["coverage"], curve["threshold"], curve["risk"], strict=True):
        text = f"{threshold:.3f}"
        rows.setdefault(text, [f"{coverage:.0%}", text, f"{1 - risk:.3f}"])
    return list(rows.values())


def risk_coverage_note(metrics: Mapping[str, Any]) -> str:
    """The area under the curve, and whether thresholds separate the utterances at all."""
    rows = risk_coverage_rows(metrics)
    note = f"Area under the risk-coverage curve: {metrics['risk_coverage']['aurc']:.3f}."
    if len(rows) == 1:
        note += f" All confidences are {rows[0][1]} to three decimals, so no threshold separates the utterances."
    return note


def risk_coverage_table(metrics: Mapping[str, Any]) -> str:
    """Accuracy if only utterances above a confidence threshold are answered; empty if no threshold separates them."""
    rows = risk_coverage_rows(metrics)
    if len(rows) == 1:
        return ""
    return markdown_table(RISK_COVERAGE_HEADER, rows)


DIMENSIONS_HEADER = ["dimension", "CCC", "Pearson's r", "RMSE", "n"]


def dimension_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """CCC, Pearson's r, RMSE and n of each estimated dimension that has annotated rows."""
    rows = []
    for name, scores in metrics.get("dimensions", {}).items():
        if scores is not None:
            figures = [_format_optional(scores[key]) for key in ("ccc", "pearson", "rmse")]
            rows.append([name, *figures, str(scores["n"])])
    return rows


def votes_note(metrics: Mapping[str, Any]) -> str:
    """Distance of the predicted distributions from the annotators' votes; empty without votes."""
    votes = metrics.get("votes")
    if not votes:
        return ""
    return (
        f"{votes['n']} utterances with annotator votes: Kullback-Leibler divergence of the predicted distribution from "
        f"the votes {votes['kl']:.3f} nats, cross-entropy {votes['cross_entropy']:.3f} nats."
    )


def protocol_note(protocol: Mapping[str, Any]) -> str:
    """Name, version and hash of a protocol, and the fold if it has folds, in Markdown."""
    note = f"{code_span(protocol['name'])} version {protocol['version']} (hash `{protocol.get('hash') or 'none'}`)"
    if "fold" in protocol and "folds" in protocol:
        note += f", fold {protocol['fold']} of {protocol['folds']}"
    return note


def _format_optional(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}"
