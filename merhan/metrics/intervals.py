"""Confidence intervals of scores by a bootstrap over speakers or dialogues."""

from functools import partial
from typing import Any

import numpy as np
from scipy.stats import bootstrap, norm, t

from merhan.metrics.classification import counts_by_cluster, resampled_scores
from merhan.names import SCORES


FEWEST_CLUSTERS = 5  # the smallest number of clusters that an interval is computed from


def bootstrap_intervals(
    predictions: np.ndarray,
    references: np.ndarray,
    clusters: np.ndarray,
    num_labels: int,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, list[float]]:
    """95 % intervals of the four scores, by a percentile bootstrap over clusters.

    Clusters (speakers or dialogues) are resampled, because rows of one speaker are correlated. With few
    clusters the percentiles are moved outwards (`confidence_level`): otherwise the intervals of ten speakers would
    cover the true score in 91 % of corpora only.

    Args:
        predictions, references: class ids `(rows,)`.
        clusters: name of each row's cluster `(rows,)`.
        num_labels: number of classes.
        seed: seed of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        Score -> `[low, high]`; empty with fewer than `FEWEST_CLUSTERS` clusters.
    """
    counts = counts_by_cluster(predictions, references, clusters, num_labels)
    if len(counts) < FEWEST_CLUSTERS:
        return {}

    options: dict[str, Any] = {"n_resamples": resamples, "batch": 200, "method": "percentile", "rng": seed}
    level = confidence_level(len(counts))
    sample, statistic = (np.arange(len(counts)),), partial(resampled_scores, counts)
    low, high = bootstrap(sample, statistic, confidence_level=level, vectorized=True, **options).confidence_interval
    return {score: [float(a), float(b)] for score, a, b in zip(SCORES, low, high, strict=True)}


def confidence_level(clusters: int, nominal: float = 0.95) -> float:
    """Level at which a percentile bootstrap over few clusters has the width of a Student's t interval.

    Resampling n of n clusters gives a variance that is too small by (n - 1) / n, and normal instead of Student's t
    tails (Hesterberg 2015, "What teachers should know about the bootstrap", The American Statistician 69).

    Args:
        clusters: number of clusters, 2 or more.
        nominal: wanted coverage of the interval.
    """
    half_width = np.sqrt(clusters / (clusters - 1)) * t.ppf(0.5 + nominal / 2, clusters - 1)
    return float(1 - 2 * norm.sf(half_width))
