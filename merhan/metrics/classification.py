"""Classification metrics of emotion recognition, as a module of the `evaluate` library that needs no network.

`evaluate.load("merhan/metrics/classification.py")` or `EmotionMetrics()`, then
`.compute(predictions=..., references=..., num_labels=...)`.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import (
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    recall_score,
)


_DESCRIPTION = """Scores that speech emotion recognition is reported in. WAR (weighted average recall) is the accuracy.
UAR (unweighted average recall) is the mean of the per-class recalls; chance level is one over the number of classes.
F1 is averaged over classes without weights (macro) and weighted by support."""


class EmotionMetrics(evaluate.Metric):
    """WAR, UAR, macro and weighted F1, per-class scores and the confusion matrix, computed by scikit-learn."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references: class ids; num_labels: number of classes",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int], num_labels: int) -> dict[str, Any]:
        return classification_scores(np.asarray(predictions), np.asarray(references), num_labels)


def classification_scores(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> dict[str, Any]:
    """All classification metrics.

    Args:
        predictions, references: class ids `(rows,)`.
        num_labels: number of classes. A class without references has no recall and counts in neither UAR nor macro F1.

    Returns:
        `war, uar, macro_f1, weighted_f1` in [0, 1], Cohen's `kappa` and Matthews' `mcc` in [-1, 1] (None if only one
        class occurs in the references), `n`, `per_class` (lists of `precision, recall, f1, support`) and
        `confusion_matrix` (references by predictions).
    """
    present = np.unique(references)
    options: dict[str, Any] = {"labels": present, "zero_division": 0.0}
    return {
        "war": float(np.mean(predictions == references)),
        "uar": float(recall_score(references, predictions, average="macro", **options)),
        "macro_f1": float(f1_score(references, predictions, average="macro", **options)),
        "weighted_f1": float(f1_score(references, predictions, average="weighted", **options)),
        **_agreement(predictions, references, num_labels),
        "n": len(references),
        "per_class": _per_class(predictions, references, num_labels),
        "confusion_matrix": confusion_matrix(references, predictions, labels=np.arange(num_labels)).tolist(),
    }


def _agreement(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> dict[str, float | None]:
    """Cohen's kappa and Matthews' correlation; undefined if the references hold one class only."""
    if len(np.unique(references)) < 2:
        return {"kappa": None, "mcc": None}
    kappa = cohen_kappa_score(references, predictions, labels=np.arange(num_labels))
    return {"kappa": float(kappa), "mcc": float(matthews_corrcoef(references, predictions))}


def _per_class(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> dict[str, list[float]]:
    labels = np.arange(num_labels)
    columns = precision_recall_fscore_support(references, predictions, labels=labels, zero_division=0.0)
    names = ("precision", "recall", "f1", "support")
    return {name: values.tolist() for name, values in zip(names, columns, strict=True)}


def counts_by_cluster(
    predictions: np.ndarray, references: np.ndarray, clusters: np.ndarray, num_labels: int
) -> np.ndarray:
    """Confusion counts of each cluster, `(clusters, references, predictions)`, sorted by the name of the cluster."""
    names, members = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(names), num_labels, num_labels))
    np.add.at(counts, (members, references, predictions), 1)
    return counts


def resampled_scores(counts: np.ndarray, sample: np.ndarray, axis: int) -> np.ndarray:
    """The four scores of resampled clusters `(4, ...)`; every score is a function of confusion counts, which add up.

    Args:
        counts: `(clusters, references, predictions)`, see [`counts_by_cluster`].
        sample: numbers of clusters `(..., clusters, ...)`.
        axis: the axis of the clusters, counted from the end, as scipy's resampling functions pass it.
    """
    return scores_from_counts(np.moveaxis(counts[sample], axis - 2, 0).sum(axis=0))


def scores_from_counts(counts: np.ndarray) -> np.ndarray:
    """Confusion counts `(..., references, predictions)` -> the four scores of `SCORES`, `(4, ...)`."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    present = support > 0
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    classes, total = present.sum(axis=-1), support.sum(axis=-1)
    return np.stack(
        [
            hits.sum(axis=-1) / total,
            recall.sum(axis=-1) / classes,
            (f1 * present).sum(axis=-1) / classes,
            (f1 * support).sum(axis=-1) / total,
        ]
    )
