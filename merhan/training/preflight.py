"""Checks of data and training strategies before any model is built: what could not be trained or evaluated later."""

import pandas as pd

from merhan.data.loading import Data
from merhan.errors import InputError, did_you_mean
from merhan.names import DIMENSIONS
from merhan.recipe.schema import CurriculumRecipe, Recipe


def check_evaluation(recipe: Recipe, data: Data):
    """Check that dimensions are annotated and that the splits to evaluate have rows with known labels.

    Raises:
        InputError: names the key and the remedy.
    """
    train = data.rows[data.rows["split"] == "train"]
    for dimension in recipe.model.config.get("dimensions") or ():
        if dimension not in train or train[dimension].isna().all():
            raise InputError(f"model.config.dimensions: no training row is annotated with {dimension}; remove it.")
    for split in recipe.evaluation.splits:
        _check_split(data.rows, split, set(train["label"]))


def check_strategies(recipe: Recipe, train: pd.DataFrame):
    """Check that the training rows have the columns that the recipe's training strategies need.

    Raises:
        InputError: names the key, the column and the remedy.
    """
    sampling = recipe.sampling
    if sampling.balance:
        _require_filled(train, sampling.balance, "sampling.balance")
    if sampling.speakers_per_batch:
        _require_filled(train, "speaker", "sampling.speakers_per_batch")
    if sampling.curriculum is not None:
        _check_curriculum(sampling.curriculum, train, weighted=bool(recipe.difficulty_weight))
    if recipe.data.soft_labels and ("votes" not in train or (train["votes"] == "").all()):
        raise InputError("data.soft_labels: no training row has votes; remove the key, or fill the column `votes`.")
    if recipe.adversary is not None:
        _check_adversary(recipe.adversary.column, train)


def _check_split(rows: pd.DataFrame, split: str, known_labels: set[str]):
    tested = rows[rows["split"] == split]
    if tested.empty:
        existing = sorted(rows["split"].unique())
        raise InputError(f"evaluation.splits: the {split} split is empty{did_you_mean(split, existing)}")
    unseen = sorted(set(tested["label"]) - known_labels)
    if unseen:
        raise InputError(
            f"evaluation.splits: {split} has labels that are absent from train: {', '.join(unseen)}; map or drop them "
            f"with data.label_map."
        )


def _check_curriculum(curriculum: CurriculumRecipe, train: pd.DataFrame, weighted: bool):
    if curriculum.column:
        _require_filled(train, curriculum.column, "sampling.curriculum.column")
        numbers = pd.to_numeric(train[curriculum.column], errors="coerce")
        wanted = "numbers of 0 or more" if weighted else "numbers"
        if numbers.isna().any() or (weighted and numbers.min() < 0):
            raise InputError(
                f"sampling.curriculum.column: {curriculum.column!r} must hold {wanted} in every training row."
            )
    annotated = train.reindex(columns=list(DIMENSIONS)).notna().any(axis=None)
    if curriculum.order == "prototypes" and not annotated:
        raise InputError(
            "sampling.curriculum.order: `prototypes` needs valence, arousal or dominance, and no training row has any; "
            "choose another order."
        )


def _check_adversary(column: str, train: pd.DataFrame):
    if column not in train or train.loc[train[column] != "", column].nunique() < 2:
        raise InputError(
            f"adversary.column: the training rows have fewer than two different values of {column!r}; choose another "
            f"column."
        )


def _require_filled(train: pd.DataFrame, column: str, key: str):
    empty = pd.Series(True, train.index)
    if column in train:
        empty = train[column].isin(["", None]) | train[column].isna()
    if empty.any():
        raise InputError(
            f"{key}: {empty.sum()} of {len(train)} training rows have no {column!r}; fill that column of the manifest, "
            f"or remove the key."
        )
