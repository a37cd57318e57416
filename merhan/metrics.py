"""Metrics of emotion recognition, as a module of the `evaluate` library that needs no network.

`evaluate.load("merhan/metrics.py")` or `EmotionMetrics()`, then
`.compute(predictions=..., references=..., num_labels=...)`.
"""

import datasets
import evaluate
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax, xlogy
from scipy.stats import bootstrap, norm, pearsonr, t
from sklearn.metrics import (
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
    recall_score,
)


SCORES = ("war", "uar", "macro_f1", "weighted_f1")
FEWEST_CLUSTERS = 5  # that an interval is drawn from

_DESCRIPTION = """The figures that speech emotion recognition is reported in. WAR (weighted average recall) is the share
of utterances that are right, that is, accuracy. UAR (unweighted average recall) is the mean of the classes' recalls,
chance being one over the number of classes. F1 comes as the classes' plain mean (macro) and weighted by support."""


class EmotionMetrics(evaluate.Metric):
    """WAR, UAR, macro and weighted F1, the same per class, and the confusion matrix; scikit-learn computes them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references: class ids; num_labels: how many classes there are",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions, references, num_labels: int) -> dict:
        return score(np.asarray(predictions), np.asarray(references), num_labels)


def score(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> dict:
    """All figures at once.

    Args:
        predictions, references: class ids `(rows,)`.
        num_labels: number of classes. A class without a reference has no recall: it counts in neither UAR nor macro F1.

    Returns:
        `war, uar, macro_f1, weighted_f1` in [0, 1], Cohen's `kappa` and Matthews' `mcc` in [-1, 1] (None
        where one class alone is there), `n`, `per_class` (lists of `precision, recall, f1, support`) and
        `confusion_matrix` (reference by prediction).
    """
    labels = np.arange(num_labels)
    present = np.unique(references)
    options = {"labels": present, "zero_division": 0.0}
    per_class = precision_recall_fscore_support(references, predictions, labels=labels, zero_division=0.0)
    return {
        "war": float(np.mean(predictions == references)),
        "uar": float(recall_score(references, predictions, average="macro", **options)),
        "macro_f1": float(f1_score(references, predictions, average="macro", **options)),
        "weighted_f1": float(f1_score(references, predictions, average="weighted", **options)),
        "kappa": float(cohen_kappa_score(references, predictions, labels=labels)) if len(present) > 1 else None,
        "mcc": float(matthews_corrcoef(references, predictions)) if len(present) > 1 else None,
        "n": len(references),
        "per_class": dict(
            zip(("precision", "recall", "f1", "support"), (values.tolist() for values in per_class), strict=True)
        ),
        "confusion_matrix": confusion_matrix(references, predictions, labels=labels).tolist(),
    }


def intervals(
    predictions: np.ndarray,
    references: np.ndarray,
    clusters: np.ndarray,
    num_labels: int,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, list[float]]:
    """95 % intervals of the four scores, by a percentile bootstrap over clusters (speakers, or dialogues).

    Rows of one speaker are alike, so it is speakers that are drawn, not rows. Fewer than five clusters give no
    interval: two speakers say too little of a third. With few clusters the percentiles are moved outwards
    (`confidence_level`), without which ten speakers would hold the truth in 91 of 100 corpora.

    Returns:
        score -> `[low, high]`.
    """
    # Every score is a function of the confusion counts, and these add up over clusters.
    counts = counts_by_cluster(predictions, references, clusters, num_labels)
    if len(counts) < FEWEST_CLUSTERS:
        return {}

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        return scores_of_counts(np.moveaxis(counts[drawn], axis - 2, 0).sum(axis=0))

    options = {"n_resamples": resamples, "batch": 200, "method": "percentile", "rng": seed, "vectorized": True}
    level = confidence_level(len(counts))
    low, high = bootstrap((np.arange(len(counts)),), statistic, confidence_level=level, **options).confidence_interval
    return {name: [float(a), float(b)] for name, a, b in zip(SCORES, low, high, strict=True)}


def confidence_level(clusters: int, wanted: float = 0.95) -> float:
    """Level at which a percentile bootstrap over that many clusters has the width that Student's t would give it.

    Drawing n out of n with replacement gives a variance that is too small by (n - 1) / n, and normal tails where t has
    heavier ones (Hesterberg 2015, "What teachers should know about the bootstrap", The American Statistician 69).
    """
    reach = np.sqrt(clusters / (clusters - 1)) * t.ppf(0.5 + wanted / 2, clusters - 1)
    return float(1 - 2 * norm.sf(reach))


def counts_by_cluster(
    predictions: np.ndarray, references: np.ndarray, clusters: np.ndarray, num_labels: int
) -> np.ndarray:
    """Confusion counts of each cluster, `(clusters, references, predictions)`, in the order of the clusters' names."""
    names, member = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(names), num_labels, num_labels))
    np.add.at(counts, (member, references, predictions), 1)
    return counts


def scores_of_counts(counts: np.ndarray) -> np.ndarray:
    """Confusion counts `(..., references, predictions)` -> the four of `SCORES`, `(4, ...)`."""
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


