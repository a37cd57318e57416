"""Temperature scaling, calibration error and risk-coverage curves."""

from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss


def fit_temperature(logits: np.ndarray, references: np.ndarray) -> float:
    """Temperature that minimises the log loss of `softmax(logits / temperature)` (Guo et al. 2017, arXiv 1706.04599).

    If every row is predicted correctly, that temperature is 0 and every score exactly 1, which no finite number of rows
    supports. Then scores are sharpened only as far as none of these rows exceeds `(n + 1) / (n + 2)`, the accuracy to
    be expected after `n` rows without a mistake (Laplace's rule of succession, as in the targets of Platt 1999).

    Args:
        logits: `(rows, num_labels)`, of validation rows.
        references: class ids `(rows,)`.

    Returns:
        A temperature between 0.05 and 20.
    """
    if is_without_mistake(logits, references):
        return _supported_temperature(logits)

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -log_probabilities[np.arange(len(references)), references].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def _supported_temperature(logits: np.ndarray) -> float:
    """The lowest temperature, 1 at most, at which no score of rows without a mistake exceeds what they support."""
    supported = (len(logits) + 1) / (len(logits) + 2)

    def excess(log_temperature: float) -> float:
        return softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1).max() - supported

    if excess(0.0) >= 0:
        return 1.0
    if excess(-3.0) <= 0:
        return float(np.exp(-3.0))
    return float(np.exp(brentq(excess, -3.0, 0.0)))


def is_without_mistake(logits: np.ndarray, references: np.ndarray) -> bool:
    """Whether every row is predicted correctly, so that the log loss has no best temperature."""
    return logits.shape[1] > 1 and bool((logits.argmax(axis=1) == references).all())


def calibration_scores(logits: np.ndarray, references: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """Agreement of the predicted probability with the accuracy.

    Args:
        logits: `(rows, num_labels)`.
        references: class ids `(rows,)`.
        bins: number of bins of equal width for the expected calibration error.

    Returns:
        `ece` in [0, 1] (expected calibration error, Naeini et al. 2015), `brier` in [0, 2], `log_loss` in nats, `top2`
        (share of rows whose label is among the two most probable), and `bins`, the non-empty bins as lists
        `confidence, accuracy, count`.
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, predictions = probabilities.max(axis=1), probabilities.argmax(axis=1)
    labels = np.arange(probabilities.shape[1])
    two_best = np.argsort(-probabilities, axis=1)[:, :2]
    filled = _reliability_bins(confidence, predictions == references, bins)
    gaps = np.abs(filled["accuracy"] - filled["confidence"])
    return {
        "ece": float((filled["count"] * gaps).sum() / len(references)),
        "brier": float(brier_score_loss(references, probabilities, labels=labels, scale_by_half=False)),
        "log_loss": float(log_loss(references, probabilities, labels=labels)),
        "top2": float((two_best == references[:, None]).any(axis=1).mean()),
        "bins": {name: values.tolist() for name, values in filled.items()},
    }


def _reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """Mean confidence, accuracy and number of rows of every bin that has rows."""
    members = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(members, minlength=bins)
    filled = count > 0
    count = count[filled]
    return {
        "confidence": np.bincount(members, weights=confidence, minlength=bins)[filled] / count,
        "accuracy": np.bincount(members, weights=correct, minlength=bins)[filled] / count,
        "count": count,
    }


def risk_coverage(logits: np.ndarray, references: np.ndarray) -> dict[str, Any]:
    """Error rate if only the most confident rows are answered (Geifman and El-Yaniv 2017, arXiv 1705.08500).

    Args:
        logits: `(rows, num_labels)`.
        references: class ids `(rows,)`.

    Returns:
        Three lists, `coverage` (share of the rows that are answered, from 1 down to about 0.1), `threshold` (the lowest
        confidence that is answered) and `risk` (error rate among the answered rows), and `aurc`, the mean risk over all
        coverages. Rows of equal confidence are answered together.
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != references
    order = np.argsort(-confidence, kind="stable")
    risk_by_rank = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    thresholds = [confidence[order[max(int(len(order) * tenths / 10), 1) - 1]] for tenths in range(10, 0, -1)]
    answered = [confidence >= threshold for threshold in thresholds]
    return {
        "coverage": [float(rows.mean()) for rows in answered],
        "threshold": [float(threshold) for threshold in thresholds],
        "risk": [float(wrong[rows].mean()) for rows in answered],
        "aurc": float(risk_by_rank.mean()),
    }
