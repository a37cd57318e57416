"""Two systems on the same rows: what is there is found, what is not is not, and what cannot be compared is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from merhan import cli
from merhan.comparison import System, compare, holm, read_system
from merhan.errors import InputError


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


def system(name: str, rows: pd.DataFrame, rng: np.random.Generator, accuracy: float, base=None) -> System:
    """Right with a chance that differs between dialogues; like `base` where that is given, apart from some rows."""
    ease = rows["dialogue"].map({dialogue: rng.normal(0, 0.1) for dialogue in rows["dialogue"].unique()})
    right = rng.random(len(rows)) < (accuracy + ease).clip(0, 1)
    guess = np.where(right, rows["label"], rng.choice(LABELS, len(rows)))
    if base is not None:
        guess = np.where(rng.random(len(rows)) < 0.7, base.predictions["prediction"], guess)
    return System(name, rows.assign(prediction=guess).sort_values("utterance_id", ignore_index=True), {})


def test_a_difference_of_three_points_is_found():
    rng = np.random.default_rng(0)
    rows = labels_of(rng).sort_values("utterance_id", ignore_index=True)
    worse = system("worse", rows, rng, 0.5)
    mended = rng.permutation(np.flatnonzero(worse.predictions["prediction"] != rows["label"]))[
        : round(0.03 * len(rows))
    ]
    guess = worse.predictions["prediction"].to_numpy(copy=True)
    guess[mended] = rows["label"].to_numpy()[mended]
    better = System("better", worse.predictions.assign(prediction=guess), {})
    found = {one.score: one for one in compare([worse, better], resamples=1000)}
    assert found["war"].value == pytest.approx(0.03, abs=5e-4)
    for one in found.values():
        assert one.p < 0.01 and 0 < one.low < one.value < one.high
    back = {one.score: one for one in compare([better, worse], resamples=1000)}
    assert back["uar"].value == -found["uar"].value and back["uar"].high < 0


def test_p_values_of_equal_systems_are_uniform():
    """Dialogues differ in ease, and the systems agree on most rows; a test that draws rows would find too much."""
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(200):
        rows = labels_of(rng, dialogues=40, turns=8)
        one = system("one", rows, rng, 0.6)
        two = system("two", rows, rng, 0.6)
        p_values.append(next(found.p for found in compare([one, two], resamples=199) if found.score == "uar"))
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.10


def test_a_system_equals_itself():
    rng = np.random.default_rng(2)
    one = system("one", labels_of(rng, 20), rng, 0.6)
    for found in compare([one, one._replace(name="again")], resamples=200):
        assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert found.p_mcnemar in (None, 1.0)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.03, np.nan, 0.01]) == pytest.approx([0.03, np.nan, 0.02], nan_ok=True), "no test, nothing to correct"


def test_three_systems_are_three_corrected_pairs():
    rng = np.random.default_rng(3)
    rows = labels_of(rng, 30)
    systems = [system(name, rows, rng, accuracy) for name, accuracy in (("a", 0.5), ("b", 0.5), ("c", 0.7))]
    found = [one for one in compare(systems, resamples=500) if one.score == "war"]
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(one.p_holm >= one.p for one in found) and found[1].p_holm < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one._replace(predictions=one.predictions.iloc[1:]), "1 rows stand in one alone"),
        (lambda one: one._replace(predictions=one.predictions.assign(label="joy")), "labels of some rows differ"),
        (lambda one: one._replace(protocol={"name": "p", "hash": "b"}), "protocols differ"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    rng = np.random.default_rng(4)
    one = system("one", labels_of(rng, 5), rng, 0.5)._replace(protocol={"name": "p", "hash": "a"})
    other = change(one)
    other = other._replace(predictions=other.predictions.reset_index(drop=True))
    with pytest.raises(InputError, match=message):
        compare([one, other])


def test_the_command(tmp_path, capsys):
    rng = np.random.default_rng(5)
    rows = labels_of(rng, 20)
    for name, accuracy in (("one", 0.4), ("two", 0.8)):
        folder = tmp_path / name / "evaluation" / "test"
        folder.mkdir(parents=True)
        system(name, rows, rng, accuracy).predictions.sample(frac=1, random_state=0).to_parquet(
            folder / "predictions.parquet"
        )
        (folder / "metrics.json").write_text(json.dumps({"protocol": {"name": "p", "hash": "h"}}))
    words = ["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--resamples", "200"]
    cli.main([*words, "--json", str(tmp_path / "found.json")])
    assert "180 rows; intervals and p-values draw dialogues." in capsys.readouterr().out
    assert {one["score"] for one in json.loads((tmp_path / "found.json").read_text())} == {
        "war",
        "uar",
        "macro_f1",
        "weighted_f1",
    }
    with pytest.raises(InputError, match="holds no predictions of the validation split"):
        read_system(tmp_path / "one", "validation")


@pytest.mark.parametrize("dialogues", [1, 4])
def test_few_clusters_are_compared_without_intervals_and_tests(dialogues, tmp_path, capsys):
    rng = np.random.default_rng(6)
    rows = labels_of(rng, dialogues, turns=50)
    paths = [tmp_path / f"{name}.parquet" for name in ("one", "two")]
    for path, accuracy in zip(paths, (0.2, 0.9), strict=True):
        system("", rows, rng, accuracy).predictions.to_parquet(path)
    cli.main(["compare", *map(str, paths), "--json", str(tmp_path / "found.json")])
    said = capsys.readouterr().out
    assert "without intervals and p-values over dialogues: fewer than 5 say too little of others." in said
    found = json.loads((tmp_path / "found.json").read_text())
    right = [(one["prediction"] == one["label"]).mean() for one in map(pd.read_parquet, paths)]
    assert found[0]["value"] == pytest.approx(right[1] - right[0]) and found[0]["p_mcnemar"] < 0.01
    assert all(one[key] is None for one in found for key in ("low", "high", "p", "p_holm"))
    assert f"| WAR | {right[1] - right[0]:+.3f} |  |  | {found[0]['p_mcnemar']:.4f} |" in said and "nan" not in said
