"""Metrics compared with scikit-learn and with cases computed by hand, and the coverage of their intervals."""

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

from merhan.errors import InputError
from merhan.evaluation.prediction_table import cluster_column, scores_by_group
from merhan.metrics import classification as score_module
from merhan.metrics.annotations import dimension_scores, vote_scores
from merhan.metrics.calibration import calibration_scores, fit_temperature, risk_coverage
from merhan.metrics.classification import EmotionMetrics, classification_scores, scores_from_counts
from merhan.metrics.intervals import bootstrap_intervals
from merhan.models.inference import require_finite_logits
from merhan.names import SCORES


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    references = np.concatenate([np.arange(5), rng.integers(0, 5, 60)])
    predictions = np.where(rng.random(65) < 0.5, references, rng.integers(0, 5, 65))
    scores = classification_scores(predictions, references, 5)
    assert scores["war"] == accuracy_score(references, predictions)
    assert scores["uar"] == pytest.approx(balanced_accuracy_score(references, predictions))
    assert scores["macro_f1"] == pytest.approx(f1_score(references, predictions, average="macro"))
    assert scores["weighted_f1"] == pytest.approx(f1_score(references, predictions, average="weighted"))
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(references, predictions))
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(references, predictions))
    counts = scores_from_counts(np.array(scores["confusion_matrix"], dtype=float))
    np.testing.assert_allclose(counts, [scores[name] for name in SCORES])
    assert np.sum(scores["confusion_matrix"]) == scores["n"] == sum(scores["per_class"]["support"]) == 65


def test_a_class_without_references_is_left_out_of_the_means():
    scores = classification_scores(np.array([0, 0, 2]), np.array([0, 0, 0]), 4)
    assert scores["uar"] == pytest.approx(2 / 3) and scores["per_class"]["support"] == [3, 0, 0, 0]
    alone = classification_scores(np.array([1]), np.array([1]), 4)
    assert alone["uar"] == 1.0 and alone["kappa"] is None, "agreement by chance is certain with one class"


def test_the_metric_module_loads_by_path_without_a_network():
    module = evaluate.load(score_module.__file__)
    scores = module.compute(predictions=[0, 1, 1], references=[0, 1, 0], num_labels=2)
    assert scores["uar"] == 0.75
    again = EmotionMetrics().compute(predictions=[0, 1, 1], references=[0, 1, 0], num_labels=2)
    assert again == scores


def test_intervals_widen_with_the_correlation_within_speakers():
    rng = np.random.default_rng(0)
    references = rng.integers(0, 4, 800)
    speakers = np.repeat(np.arange(20), 40)
    # Half of the speakers all right and the others all wrong; in contrast, half of the rows right.
    correlated = np.where((speakers % 2).astype(bool), references, (references + 1) % 4)
    independent = np.where(rng.random(800) < 0.5, references, (references + 1) % 4)

    def width(predictions) -> float:
        low, high = bootstrap_intervals(predictions, references, speakers, 4)["uar"]
        assert low <= classification_scores(predictions, references, 4)["uar"] <= high
        return high - low

    assert width(correlated) > 3 * width(independent)
    four_speakers = np.arange(800) % 4
    assert bootstrap_intervals(independent, references, four_speakers, 4) == {}, "four speakers are too few"
    repeated = [bootstrap_intervals(independent, references, speakers, 4) for _ in range(2)]
    assert repeated[0] == repeated[1]


@pytest.mark.parametrize("speakers", [10, 40])
def test_intervals_over_speakers_have_their_nominal_coverage_and_over_rows_do_not(speakers):
    shares = coverage(400, speakers, resamples=400)
    assert 0.92 <= shares["speakers"] <= 0.97
    assert shares["rows"] < 0.85


