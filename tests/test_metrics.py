"""Figures against scikit-learn, and their intervals."""

import evaluate
import numpy as np
import pandas as pd
import pytest
from interval_coverage import coverage
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
)

from merhan import metrics
from merhan.errors import InputError, require_finite
from merhan.evaluation import by_group, cluster_column
from merhan.metrics import (
    SCORES,
    EmotionMetrics,
    calibration,
    dimension_scores,
    distribution_scores,
    fit_temperature,
    intervals,
    risk_coverage,
    score,
    scores_of_counts,
)


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    references = np.concatenate([np.arange(5), rng.integers(0, 5, 60)])
    predictions = np.where(rng.random(65) < 0.5, references, rng.integers(0, 5, 65))
    found = score(predictions, references, 5)
    assert found["war"] == accuracy_score(references, predictions)
    assert found["uar"] == pytest.approx(balanced_accuracy_score(references, predictions))
    assert found["macro_f1"] == pytest.approx(f1_score(references, predictions, average="macro"))
    assert found["weighted_f1"] == pytest.approx(f1_score(references, predictions, average="weighted"))
    assert found["kappa"] == pytest.approx(cohen_kappa_score(references, predictions))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(references, predictions))
    counts = scores_of_counts(np.array(found["confusion_matrix"], dtype=float))
    np.testing.assert_allclose(counts, [found[name] for name in SCORES])
    assert np.sum(found["confusion_matrix"]) == found["n"] == sum(found["per_class"]["support"]) == 65


def test_a_class_without_references_counts_in_no_mean():
    found = score(np.array([0, 0, 2]), np.array([0, 0, 0]), 4)
    assert found["uar"] == pytest.approx(2 / 3) and found["per_class"]["support"] == [3, 0, 0, 0]
    alone = score(np.array([1]), np.array([1]), 4)
    assert alone["uar"] == 1.0 and alone["kappa"] is None, "chance agreement is certain there"


def test_the_module_loads_by_path_without_a_network():
    module = evaluate.load(metrics.__file__)
    found = module.compute(predictions=[0, 1, 1], references=[0, 1, 0], num_labels=2)
    assert found["uar"] == 0.75
    again = EmotionMetrics().compute(predictions=[0, 1, 1], references=[0, 1, 0], num_labels=2)
    assert again == found


def test_intervals_widen_with_the_likeness_within_speakers():
    rng = np.random.default_rng(0)
    references = rng.integers(0, 4, 800)
    speakers = np.repeat(np.arange(20), 40)
    alike = np.where((speakers % 2).astype(bool), references, (references + 1) % 4)  # half the speakers, all right
    apart = np.where(rng.random(800) < 0.5, references, (references + 1) % 4)

    def width(predictions) -> float:
        low, high = intervals(predictions, references, speakers, 4)["uar"]
        assert low <= score(predictions, references, 4)["uar"] <= high
        return high - low

    assert width(alike) > 3 * width(apart)
    assert intervals(apart, references, np.arange(800) % 4, 4) == {}, "four speakers tell too little of others"
    assert intervals(apart, references, speakers, 4) == intervals(apart, references, speakers, 4)


@pytest.mark.parametrize("speakers", [10, 40])
def test_intervals_over_speakers_cover_and_over_rows_do_not(speakers):
    held = coverage(400, speakers, resamples=400)
    assert 0.92 <= held["speakers"] <= 0.97
    assert held["rows"] < 0.85


