"""From easy to hard: how difficult a row is, and which share of the rows an epoch draws from."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from merhan.manifest import DIMENSIONS
from merhan.recipe import CurriculumRecipe


def difficulty_of(recipe: CurriculumRecipe, rows: pd.DataFrame, doubts: Callable[[], np.ndarray]) -> np.ndarray:
    """`(rows,)`: the higher, the harder.

    Args:
        rows: the training rows.
        doubts: asks the model for its `doubt` of them.
    """
    match recipe.order:
        case "prototypes":
            return prototype_distance(rows)
        case "label_frequency":
            return rarity(rows["label"])
        case "confidence":
            return doubts()
        case _:
            return pd.to_numeric(rows[recipe.column]).to_numpy(np.float64)


def prototype_distance(rows: pd.DataFrame) -> np.ndarray:
    """How far a row's valence, arousal and dominance lie from its class's prototype, which is the mean of the class.

    Root mean square over the dimensions that are given, each in standard deviations of its corpus: scales differ from
    corpus to corpus, and means of emotions on them as well (which is why no table of an emotion's place, as Russell &
    Mehrabian's of 1977, is laid over them). A row without annotations is as hard as the median row.
    """
    given = rows.reindex(columns=list(DIMENSIONS)).astype(float)
    corpus = given.groupby(rows["corpus"])
    scaled = (given - corpus.transform("mean")) / corpus.transform(lambda one: one.std(ddof=0) or 1.0)
    offsets = scaled - scaled.groupby([rows["corpus"], rows["label"]]).transform("mean")
    distance = (offsets**2).mean(axis=1) ** 0.5
    return distance.fillna(distance.median()).to_numpy()


def rarity(labels: pd.Series) -> np.ndarray:
    """The share of the rows that have another label: what is frequent is easy."""
    return 1 - labels.map(labels.value_counts(normalize=True)).to_numpy()


def doubt(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - the probability that a model gives to a row's label (as the transfer teacher of Hacohen & Weinshall 2019).

    Args:
        logits: `(rows, num_labels)`.
        labels: class ids `(rows,)`.
    """
    return 1 - softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]


def pace(recipe: CurriculumRecipe, epoch: int) -> float:
    """The share of the rows, the easiest ones, that an epoch draws from; in (0, 1], and 1 from epoch `epochs` on.

    `linear` and `root` are of Platanios et al. 2019 (arXiv 1903.09848), their competence with c0 = `start` and T =
    `epochs`; `step` is the single-step pacing of Hacohen & Weinshall 2019 (arXiv 1904.03626).
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
    """Factors on the loss of each row, of mean 1: an even one, and its difficulty with the given weight in [0, 1]."""
    mean = difficulty.mean()
    return 1 - weight + weight * (difficulty / mean if mean > 0 else np.ones_like(difficulty))


def kept(file: Path, compute: Callable[[], np.ndarray], writes: bool) -> np.ndarray:
    """What was computed once, in this run or before it was interrupted."""
    if file.is_file():
        return np.load(file)
    values = compute()
    if writes:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".part.npy")
        np.save(temporary, values)
        temporary.replace(file)
    return values
