"""Comparison of two systems: power and false positive rate of the tests, and refusal of systems that do not match."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from merhan.cli import main as cli
from merhan.errors import InputError
from merhan.evaluation.comparison import Difference, System, compare, holm_correction, read_system


LABELS = np.array(["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"])


def labels_of(rng: np.random.Generator, dialogues: int = 280, turns: int = 9) -> pd.DataFrame:
    """A test set of MELD's size and shape."""
    shares = [0.13, 0.03, 0.02, 0.15, 0.48, 0.08, 0.11]
    return pd.DataFrame(
        {
            "utterance_id": [f"d{number}-u{turn}" for number in range(dialogues) for turn in range(turns)],
            "dialogue": np.repeat([f"d{number}" for number in range(dialogues)], turns),
            "label": rng.choice(LABELS, dialogues * turns, p=shares),
        }
    )


def system(name: str, rows: pd.DataFrame, rng: np.random.Generator, accuracy: float) -> System:
    """Predictions whose accuracy differs between dialogues."""
    ease = rows["dialogue"].map({dialogue: rng.normal(0, 0.1) for dialogue in rows["dialogue"].unique()})
    right = rng.random(len(rows)) < (accuracy + ease).clip(0, 1)
    predicted = np.where(right, rows["label"], rng.choice(LABELS, len(rows)))
    return System(name, rows.assign(prediction=predicted).sort_values("utterance_id", ignore_index=True), {})


def by_score(differences: list[Difference]) -> dict[str, Difference]:
    return {difference.score: difference for difference in differences}


def test_a_difference_of_three_points_is_significant():
    rng = np.random.default_rng(0)
    rows = labels_of(rng).sort_values("utterance_id", ignore_index=True)
    worse = system("worse", rows, rng, 0.5)
    wrong = rng.permutation(np.flatnonzero(worse.predictions["prediction"] != rows["label"]))
    corrected = wrong[: round(0.03 * len(rows))]
    predicted = worse.predictions["prediction"].to_numpy(copy=True)
    predicted[corrected] = rows["label"].to_numpy()[corrected]
    better = System("better", worse.predictions.assign(prediction=predicted), {})
    differences = by_score(compare([worse, better], resamples=1000))
    assert differences["war"].value == pytest.approx(0.03, abs=5e-4)
    for difference in differences.values():
        assert difference.p < 0.01 and 0 < difference.low < difference.value < difference.high
    reverse = by_score(compare([better, worse], resamples=1000))
    assert reverse["uar"].value == -differences["uar"].value and reverse["uar"].high < 0


def test_p_values_of_equal_systems_are_uniform():
    """Dialogues differ in difficulty, so a test that permutes single rows would have too many false positives."""
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(200):
        rows = labels_of(rng, dialogues=40, turns=8)
        systems = [system(name, rows, rng, 0.6) for name in ("first", "second")]
        p_values.append(by_score(compare(systems, resamples=199))["uar"].p)
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.10


def test_a_system_equals_itself():
    rng = np.random.default_rng(2)
    original = system("original", labels_of(rng, 20), rng, 0.6)
    for difference in compare([original, original._replace(name="copy")], resamples=200):
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
        assert difference.p_mcnemar in (None, 1.0)


def test_holm_correction():
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([0.5, 0.9]) == [1.0, 1.0]
    corrected = holm_correction([0.03, np.nan, 0.01])
    assert corrected == pytest.approx([0.03, np.nan, 0.02], nan_ok=True), "NaN does not count as a test"


def test_three_systems_are_three_corrected_pairs():
    rng = np.random.default_rng(3)
    rows = labels_of(rng, 30)
    systems = [system(name, rows, rng, accuracy) for name, accuracy in (("a", 0.5), ("b", 0.5), ("c", 0.7))]
    differences = [difference for difference in compare(systems, resamples=500) if difference.score == "war"]
    pairs = [(difference.first, difference.second) for difference in differences]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(difference.p_holm >= difference.p for difference in differences) and differences[1].p_holm < 0.05


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("predictions", lambda rows: rows.iloc[1:], "1 rows occur in only one of them"),
        ("predictions", lambda rows: rows.assign(label="joy"), "labels of some rows differ"),
        ("protocol", lambda protocol: {"name": "p", "hash": "b"}, "protocols differ"),
    ],
)
def test_systems_that_do_not_match_are_refused(field, change, message):
    rng = np.random.default_rng(4)
    first = system("first", labels_of(rng, 5), rng, 0.5)._replace(protocol={"name": "p", "hash": "a"})
    second = first._replace(**{field: change(getattr(first, field))})
    second = second._replace(predictions=second.predictions.reset_index(drop=True))
    with pytest.raises(InputError, match=message):
        compare([first, second])


def test_a_single_system_is_refused():
    rng = np.random.default_rng(4)
    with pytest.raises(InputError, match="at least two"):
        compare([system("first", labels_of(rng, 5), rng, 0.5)])


def test_the_compare_command(tmp_path, capsys):
    rng = np.random.default_rng(5)
    rows = labels_of(rng, 20)
    for name, accuracy in (("first", 0.4), ("second", 0.8)):
        folder = tmp_path / name / "evaluation" / "test"
        folder.mkdir(parents=True)
        shuffled = system(name, rows, rng, accuracy).predictions.sample(frac=1, random_state=0)
        shuffled.to_parquet(folder / "predictions.parquet")
        (folder / "metrics.json").write_text(json.dumps({"protocol": {"name": "p", "hash": "h"}}))
    words = ["compare", str(tmp_path / "first"), str(tmp_path / "second"), "--resamples", "200"]
    cli.main([*words, "--json", str(tmp_path / "differences.json")])
    assert "180 rows; intervals and p-values resample dialogues." in capsys.readouterr().out
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert {difference["score"] for difference in differences} == {"war", "uar", "macro_f1", "weighted_f1"}
    with pytest.raises(InputError, match="holds no predictions of the validation split"):
        read_system(tmp_path / "first", "validation")


@pytest.mark.parametrize("dialogues", [1, 4])
def test_few_clusters_are_compared_without_intervals_and_tests(dialogues, tmp_path, capsys):
    rng = np.random.default_rng(6)
    rows = labels_of(rng, dialogues, turns=50)
    paths = [tmp_path / f"{name}.parquet" for name in ("first", "second")]
    for path, accuracy in zip(paths, (0.2, 0.9), strict=True):
        system("", rows, rng, accuracy).predictions.to_parquet(path)
    cli.main(["compare", *map(str, paths), "--json", str(tmp_path / "differences.json")])
    printed = capsys.readouterr().out
    assert "no intervals or p-values, which need at least 5 dialogues." in printed
    differences = json.loads((tmp_path / "differences.json").read_text())
    war = differences[0]
    accuracies = [(table["prediction"] == table["label"]).mean() for table in map(pd.read_parquet, paths)]
    assert war["value"] == pytest.approx(accuracies[1] - accuracies[0]) and war["p_mcnemar"] < 0.01
    for difference in differences:
        assert all(difference[key] is None for key in ("low", "high", "p", "p_holm"))
    assert f"| WAR | {war['value']:+.3f} |  |  | {war['p_mcnemar']:.4f} |" in printed and "nan" not in printed
