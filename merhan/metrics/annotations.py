"""Scores against annotations other than a single label: annotator votes and emotional dimensions."""

import numpy as np
from scipy.special import log_softmax, xlogy
from scipy.stats import pearsonr


def vote_scores(logits: np.ndarray, shares: np.ndarray) -> dict[str, float | int]:
    """Compare predicted distributions with the distributions of annotator votes.

    Args:
        logits: `(rows, num_labels)`.
        shares: `(rows, num_labels)`, the share of a row's votes for each label, summing to 1.

    Returns:
        `kl` (Kullback-Leibler divergence of the predicted distribution from the votes) and `cross_entropy`, means over
        rows in nats, and `n`, the number of rows.

    Raises:
        ValueError: there are no rows, or shares are negative, not finite, or do not sum to 1.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if not len(shares) or not (shares >= 0).all() or not np.allclose(shares.sum(axis=1), 1):
        raise ValueError("vote_scores needs at least one row of shares, none negative, each row summing to 1.")
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return {
        "kl": float((xlogy(shares, shares) - shares * log_probabilities).sum(axis=1).mean()),
        "cross_entropy": float(-(shares * log_probabilities).sum(axis=1).mean()),
        "n": len(shares),
    }


def dimension_scores(predictions: np.ndarray, references: np.ndarray) -> dict[str, float | int | None]:
    """Scores of one estimated dimension (valence, arousal or dominance).

    Args:
        predictions, references: `(rows,)`, on the same scale, all finite.

    Returns:
        `ccc` (concordance correlation coefficient, Lin 1989) and `pearson` in [-1, 1], both None if either input is
        constant or has a single row; `rmse` on the scale of the input; `n`, the number of rows.

    Raises:
        ValueError: there are no rows, or a value is NaN or infinite.
    """
    x = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(references, dtype=np.float64)
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("dimension_scores needs at least one row, all of them finite; leave out rows without a value.")
    ccc, pearson = _correlations(x, y)
    return {"ccc": ccc, "pearson": pearson, "rmse": float(np.sqrt(np.mean((x - y) ** 2))), "n": len(x)}


def _correlations(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """Concordance and Pearson's correlation; None if either is undefined."""
    if not (np.ptp(x) and np.ptp(y)):
        return None, None
    pearson = float(pearsonr(x, y).statistic)
    ccc = 2 * pearson * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return float(ccc), pearson
