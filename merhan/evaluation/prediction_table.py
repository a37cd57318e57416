"""From predictions to scores: overall, by group, and of each dimension."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merhan.content_hashes import require_intact
from merhan.errors import InputError
from merhan.files import read_json
from merhan.metrics.annotations import dimension_scores
from merhan.metrics.classification import EmotionMetrics, classification_scores
from merhan.metrics.intervals import bootstrap_intervals
from merhan.names import DIMENSIONS


# Manifest columns that a prediction table keeps, for grouping and pairing.
KEPT_COLUMNS = ("corpus", "speaker", "session", "dialogue", "gender", "language", "duration", *DIMENSIONS)

GROUP_COLUMNS = ("speaker", "corpus", "gender", "language")  # columns that scores are reported by

DURATION_BOUNDS = (-1.0, 1.0, 2.0, 4.0, 8.0, float("inf"))  # seconds

DURATION_NAMES = ("under 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s", "over 8 s")

FEWEST_ROWS = 10  # smaller groups are listed last, because their scores are noisy

_REMEDY = "evaluate again"


def read_predictions(file: Path) -> pd.DataFrame:
    """Read the `predictions.parquet` of an evaluation, or a file like it.

    Raises:
        InputError: it or `metrics.json` is damaged, or is not of this evaluation, or a column is missing.
    """
    require_intact(file.parent, _REMEDY)
    try:
        predictions = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]}); {_REMEDY}.") from None
    missing = {"utterance_id", "label", "prediction"} - set(predictions)
    if missing:
        raise InputError(f"{file}: has no column {', '.join(sorted(missing))}; is it a prediction file?")
    return predictions


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read `metrics.json` of an evaluation.

    Raises:
        InputError: it is missing or damaged, or does not belong to the predictions beside it.
    """
    require_intact(folder, _REMEDY)
    metrics = read_json(folder / "metrics.json", _REMEDY)
    predictions = read_predictions(folder / "predictions.parquet")
    recall = (predictions["prediction"] == predictions["label"]).mean()
    if "war" in metrics and not math.isclose(metrics["war"], recall, abs_tol=1e-9):  # of a version without hashes
        raise InputError(
            f"{folder}: metrics.json and predictions.parquet are of different evaluations (WAR {metrics['war']:g} and "
            f"{recall:g}); {_REMEDY}."
        )
    return metrics


def prediction_table(
    rows: pd.DataFrame, logits: np.ndarray, temperatures: Sequence[float] | pd.Series, labels: Sequence[str]
) -> pd.DataFrame:
    """One row per utterance: id, label, prediction, logits, temperature, and the columns that group it.

    Args:
        rows: manifest rows.
        logits: `(rows, num_labels)`.
        temperatures: `(rows,)`.
        labels: name of each class.
    """
    return pd.DataFrame(
        {
            "utterance_id": rows["utterance_id"].to_numpy(),
            "label": rows["label"].to_numpy(),
            "prediction": [labels[number] for number in logits.argmax(axis=1)],
            "logits": list(logits),
            **{column: rows[column].to_numpy() for column in KEPT_COLUMNS if column in rows},
            "temperature": np.asarray(temperatures),
        }
    )


def score_predictions(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """Scores of a prediction table, with 95 % intervals over dialogues or speakers.

    Args:
        predictions: as [`prediction_table`] returns it; needs `utterance_id, label, prediction`.
        labels: name of each class.

    Returns:
        The content of [`classification_scores`], `labels`, `intervals`, `interval_clusters` and `groups`.
    """
    ids = {label: number for number, label in enumerate(labels)}
    predicted = predictions["prediction"].map(ids).to_numpy()
    references = predictions["label"].map(ids).to_numpy()
    scores = EmotionMetrics().compute(predictions=predicted, references=references, num_labels=len(labels)) or {}
    cluster = cluster_column(predictions)
    return scores | {
        "labels": labels,
        "intervals": bootstrap_intervals(predicted, references, predictions[cluster].to_numpy(), len(labels)),
        "interval_clusters": cluster.removesuffix("_id") + "s",
        "groups": scores_by_group(predictions, predicted, references, len(labels)),
    }


def score_dimensions(predictions: pd.DataFrame, dimensions: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """CCC, Pearson's r and RMSE of each dimension over the rows annotated with it; None without such rows."""
    scores: dict[str, dict[str, Any] | None] = {}
    for name in dimensions:
        scores[name] = None
        if name in predictions and predictions[name].notna().any():
            annotated = predictions[predictions[name].notna()]
            scores[name] = dimension_scores(annotated[f"{name}_prediction"].to_numpy(), annotated[name].to_numpy())
    return scores


def scores_by_group(
    predictions: pd.DataFrame, predicted: np.ndarray, references: np.ndarray, num_labels: int
) -> dict[str, list[dict[str, Any]]]:
    """`name, n, war, uar` of every speaker, corpus, gender, language and range of duration.

    The lowest UAR comes first; groups of fewer than `FEWEST_ROWS` rows come last. Columns with a single group are left
    out.

    Args:
        predictions: the prediction table.
        predicted, references: its class ids `(rows,)`.
        num_labels: number of classes.
    """
    groups = {}
    for column, values in _group_values(predictions).items():
        names = sorted(set(values) - {""})
        if len(names) > 1:
            scores = [_group_scores(name, values == name, predicted, references, num_labels) for name in names]
            groups[column] = sorted(scores, key=lambda group: (group["n"] < FEWEST_ROWS, group["uar"]))
    return groups


def _group_values(predictions: pd.DataFrame) -> dict[str, pd.Series]:
    """Column -> name of each row's group, empty if unknown."""
    columns = {name: predictions[name].fillna("") for name in GROUP_COLUMNS if name in predictions}
    if "duration" in predictions and predictions["duration"].any():
        ranges = pd.cut(predictions["duration"], DURATION_BOUNDS, labels=DURATION_NAMES)
        columns["duration"] = ranges.astype(object).fillna("")
    return columns


def _group_scores(
    name: str, members: pd.Series, predicted: np.ndarray, references: np.ndarray, num_labels: int
) -> dict[str, Any]:
    scores = classification_scores(predicted[members], references[members], num_labels)
    return {"name": name, **{key: scores[key] for key in ("n", "war", "uar")}}


def cluster_column(rows: pd.DataFrame) -> str:
    """What intervals resample: dialogues if every row has one, else speakers, else single utterances."""
    for column in ("dialogue", "speaker"):
        if column in rows and (rows[column] != "").all():
            return column
    return "utterance_id"
