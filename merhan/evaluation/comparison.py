"""Comparison of systems on the same rows: differences with intervals, and paired tests.

Intervals and tests resample clusters (dialogues or speakers, as the intervals of single systems do; single rows where
neither is known), because the rows of one speaker are correlated, for both systems.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap, permutation_test

from merhan.errors import InputError
from merhan.evaluation.prediction_table import cluster_column, read_metrics, read_predictions
from merhan.metrics.classification import counts_by_cluster, resampled_scores
from merhan.metrics.intervals import FEWEST_CLUSTERS, confidence_level
from merhan.names import SCORE_TITLES, SCORES
from merhan.reporting.markdown_tables import markdown_table


class System(NamedTuple):
    """Predictions of one system."""

    name: str
    predictions: pd.DataFrame  # utterance_id, label, prediction, and the columns of clusters; sorted by id
    protocol: Mapping[str, Any]  # name, version, hash, and fold if there is one; empty if unknown


class Difference(NamedTuple):
    """The second system's score minus the first system's score."""

    first: str
    second: str
    score: str  # one of `SCORES`
    value: float
    low: float  # 95 % interval by a paired bootstrap; NaN, as are both p, if there are too few clusters
    high: float
    p: float  # two-sided approximate randomisation test
    p_holm: float  # p, corrected for the number of pairs (Holm 1979)
    p_mcnemar: float | None  # exact McNemar test of the rows that only one system has right; for WAR, else None


def read_system(path: str | Path, split: str = "test") -> System:
    """Read predictions and the `metrics.json` beside them.

    Args:
        path: a run folder, the folder of one evaluation, or a `predictions.parquet`.
        split: the split of a run folder.

    Raises:
        InputError: there are no predictions, or columns are missing.
    """
    path = Path(path)
    candidates = (path, path / "predictions.parquet", path / "evaluation" / split / "predictions.parquet")
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise InputError(f"{path}: holds no predictions of the {split} split; make them with evaluate_hf_e2e.py.")
    predictions = read_predictions(file)
    protocol = {}
    if file != path or file.with_name("metrics.json").is_file():
        protocol = read_metrics(file.parent)["protocol"]
    return System(str(path), predictions.sort_values("utterance_id", ignore_index=True), protocol)


def compare(systems: Sequence[System], resamples: int = 5000, seed: int = 0) -> list[Difference]:
    """Compare every pair of systems in every score.

    Args:
        systems: two or more, on the same rows.
        resamples: number of bootstrap samples and of permutations; a p-value is at least 1 / (resamples + 1).
        seed: seed of both.

    Raises:
        InputError: fewer than two systems, or they have different rows, labels or protocols.
    """
    if len(systems) < 2:
        raise InputError("compare: give at least two runs or prediction files.")
    for other in systems[1:]:
        require_comparable(systems[0], other)
    return compare_pairs(list(combinations(systems, 2)), resamples, seed)


def compare_pairs(pairs: Sequence[tuple[System, System]], resamples: int = 5000, seed: int = 0) -> list[Difference]:
    """Compare the second system of each pair with the first; p-values are corrected over these pairs.

    Args:
        pairs: comparable systems.
        resamples, seed: as in [`compare`].
    """
    labels: set[str] = set()
    for pair in pairs:
        for system in pair:
            labels |= {*system.predictions["label"], *system.predictions["prediction"]}
    differences = []
    for first, second in pairs:
        differences += _differences(first, second, sorted(labels), resamples, seed)
    return _with_holm_correction(differences)


def _with_holm_correction(differences: Sequence[Difference]) -> list[Difference]:
    corrected = {}
    for score in SCORES:
        p_values = [difference.p for difference in differences if difference.score == score]
        corrected[score] = iter(holm_correction(p_values))
    return [difference._replace(p_holm=next(corrected[difference.score])) for difference in differences]


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests (Holm 1979), which bounds the family-wise error rate. NaN stays NaN."""
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN is sorted to the end
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def comparison_note(system: System) -> str:
    """Number of rows, and what the intervals and p-values resample."""
    rows, column = system.predictions, cluster_column(system.predictions)
    clusters = column.removesuffix("_id") + "s"
    if rows[column].nunique() < FEWEST_CLUSTERS:
        return f"{len(rows)} rows; no intervals or p-values, which need at least {FEWEST_CLUSTERS} {clusters}."
    return f"{len(rows)} rows; intervals and p-values resample {clusters}."


def comparison_table(differences: Sequence[Difference]) -> str:
    """A Markdown table with a row per pair and score."""
    rows = []
    for difference in differences:
        p_values = [format_p_value(p) for p in (difference.p, difference.p_holm, difference.p_mcnemar)]
        title = SCORE_TITLES[difference.score]
        rows.append([f"{difference.second} over {difference.first}", title, format_difference(difference), *p_values])
    return markdown_table(["systems", "score", "difference [95 %]", "p", "p (Holm)", "p (McNemar)"], rows)