def fit_temperature(logits: np.ndarray, references: np.ndarray) -> float:
    """What to divide logits by so that their softmax gives the least log loss (Guo et al. 2017, arXiv 1706.04599).

    Args:
        logits: `(rows, num_labels)`, of validation rows.
        references: class ids `(rows,)`.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(len(references)), references].mean()

    # Between a twentieth and twenty: rows that are all right would ask for no temperature at all.
    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def calibration(logits: np.ndarray, references: np.ndarray, bins: int = 15) -> dict:
    """How far the chance that a model gives to its answer is the share of its answers that are right.

    Args:
        logits: `(rows, num_labels)`.
        references: class ids `(rows,)`.
        bins: of equal width, for the expected calibration error.

    Returns:
        `ece` in [0, 1] (Naeini et al. 2015), `brier` in [0, 2], `log_loss` in nats, `top2` (share of
        rows whose label is among the two likeliest), and the filled bins as lists `confidence, accuracy, count`.
    """
    chances = softmax(logits.astype(np.float64), axis=1)
    labels = np.arange(chances.shape[1])
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == references
    member = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(member, minlength=bins)
    filled = count > 0
    sums = (np.bincount(member, weights=values, minlength=bins)[filled] for values in (confidence, right))
    mean_confidence, accuracy = (total / count[filled] for total in sums)
    return {
        "ece": float((count[filled] * np.abs(accuracy - mean_confidence)).sum() / len(references)),
        "brier": float(brier_score_loss(references, chances, labels=labels, scale_by_half=False)),
        "log_loss": float(log_loss(references, chances, labels=labels)),
        "top2": float((np.argsort(-chances, axis=1)[:, :2] == references[:, None]).any(axis=1).mean()),
        "bins": {
            "confidence": mean_confidence.tolist(),
            "accuracy": accuracy.tolist(),
            "count": count[filled].tolist(),
        },
    }


def risk_coverage(logits: np.ndarray, references: np.ndarray) -> dict:
    """How often answers are wrong when only the surest are given (Geifman and El-Yaniv 2017, arXiv 1705.08500).

    Args:
        logits, references: as [`calibration`] takes them.

    Returns:
        `coverage` (share of the rows that are answered, from all of them down to about a tenth), `threshold` (the least
        score at which one answers) and `risk` (share of the answers that are wrong) as lists, and `aurc`, the mean risk
        over all coverages.
    """
    chances = softmax(logits.astype(np.float64), axis=1)
    confidence, wrong = chances.max(axis=1), chances.argmax(axis=1) != references
    order = np.argsort(-confidence, kind="stable")
    ranked = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    # Rows of equal confidence are answered together, or not at all.
    thresholds = [confidence[order[max(int(len(order) * share / 10), 1) - 1]] for share in range(10, 0, -1)]
    answered = [confidence >= threshold for threshold in thresholds]
    return {
        "coverage": [float(rows.mean()) for rows in answered],
        "threshold": [float(threshold) for threshold in thresholds],
        "risk": [float(wrong[rows].mean()) for rows in answered],
        "aurc": float(ranked.mean()),
    }


def distribution_scores(logits: np.ndarray, shares: np.ndarray) -> dict[str, float | int]:
    """How near the scores come to what the raters said, not to their majority alone.

    Args:
        logits: `(rows, num_labels)`.
        shares: `(rows, num_labels)`, the share of a row's votes for each label, summing to 1.

    Returns:
        `kl` (divergence of Kullback and Leibler, of the scores from the votes) and `cross_entropy`, means in nats,
        and `n`.

    Raises:
        ValueError: shares that are negative, do not sum to 1, or are not finite.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if not len(shares) or not (shares >= 0).all() or not np.allclose(shares.sum(axis=1), 1):
        raise ValueError("distribution_scores needs rows of shares, none negative, each row summing to 1.")
    scores = log_softmax(logits.astype(np.float64), axis=1)
    return {
        "kl": float((xlogy(shares, shares) - shares * scores).sum(axis=1).mean()),
        "cross_entropy": float(-(shares * scores).sum(axis=1).mean()),
        "n": len(shares),
    }


def dimension_scores(predictions: np.ndarray, references: np.ndarray) -> dict[str, float | int | None]:
    """How well one dimension (valence, arousal, dominance) is estimated.

    Args:
        predictions, references: `(rows,)`, on one scale, without NaN.

    Returns:
        `ccc` (concordance, Lin 1989: Pearson's correlation, less what differs in mean and deviation) and `pearson` in
        [-1, 1], both None where either input is constant or there is one row alone; `rmse` on the scale; `n`.

    Raises:
        ValueError: NaN or infinity among them, or no row.
    """
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("dimension_scores needs rows, all of them finite; leave out those that are not annotated.")
    found = {"ccc": None, "pearson": None, "rmse": float(np.sqrt(np.mean((x - y) ** 2))), "n": len(x)}
    if np.ptp(x) and np.ptp(y):
        pearson = float(pearsonr(x, y).statistic)
        ccc = 2 * pearson * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        found |= {"ccc": float(ccc), "pearson": pearson}
    return found