def overconfident(temperature: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is calibrated at the given temperature, and labels drawn from that distribution."""
    rng = np.random.default_rng(0)
    logits = temperature * rng.normal(0, 1.5, (rows, 4))
    probabilities = np.exp(logits / temperature)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return logits, np.array([rng.choice(4, p=row) for row in probabilities])


def test_the_fitted_temperature_calibrates_the_scores():
    logits, references = overconfident(3.0)
    temperature = fit_temperature(logits[:2000], references[:2000])
    assert temperature == pytest.approx(3.0, rel=0.1)
    before, after = (calibration_scores(logits[2000:] / t, references[2000:]) for t in (1.0, temperature))
    assert after["ece"] < 0.04 < 0.15 < before["ece"]
    assert after["log_loss"] < before["log_loss"] and after["brier"] < before["brier"]
    assert after["top2"] == before["top2"], "scaling keeps the order of the labels"


def test_calibration_of_cases_computed_by_hand():
    confident = np.array([[9.0, -9.0], [9.0, -9.0]])
    assert calibration_scores(confident, np.array([0, 0]))["ece"] < 1e-6
    half = calibration_scores(confident, np.array([0, 1]))
    assert half["ece"] == pytest.approx(0.5) and half["brier"] == pytest.approx(1.0)
    assert half["bins"]["count"] == [2] and half["top2"] == 1.0
    even = calibration_scores(np.zeros((4, 4)), np.array([0, 1, 2, 3]))
    assert even["log_loss"] == pytest.approx(np.log(4)) and even["ece"] == pytest.approx(0)


def test_the_risk_falls_with_the_coverage():
    logits, references = overconfident(1.0)
    scores = risk_coverage(logits, references)
    assert scores["coverage"][0] == 1.0 and scores["risk"] == sorted(scores["risk"], reverse=True)
    confidence = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1) ** -1
    right = logits.argmax(axis=1) == references
    for share, threshold, risk in zip(scores["coverage"], scores["threshold"], scores["risk"], strict=True):
        answered = confidence >= threshold - 1e-12
        assert share == pytest.approx(answered.mean()) and risk == pytest.approx(1 - right[answered].mean())
    assert np.mean(scores["risk"][1:]) < scores["aurc"] + 0.05 < scores["risk"][0]
    assert risk_coverage(logits / 2, references)["risk"] == pytest.approx(scores["risk"], abs=0.02)


def test_rows_of_equal_confidence_are_answered_together():
    scores = risk_coverage(np.array([[2.0, 0.0]] * 3 + [[0.0, 1.0]]), np.array([0, 0, 1, 1]))
    assert set(scores["coverage"]) == {0.75, 1.0} and scores["risk"][0] == 0.25
    assert scores["risk"][-1] == pytest.approx(1 / 3)


def test_vote_scores_equal_scipy():
    rng = np.random.default_rng(0)
    shares, logits = rng.dirichlet(np.ones(4), 30), rng.normal(size=(30, 4))
    shares[0] = [1, 0, 0, 0]
    probabilities = softmax(logits, axis=1)
    scores = vote_scores(logits, shares)
    assert scores["kl"] == pytest.approx(entropy(shares, probabilities, axis=1).mean()) and scores["n"] == 30
    assert scores["cross_entropy"] == pytest.approx(
        log_loss(np.zeros(1), probabilities[:1], labels=range(4)) / 30
        + sum(-(share * np.log(row)).sum() for share, row in zip(shares[1:], probabilities[1:], strict=True)) / 30
    )
    assert vote_scores(np.log(shares[1:]), shares[1:])["kl"] == pytest.approx(0)


@pytest.mark.parametrize("shares", [[[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1.0]], np.zeros((0, 2))])
def test_vote_scores_refuse_what_is_no_distribution(shares):
    with pytest.raises(ValueError, match="summing to 1"):
        vote_scores(np.zeros((len(shares), 2)), np.array(shares))


def test_ccc_penalises_scale_and_offset():
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
def test_dimension_scores_refuse_nan_and_have_no_correlation_of_constants(wrong):
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


def test_intervals_resample_dialogues_or_speakers(demo):
    assert cluster_column(demo) == "speaker"
    assert cluster_column(demo.assign(dialogue="d")) == "dialogue"
    assert cluster_column(demo.drop(columns="speaker")) == "utterance_id"


def test_logits_that_are_not_finite_are_refused():
    """NaN would count as the first class, and WAR would look plausible."""
    with pytest.raises(InputError, match="1 of 3 rows are not finite: training diverged"):
        require_finite_logits(np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]]))


def test_groups_of_few_rows_come_last():
    table = pd.DataFrame({"speaker": ["lone"] + ["weak"] * 10 + ["good"] * 10})
    references = np.arange(21) % 2
    predicted = references.copy()
    predicted[:3] = 1 - predicted[:3]
    assert [group["name"] for group in scores_by_group(table, predicted, references, 2)["speaker"]] == [
        "weak",
        "good",
        "lone",
    ]
    table["gender"] = (
        [float("nan")] * 11 + ["female"] * 5 + ["male"] * 5
    )  # NaN after pooling with a fold without the column
    assert [group["n"] for group in scores_by_group(table, predicted, references, 2)["gender"]] == [5, 5]
    table["duration"] = [float("nan")] * 10 + [0.5] * 4 + [3.0] * 7
    durations = scores_by_group(table, predicted, references, 2)["duration"]
    assert {group["name"]: group["n"] for group in durations} == {"under 1 s": 4, "2 to 4 s": 7}