def format_difference(difference: Difference) -> str:
    """`+0.031 [+0.012, +0.050]`, or only the value if there is no interval."""
    text = f"{difference.value:+.3f}"
    if not np.isnan(difference.low):
        text += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    return text


def format_p_value(p: float | None) -> str:
    """`0.0312`, or an empty string if there was no test."""
    if p is None or np.isnan(p):
        return ""
    return f"{p:.4f}"


def require_comparable(first: System, second: System):
    """Check that two systems can be compared.

    Raises:
        InputError: they have different rows, labels or protocols.
    """
    reason = _row_difference(first.predictions, second.predictions) or _protocol_difference(first, second)
    if reason:
        raise InputError(f"{first.name} and {second.name} cannot be compared: {reason}")


def _row_difference(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """How the rows or labels differ; empty if they are the same."""
    unpaired = set(first["utterance_id"]) ^ set(second["utterance_id"])
    if unpaired:
        return f"{len(unpaired)} rows occur in only one of them. Evaluate both on the same data."
    same_rows = first["utterance_id"].equals(second["utterance_id"])
    if not same_rows or not first["label"].equals(second["label"]):
        return "the labels of some rows differ. Evaluate both on the same data."
    return ""


def _protocol_difference(first: System, second: System) -> str:
    """How the protocols differ; empty if they are the same or one is unknown."""
    if not first.protocol or not second.protocol:
        return ""
    protocols = [{key: system.protocol.get(key) for key in ("name", "hash", "fold")} for system in (first, second)]
    if protocols[0] == protocols[1]:
        return ""
    return f"protocols differ, {protocols[0]} and {protocols[1]}."


class _PairedCounts(NamedTuple):
    """Confusion counts of two systems by cluster, of the first system, then of the second."""

    counts: np.ndarray  # (2 * clusters, references, predictions)
    clusters: int

    @property
    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the first and of the second system's clusters, the pairs that are resampled."""
        indices = np.arange(self.clusters)
        return indices, indices + self.clusters

    def difference(self, first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        """Scores of the second minus scores of the first sample, `(4, ...)`; `axis` is the axis of the clusters."""
        return resampled_scores(self.counts, second, axis) - resampled_scores(self.counts, first, axis)

    def transposed_difference(self, first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        """[`difference`] with the samples first, as `permutation_test` needs them."""
        return self.difference(first, second, axis).T


def _differences(first: System, second: System, labels: Sequence[str], resamples: int, seed: int) -> list[Difference]:
    """The difference of two systems in every score, without the correction for multiple tests."""
    clusters = first.predictions[cluster_column(first.predictions)].to_numpy()
    ids = {label: number for number, label in enumerate(labels)}
    references = first.predictions["label"].map(ids).to_numpy()
    predictions = [system.predictions["prediction"].map(ids).to_numpy() for system in (first, second)]
    counts = [counts_by_cluster(predicted, references, clusters, len(labels)) for predicted in predictions]
    paired = _PairedCounts(np.concatenate(counts), len(counts[0]))
    values = paired.difference(*paired.samples, axis=-1)
    low, high, p_values = _interval_and_test(paired, resamples, seed)
    p_mcnemar = _mcnemar(predictions[0] == references, predictions[1] == references)
    differences = []
    for score, *figures in zip(SCORES, values, low, high, p_values, strict=True):
        value, lower, upper, p = map(float, figures)
        difference = Difference(first.name, second.name, score, value, lower, upper, p, float("nan"), None)
        if score == "war":
            difference = difference._replace(p_mcnemar=p_mcnemar)
        differences.append(difference)
    return differences


def _interval_and_test(paired: _PairedCounts, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper bound and p-value of every score; NaN with fewer than `FEWEST_CLUSTERS` clusters."""
    if paired.clusters < FEWEST_CLUSTERS:
        undefined = np.full(len(SCORES), np.nan)
        return undefined, undefined, undefined
    options: dict[str, Any] = {"n_resamples": resamples, "batch": 200, "rng": seed, "vectorized": True}
    level = confidence_level(paired.clusters)
    interval = bootstrap(
        paired.samples, paired.difference, paired=True, method="percentile", confidence_level=level, **options
    ).confidence_interval
    test = permutation_test(paired.samples, paired.transposed_difference, permutation_type="samples", **options)
    return interval.low, interval.high, test.pvalue


def _mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """p-value of the exact McNemar test; 1 if no row is right in one system only."""
    only_first, only_second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_second, only_first + only_second).pvalue)
