"""Label distributions from the votes of several raters (the manifest column `votes`)."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd


def vote_shares(rows: pd.DataFrame, label2id: Mapping[str, int]) -> list[list[float]]:
    """The label distribution of each row, `(rows, labels)`, each row summing to 1.

    Votes for labels that are not in `label2id` are ignored. A row without any remaining vote gets a one-hot
    distribution of its own label.
    """
    return [_shares(_parse(votes), label, label2id) for votes, label in zip(rows["votes"], rows["label"], strict=True)]


def has_votes(rows: pd.DataFrame, label2id: Mapping[str, int]) -> np.ndarray:
    """`(rows,)` bool: whether a row has a vote for any of the labels; all false without a `votes` column."""
    if "votes" not in rows:
        return np.zeros(len(rows), dtype=bool)
    return np.array([any(_parse(votes).get(name) for name in label2id) for votes in rows["votes"]])


def _parse(votes: str) -> dict[str, float]:
    """A cell of the column `votes` as label -> number of raters."""
    return json.loads(votes or "{}")


def _shares(votes: Mapping[str, float], label: str, label2id: Mapping[str, int]) -> list[float]:
    counts = [votes.get(name, 0) for name in label2id]
    total = sum(counts)
    if not total:
        return [float(name == label) for name in label2id]
    return [count / total for count in counts]