def overconfident(temperature: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is right at one temperature, and labels drawn from it."""
    rng = np.random.default_rng(0)
    logits = temperature * rng.normal(0, 1.5, (rows, 4))
    chances = np.exp(logits / temperature)
    chances /= chances.sum(axis=1, keepdims=True)
    return logits, np.array([rng.choice(4, p=row) for row in chances])


def test_the_temperature_is_found_and_mends_confidence():
    logits, references = overconfident(3.0)
    found = fit_temperature(logits[:2000], references[:2000])
    assert found == pytest.approx(3.0, rel=0.1)
    before, after = (calibration(logits[2000:] / t, references[2000:]) for t in (1.0, found))
    assert after["ece"] < 0.04 < 0.15 < before["ece"]
    assert after["log_loss"] < before["log_loss"] and after["brier"] < before["brier"]
    assert after["top2"] == before["top2"], "the order of the answers stays"


def test_calibration_of_cases_known_by_hand():
    sure = np.array([[9.0, -9.0], [9.0, -9.0]])
    assert calibration(sure, np.array([0, 0]))["ece"] < 1e-6
    half = calibration(sure, np.array([0, 1]))
    assert half["ece"] == pytest.approx(0.5) and half["brier"] == pytest.approx(1.0)
    assert half["bins"]["count"] == [2] and half["top2"] == 1.0
    even = calibration(np.zeros((4, 4)), np.array([0, 1, 2, 3]))
    assert even["log_loss"] == pytest.approx(np.log(4)) and even["ece"] == pytest.approx(0)


def test_who_answers_only_when_sure_is_wrong_less_often():
    logits, references = overconfident(1.0)
    found = risk_coverage(logits, references)
    assert found["coverage"][0] == 1.0 and found["risk"] == sorted(found["risk"], reverse=True)
    confidence = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1) ** -1
    right = logits.argmax(axis=1) == references
    for share, threshold, risk in zip(found["coverage"], found["threshold"], found["risk"], strict=True):
        answered = confidence >= threshold - 1e-12
        assert share == pytest.approx(answered.mean()) and risk == pytest.approx(1 - right[answered].mean())
    assert np.mean(found["risk"][1:]) < found["aurc"] + 0.05 < found["risk"][0]
    assert risk_coverage(logits / 2, references)["risk"] == pytest.approx(found["risk"], abs=0.02)


def test_equal_confidence_is_answered_together():
    found = risk_coverage(np.array([[2.0, 0.0]] * 3 + [[0.0, 1.0]]), np.array([0, 0, 1, 1]))
    assert set(found["coverage"]) == {0.75, 1.0} and found["risk"][0] == 0.25
    assert found["risk"][-1] == pytest.approx(1 / 3)


def test_distance_from_the_votes_is_scipys():
    rng = np.random.default_rng(0)
    shares, logits = rng.dirichlet(np.ones(4), 30), rng.normal(size=(30, 4))
    shares[0] = [1, 0, 0, 0]
    scores = softmax(logits, axis=1)
    found = distribution_scores(logits, shares)
    assert found["kl"] == pytest.approx(entropy(shares, scores, axis=1).mean()) and found["n"] == 30
    assert found["cross_entropy"] == pytest.approx(
        log_loss(np.zeros(1), scores[:1], labels=range(4)) / 30
        + sum(-(share * np.log(score)).sum() for share, score in zip(shares[1:], scores[1:], strict=True)) / 30
    )
    assert distribution_scores(np.log(shares[1:]), shares[1:])["kl"] == pytest.approx(0)


@pytest.mark.parametrize("shares", [[[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1.0]], np.zeros((0, 2))])
def test_votes_that_are_no_shares_are_refused(shares):
    with pytest.raises(ValueError, match="summing to 1"):
        distribution_scores(np.zeros((len(shares), 2)), np.array(shares))


def test_dimension_scores_tell_scale_and_offset_from_error():
    rng = np.random.default_rng(0)
    truth = rng.normal(3.0, 1.5, 200)
    right = dimension_scores(truth, truth)
    assert right == {"ccc": pytest.approx(1), "pearson": pytest.approx(1), "rmse": 0.0, "n": 200}
    shifted = dimension_scores(0.5 * truth + 2, truth)
    gap = truth.mean() - (0.5 * truth + 2).mean()
    assert shifted["pearson"] == pytest.approx(1)
    assert shifted["ccc"] == pytest.approx(truth.var() / (1.25 * truth.var() + gap**2))
    assert shifted["rmse"] == pytest.approx(np.sqrt(np.mean((0.5 * truth - 2) ** 2)))
    assert dimension_scores(-truth, truth)["ccc"] < 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_dimension_scores_refuse_what_is_not_finite_and_are_silent_on_constants(wrong):
    for pair in (([wrong, 1.0], [1.0, 2.0]), ([1.0, 2.0], [wrong, 1.0]), ([], [])):
        with pytest.raises(ValueError, match="all of them finite"):
            dimension_scores(*map(np.array, pair))
    for pair in (([1.0, 1.0], [1.0, 3.0]), ([1.0, 3.0], [1.0, 1.0])):
        assert dimension_scores(*map(np.array, pair)) == {
            "ccc": None,
            "pearson": None,
            "rmse": pytest.approx(np.sqrt(2)),
            "n": 2,
        }


def test_what_is_drawn(demo):
    assert cluster_column(demo) == "speaker"
    assert cluster_column(demo.assign(dialogue="d")) == "dialogue"
    assert cluster_column(demo.drop(columns="speaker")) == "utterance_id"


def test_logits_that_are_not_finite_are_refused():
    """NaN would count as the first class, and WAR would look fine."""
    with pytest.raises(InputError, match="1 of 3 rows are not finite: training diverged"):
        require_finite(np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]]))


def test_a_group_of_few_rows_is_not_called_the_worst():
    table = pd.DataFrame({"speaker": ["lone"] + ["weak"] * 10 + ["good"] * 10})
    references = np.arange(21) % 2
    guessed = references.copy()
    guessed[:3] = 1 - guessed[:3]
    assert [group["name"] for group in by_group(table, guessed, references, 2)["speaker"]] == ["weak", "good", "lone"]
    table["gender"] = [float("nan")] * 11 + ["female"] * 5 + ["male"] * 5  # pooled with a fold that does not know it
    assert [group["n"] for group in by_group(table, guessed, references, 2)["gender"]] == [5, 5]
    table["duration"] = [float("nan")] * 10 + [0.5] * 4 + [3.0] * 7
    found = by_group(table, guessed, references, 2)["duration"]
    assert {group["name"]: group["n"] for group in found} == {"under 1 s": 4, "2 to 4 s": 7}
