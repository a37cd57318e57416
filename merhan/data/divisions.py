"""Division of the rows of a manifest into train, validation and test by shares, stratified by label.

Either no group (as a speaker) is in two splits, or rows are drawn at random. Where there are too few groups for three
splits, the division is what is possible, with a sentence on what its result is worth.
"""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from merhan.errors import InputError
from merhan.recipe.schema import SharesRecipe


# Below this number of groups, a score on them says little about others: its interval over groups is wide.
FEW_GROUPS = 5


class Division(NamedTuple):
    """Which rows are for validation and test; all others are for training."""

    rules: dict[str, dict[str, list[str]]]  # split -> column -> values
    remarks: list[str]


def divide_by_groups(rows: pd.DataFrame, column: str, shares: SharesRecipe) -> Division:
    """Divide by groups: no value of the column is in two splits.

    With two groups, one is tested, and validation rows are drawn from the other.

    Args:
        rows: labelled rows with a value of `column` in each.
        shares: the shares of the splits; those of so few groups are approximate.

    Raises:
        InputError: there is only one group.
    """
    rows = rows.sort_values("utterance_id")  # the division does not depend on the order of the rows
    groups = rows[column]
    count = groups.nunique()
    if count < 2:
        raise InputError(
            f"data.protocol: grouped:{column} needs two {column}s or more, there is only {groups.iloc[0]!r}; use "
            f"`random` with data.accept_leaks: [speaker], whose result is for known voices."
        )
    tested = _groups_of_share(rows, column, shares.test, shares.seed)
    rest = rows[~groups.isin(tested)]
    remarks = _remarks(tested, column)
    if rest[column].nunique() < 2:
        drawn = _drawn(rest, shares.validation / (1 - shares.test), shares.seed)
        remarks.append(
            f"there are only {count} {column}s, so validation rows are of the {column} that is trained on: the epoch "
            f"is selected on known {column}s"
        )
        return Division({"validation": {"utterance_id": drawn}, "test": {column: tested}}, remarks)
    validated = _groups_of_share(rest, column, shares.validation / (1 - shares.test), shares.seed)
    return Division({"validation": {column: validated}, "test": {column: tested}}, remarks)


def divide_at_random(rows: pd.DataFrame, shares: SharesRecipe) -> Division:
    """Divide row by row, stratified by label, whatever the speakers are.

    Raises:
        InputError: a label has too few rows for three splits.
    """
    rows = rows.sort_values("utterance_id")
    tested = _drawn(rows, shares.test, shares.seed)
    rest = rows[~rows["utterance_id"].isin(tested)]
    validated = _drawn(rest, shares.validation / (1 - shares.test), shares.seed)
    remark = "the splits are random and may share speakers: the result is for known voices, not for new ones"
    return Division({"validation": {"utterance_id": validated}, "test": {"utterance_id": tested}}, [remark])


def _remarks(tested: list[str], column: str) -> list[str]:
    if len(tested) >= FEW_GROUPS:
        return []
    return [
        f"test has {len(tested)} {column}s ({', '.join(tested[:FEW_GROUPS])}): the result depends on which they are; "
        f"`loso:{column}` over all folds tests every {column}"
    ]


def _groups_of_share(rows: pd.DataFrame, column: str, share: float, seed: int) -> list[str]:
    """The sorted groups of about a share of the rows, whose labels are distributed as in the other rows."""
    labels, groups = rows["label"], rows[column]
    folds = min(max(round(1 / share), 2), groups.nunique())
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # Not scikit-learn's own check: it warns of labels with fewer rows than folds, which `_misfit` weighs.
    numbers = labels.astype("category").cat.codes.to_numpy()
    candidates = [groups.iloc[chosen] for _, chosen in _quiet_split(splitter, numbers, groups)]
    best = min(candidates, key=lambda chosen: _misfit(rows, column, chosen, share))
    return sorted(best.unique())


def _quiet_split(splitter: StratifiedGroupKFold, numbers: np.ndarray, groups: pd.Series):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros(len(numbers)), numbers, groups))


def _misfit(rows: pd.DataFrame, column: str, groups: pd.Series, share: float) -> tuple[int, int, float]:
    """How ill a choice of groups suits: labels missing from the rest, labels missing from it, deviation of its size."""
    chosen = rows[column].isin(groups)
    labels = set(rows["label"])
    rest_lacks = len(labels - set(rows.loc[~chosen, "label"]))
    choice_lacks = len(labels - set(rows.loc[chosen, "label"]))
    return rest_lacks, choice_lacks, abs(float(chosen.mean()) - share)


def _drawn(rows: pd.DataFrame, share: float, seed: int) -> list[str]:
    """The ids of a random share of the rows, stratified by label.

    Raises:
        InputError: a label has a single row, or there are fewer rows than labels.
    """
    counts = rows["label"].value_counts()
    if counts.min() < 2:
        raise InputError(
            f"data.protocol: label {counts.idxmin()!r} has too few rows to be in train, validation and test; drop it "
            f"with data.label_map, or record more."
        )
    size = max(round(share * len(rows)), len(counts))
    _, drawn = train_test_split(rows["utterance_id"], test_size=size, random_state=seed, stratify=rows["label"])
    return sorted(drawn)
