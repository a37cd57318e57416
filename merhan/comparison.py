"""Is one system better than another, and would it hold for other speakers? Two prediction files of the same rows.

Both questions draw clusters (dialogues or speakers, as the intervals of the scores do), never rows: the rows of one
speaker are alike, for both systems.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap, permutation_test

from merhan.errors import InputError
from merhan.evaluation import cluster_column
from merhan.metrics import FEWEST_CLUSTERS, SCORES, confidence_level, counts_by_cluster, scores_of_counts
from merhan.report import TITLES, markdown_table


class System(NamedTuple):
    """What one system predicted."""

    name: str
    predictions: pd.DataFrame  # utterance_id, label, prediction, and what groups rows; sorted by id
    protocol: Mapping[str, Any]  # name, version, hash, and fold where there is one


class Difference(NamedTuple):
    """The second system's score minus the first's."""

    first: str
    second: str
    score: str  # of `metrics.SCORES`
    value: float
    low: float  # 95 % interval, paired bootstrap over clusters; NaN, as both p, where these are too few
    high: float
    p: float  # approximate randomisation over clusters, two-sided
    p_holm: float  # the same, corrected for the number of pairs (Holm 1979)
    p_mcnemar: float | None  # exact McNemar test of the rows that one alone has right; of WAR only


def read_system(path: str | Path, split: str = "test") -> System:
    """A run's folder, an evaluation's folder or a `predictions.parquet`, with the `metrics.json` beside it.

    Raises:
        InputError: there is none, or columns are missing.
    """
    path = Path(path)
    places = (path, path / "predictions.parquet", path / "evaluation" / split / "predictions.parquet")
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{path}: holds no predictions of the {split} split; make them with evaluate_hf_e2e.py.")
    try:
        predictions = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]}).") from None
    if missing := {"utterance_id", "label", "prediction"} - set(predictions):
        raise InputError(f"{file}: has no column {', '.join(sorted(missing))}; is it a prediction file?")
    beside = file.with_name("metrics.json")
    protocol = json.loads(beside.read_text())["protocol"] if beside.is_file() else {}
    return System(str(path), predictions.sort_values("utterance_id", ignore_index=True), protocol)


def compare(systems: Sequence[System], resamples: int = 5000, seed: int = 0) -> list[Difference]:
    """Every pair of systems in every score.

    Args:
        systems: two or more, on the same rows.
        resamples: of the bootstrap and of the randomisation test; a p-value is at least 1 / (resamples + 1).
        seed: of both.

    Raises:
        InputError: other rows, other labels or another protocol.
    """
    for other in systems[1:]:
        require_comparable(systems[0], other)
    return compare_pairs(list(combinations(systems, 2)), resamples, seed)


def compare_pairs(pairs: Sequence[tuple[System, System]], resamples: int = 5000, seed: int = 0) -> list[Difference]:
    """The second of each pair over its first in every score; p-values are corrected over these pairs."""
    words = {
        word for pair in pairs for one in pair for name in ("label", "prediction") for word in one.predictions[name]
    }
    labels = sorted(words)
    found = [one for pair in pairs for one in _differences(*pair, labels, resamples, seed)]
    corrected = {score: iter(holm([one.p for one in found if one.score == score])) for score in SCORES}
    return [one._replace(p_holm=next(corrected[one.score])) for one in found]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: p-values that keep the chance of any false find at the level of a single test. NaN is no test."""
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN come last
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def as_table(differences: Sequence[Difference]) -> str:
    """One row per pair and score."""
    rows = [
        [
            f"{one.second} over {one.first}",
            TITLES[one.score],
            signed(one),
            *map(chance, (one.p, one.p_holm, one.p_mcnemar)),
        ]
        for one in differences
    ]
    return markdown_table(["", "score", "difference [95 %]", "p", "p (Holm)", "p (McNemar)"], rows)


def signed(one: Difference) -> str:
    """`+0.031 [+0.012, +0.050]`, or the value alone where there is no interval."""
    return f"{one.value:+.3f}" + ("" if np.isnan(one.low) else f" [{one.low:+.3f}, {one.high:+.3f}]")


def chance(p: float | None) -> str:
    """`0.0312`, or nothing where there was no test."""
    return "" if p is None or np.isnan(p) else f"{p:.4f}"


def require_comparable(one: System, other: System):
    """Refuse systems of other rows, other labels or another protocol."""
    same = one.predictions["utterance_id"].equals(other.predictions["utterance_id"])
    if not same or not one.predictions["label"].equals(other.predictions["label"]):
        ours, theirs = (set(system.predictions["utterance_id"]) for system in (one, other))
        what = f"{len(ours ^ theirs)} rows stand in one alone" if ours != theirs else "the labels of some rows differ"
        raise InputError(f"{one.name} and {other.name} cannot be compared: {what}. Evaluate both on the same data.")
    stamps = [{key: system.protocol.get(key) for key in ("name", "hash", "fold")} for system in (one, other)]
    if one.protocol and other.protocol and stamps[0] != stamps[1]:
        differ = f"protocols differ, {stamps[0]} and {stamps[1]}"
        raise InputError(f"{one.name} and {other.name} cannot be compared: {differ}.")


def _differences(one: System, other: System, labels: Sequence[str], resamples: int, seed: int) -> list[Difference]:
    clusters = one.predictions[cluster_column(one.predictions)].to_numpy()
    ids = {label: number for number, label in enumerate(labels)}
    references = one.predictions["label"].map(ids).to_numpy()
    guesses = [system.predictions["prediction"].map(ids).to_numpy() for system in (one, other)]
    # Every score is a function of confusion counts, which add up over clusters: first ours, then theirs.
    counts = np.concatenate([counts_by_cluster(guess, references, clusters, len(labels)) for guess in guesses])
    half = np.arange(len(counts) // 2)

    def difference(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
        sums = (np.moveaxis(counts[drawn], axis - 2, 0).sum(axis=0) for drawn in (theirs, ours))
        first, second = (scores_of_counts(one) for one in sums)
        return first - second

    pairs = (half, half + len(half))
    low = high = p = np.full(len(SCORES), np.nan)
    if len(half) >= FEWEST_CLUSTERS:
        options = {"n_resamples": resamples, "batch": 200, "rng": seed, "vectorized": True}
        level = confidence_level(len(half))
        low, high = bootstrap(
            pairs, difference, paired=True, method="percentile", confidence_level=level, **options
        ).confidence_interval

        def transposed(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
            return difference(ours, theirs, axis).T  # permutation_test wants the draws first, bootstrap last

        p = permutation_test(pairs, transposed, permutation_type="samples", **options).pvalue
    right = [guess == references for guess in guesses]
    mcnemar = _mcnemar((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    return [
        Difference(one.name, other.name, score, *map(float, figures), float("nan"), mcnemar if score == "war" else None)
        for score, *figures in zip(SCORES, difference(*pairs, axis=-1), low, high, p, strict=True)
    ]


def _mcnemar(first_alone: int, second_alone: int) -> float:
    alone = int(first_alone + second_alone)
    return float(binomtest(int(second_alone), alone).pvalue) if alone else 1.0
