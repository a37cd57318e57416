"""Figures against scikit-learn, and their intervals."""

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from merhan import metrics
from merhan.evaluation import cluster_column
from merhan.metrics import SCORES, EmotionMetrics, intervals, score, scores_of_counts


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
    counts = scores_of_counts(np.array(found["confusion_matrix"], dtype=float))
    np.testing.assert_allclose(counts, [found[name] for name in SCORES])
    assert np.sum(found["confusion_matrix"]) == found["n"] == sum(found["per_class"]["support"]) == 65


def test_a_class_without_references_counts_in_no_mean():
    found = score(np.array([0, 0, 2]), np.array([0, 0, 0]), 4)
    assert found["uar"] == pytest.approx(2 / 3) and found["per_class"]["support"] == [3, 0, 0, 0]
    assert score(np.array([1]), np.array([1]), 4)["uar"] == 1.0


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
    assert intervals(apart, references, np.zeros(800), 4) == {}, "one speaker tells nothing of others"
    assert intervals(apart, references, speakers, 4) == intervals(apart, references, speakers, 4)


def test_what_is_drawn(demo):
    assert cluster_column(demo) == "speaker"
    assert cluster_column(demo.assign(dialogue="d")) == "dialogue"
    assert cluster_column(demo.drop(columns="speaker")) == "utterance_id"
