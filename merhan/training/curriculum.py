"""Curriculum learning: how difficult a row is, and which share of the rows an epoch draws from."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from merhan.content_hashes import damage, write_hashes
from merhan.files import atomic_path
from merhan.logs import get_logger
from merhan.names import DIMENSIONS
from merhan.recipe.schema import CurriculumRecipe


logger = get_logger(__name__)


def row_difficulty(recipe: CurriculumRecipe, rows: pd.DataFrame, uncertainty: Callable[[], np.ndarray]) -> np.ndarray:
    """The difficulty of each row `(rows,)`; higher is harder.

    Args:
        recipe: its `order` names the measure.
        rows: the training rows.
        uncertainty: computes the model's [`label_uncertainty`] of them; called for the order `confidence` only.
    """
    match recipe.order:
        case "prototypes":
            return prototype_distance(rows)
        case "label_frequency":
            return label_rarity(rows["label"])
        case "confidence":
            return uncertainty()
        case _:
            return pd.to_numeric(rows[recipe.column]).to_numpy(np.float64)


def prototype_distance(rows: pd.DataFrame) -> np.ndarray:
    """Distance of a row's valence, arousal and dominance from the mean of its class.

    The root mean square over the annotated dimensions, each in standard deviations of its corpus: scales differ between
    corpora, and so do the means of emotions on them (therefore no published table of emotions, as Russell & Mehrabian
    1977, is used). A row without annotations has the median difficulty.

    Returns:
        `(rows,)`, at least 0.
    """
    annotations = rows.reindex(columns=list(DIMENSIONS)).astype(float)
    corpus = annotations.groupby(rows["corpus"])
    scaled = (annotations - corpus.transform("mean")) / corpus.transform(lambda values: values.std(ddof=0) or 1.0)
    offsets = scaled - scaled.groupby([rows["corpus"], rows["label"]]).transform("mean")
    distance = (offsets**2).mean(axis=1) ** 0.5
    return distance.fillna(distance.median()).to_numpy()


def label_rarity(labels: pd.Series) -> np.ndarray:
    """The share of rows with another label `(rows,)`: frequent labels are easy."""
    return 1 - labels.map(labels.value_counts(normalize=True)).to_numpy()


def label_uncertainty(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - the probability of a row's label, as in the transfer teacher of Hacohen & Weinshall 2019 (arXiv 1904.03626).

    Args:
        logits: `(rows, num_labels)`.
        labels: class ids `(rows,)`.
    """
    return 1 - softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]


def curriculum_share(recipe: CurriculumRecipe, epoch: int) -> float:
    """The share of the rows, the easiest ones, that an epoch draws from; in (0, 1], and 1 from epoch `epochs` on.

    `linear` and `root` are the competence functions of Platanios et al. 2019 (arXiv 1903.09848) with c0 = `start` and T
    = `epochs`; `step` is the single-step pacing of Hacohen & Weinshall 2019 (arXiv 1904.03626).
    """
    progress = min(epoch / recipe.epochs, 1.0)
    match recipe.pacing:
        case "linear":
            return recipe.start + (1 - recipe.start) * progress
        case "root":
            return math.sqrt(recipe.start**2 + (1 - recipe.start**2) * progress)
        case _:
            return 1.0 if progress == 1 else recipe.start


def row_weights(difficulty: np.ndarray, weight: float) -> np.ndarray:
    """Factors on the loss of each row, of mean 1: `1 - weight + weight * difficulty / mean difficulty`.

    Args:
        difficulty: `(rows,)`, at least 0.
        weight: in [0, 1].
    """
    mean = difficulty.mean()
    relative = np.ones_like(difficulty)
    if mean > 0:
        relative = difficulty / mean
    return 1 - weight + weight * relative


def load_or_compute(file: Path, compute: Callable[[], np.ndarray], writes: bool) -> np.ndarray:
    """An array that is computed once per stage, also if the stage is interrupted and resumed.

    Args:
        file: the .npy file that holds it.
        compute: computes it where the file does not exist.
        writes: whether this process writes the file.
    """
    if file.is_file():
        reason = damage(file.parent, (file.name,))
        try:
            if reason is None:
                return np.load(file)
        except (OSError, ValueError, EOFError):  # of an earlier version, without a hash
            reason = f"{file} is damaged"
        logger.warning(f"note: {reason}; it is computed again")
    values = compute()
    if writes:
        with atomic_path(file) as temporary:
            np.save(temporary, values)
        write_hashes(file.parent, (file.name,))
    return values
