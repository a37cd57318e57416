"""Charts of the reports: reliability diagram, risk-coverage curve, training curves, scores under corruption."""

from collections.abc import Mapping, Sequence
from typing import Any

from merhan.reporting.svg_charts import Chart, Reference, Series, category_axis, line_chart, number_axis
from merhan.training.stage_history import StageHistory


def reliability_chart(metrics: Mapping[str, Any]) -> Chart:
    """Accuracy against confidence, calibrated and uncalibrated."""
    series = []
    for name, key, style in (("uncalibrated", "uncalibrated", "series2"), ("calibrated", "calibration", "series1")):
        bins = metrics[key]["bins"]
        weights = [count / metrics["n"] for count in bins["count"]]
        points = list(zip(bins["confidence"], bins["accuracy"], strict=True))
        series.append(Series(name, points, style, weights))
    diagonal = Reference("perfect calibration", (0.0, 0.0), (1.0, 1.0), "dashed")
    x, y = number_axis("confidence", 1.0), number_axis("accuracy", 1.0)
    return line_chart("Reliability diagram", x, y, series, [diagonal], height=320)


def risk_coverage_chart(metrics: Mapping[str, Any]) -> Chart:
    """Error rate against the share of utterances that are answered."""
    curve = metrics["risk_coverage"]
    points = sorted(set(zip(curve["coverage"], curve["risk"], strict=True)))
    x = number_axis("coverage (share of utterances answered)", 1.0)
    y = number_axis("risk (error rate)", max(*curve["risk"], 0.05))
    return line_chart("Risk-coverage curve", x, y, [Series("calibrated confidence", points, "series1")])


def training_charts(stage: StageHistory) -> list[Chart]:
    """Loss and validation UAR of a stage by epoch; empty with fewer than two epochs."""
    if len(stage.epochs) < 2:
        return []
    epochs = number_axis("epoch", _points(stage, "uar")[-1][0], integer=True)
    training = Series("training", _points(stage, "loss"), "series2")
    validation = Series("validation", _points(stage, "validation_loss"), "series1")
    highest = max(loss for _, loss in [*training.points, *validation.points, (0.0, 1e-6)])
    uar = Series("validation", _points(stage, "uar"), "series1")
    return [
        line_chart("Loss", epochs, number_axis("loss", highest), [training, validation]),
        line_chart("UAR", epochs, number_axis("UAR", 1.0), [uar]),
    ]


def _points(stage: StageHistory, name: str) -> list[tuple[float, float]]:
    """Epoch and value; the training loss is missing for an epoch in which none was logged."""
    points = []
    for entry in stage.epochs:
        epoch, value = entry["epoch"], entry.get(name)
        if epoch is not None and value is not None:
            points.append((epoch, value))
    return points


def robustness_chart(curves: Mapping[str, Any], clean: float, chance: float) -> Chart:
    """UAR against the levels of one corruption.

    Args:
        curves: `title`, `levels` and `lines` (family -> UAR at each level), as `robustness_curves` returns them.
        clean: UAR of the clean split.
        chance: UAR of a random guess.
    """
    x = category_axis(curves["title"], curves["levels"])
    series = [
        Series(family, list(enumerate(scores)), f"series{number}")
        for number, (family, scores) in enumerate(curves["lines"].items(), 1)
    ]
    references = [
        Reference("clean", (x.low, clean), (x.high, clean), "dashed"),
        Reference("chance", (x.low, chance), (x.high, chance), "dotted"),
    ]
    return line_chart(f"UAR against {curves['title']}", x, number_axis("UAR", 1.0), series, references)


def robustness_curves(rows: Sequence[Mapping[str, Any]], axes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Title, levels from clean to the strongest, and UAR at each level by family, for each axis that has rows.

    Args:
        rows: results of all conditions, the first of the clean split.
        axes: axis -> title.
    """
    curves = []
    for axis, title in axes.items():
        members = [row for row in rows if row["axis"] == axis]
        if not members:
            continue
        levels = list(dict.fromkeys(f"{row['level']:g}" for row in members))
        lines: dict[str, list[float]] = {}
        for row in members:
            lines.setdefault(row["family"], [rows[0]["uar"]]).append(row["uar"])
        curves.append({"title": title, "levels": ["clean", *levels], "lines": lines})
    return curves
