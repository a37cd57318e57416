"""Temperatures: one for each combination of modalities, and the same in evaluation and pipeline."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from merhan.data.loading import Data, load_data
from merhan.evaluation.evaluate import evaluate_split
from merhan.metrics.calibration import fit_temperature
from merhan.models.temperature_scaling import calibrate
from merhan.recipe.schema import DataRecipe
from processing_merhan import EmotionRecognitionPipeline


@pytest.fixture
def data(demo) -> Data:
    source = Path(demo["audio"].iloc[0]).parent.parent
    return load_data(DataRecipe(source=str(source), options={"scale": 0.1}), ["audio", "text"], ["audio", "text"])


def test_each_combination_of_modalities_has_its_own_temperature(trained_like, processor, data, tmp_path):
    """It is the best temperature for the logits of that combination.

    Labels are predictions of the model itself, so that it is right often enough for a finite best temperature.
    """
    model, names = trained_like.eval(), ("audio", "text", "audio+text")

    def logits(name: str, data: Data) -> np.ndarray:
        condition = {"audio+text": None}.get(name, name)
        metrics = evaluate_split(model, processor, data, "validation", tmp_path, condition)
        assert metrics["temperatures"] == {name: model.config.temperature.get(name, 1.0)}
        folder = tmp_path / metrics["folder"]
        return np.stack(pd.read_parquet(folder / "predictions.parquet")["logits"])

    validation = data.rows[data.rows["split"] == "validation"]
    predicted = np.stack([logits(name, data).argmax(axis=1) for name in names])
    labels = predicted[np.arange(len(validation)) % 3, np.arange(len(validation))]
    validation = validation.assign(label=[model.config.id2label[label] for label in labels])
    model.config.temperature = {"audio+text": 9.0, "image": 3.0}  # as left by an initial checkpoint
    calibrate(model, processor, validation, data.dialogues)
    best = {name: fit_temperature(logits(name, data._replace(rows=validation)), labels) for name in names}
    assert model.config.temperature == pytest.approx(best)
    assert len({round(temperature, 2) for temperature in best.values()}) == 3, (
        "the test would notice a shared temperature"
    )


def test_a_combination_without_validation_rows_gets_no_temperature(trained_like, processor, data):
    validation = data.rows[data.rows["split"] == "validation"].assign(text="")
    calibrate(trained_like.eval(), processor, validation, data.dialogues)
    assert set(trained_like.config.temperature) == {"audio"}


def test_a_row_without_text_gets_the_temperature_of_audio(trained_like, processor, data, tmp_path):
    model = trained_like.eval()
    model.config.temperature = {"audio": 3.0, "audio+text": 0.5}
    rows = data.rows[data.rows["split"] == "test"].head(3).reset_index(drop=True)
    rows.loc[0, "text"] = ""
    metrics = evaluate_split(model, processor, data._replace(rows=rows), "test", tmp_path)
    assert metrics["temperatures"] == {"audio": 3.0, "audio+text": 0.5}
    assert "3.00 (audio), 0.50 (audio+text)" in (tmp_path / "test" / "report.md").read_text()
    predictions = pd.read_parquet(tmp_path / "test" / "predictions.parquet")
    assert predictions["temperature"].tolist() == [3.0, 0.5, 0.5]
    recogniser = EmotionRecognitionPipeline(model=model, processor=processor, device="cpu")
    answers = recogniser(rows["audio"].tolist(), [text or None for text in rows["text"]])
    for answer, logits, temperature in zip(answers, predictions["logits"], predictions["temperature"], strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        ordered = torch.tensor([scores[label] for label in model.config.label2id])
        torch.testing.assert_close(ordered, torch.from_numpy(softmax(logits / temperature)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("rows", [1, 5, 40, 1000])
@pytest.mark.parametrize("num_labels", [2, 4, 7])
def test_scores_are_no_sharper_than_rows_without_a_mistake_support(rows, num_labels):
    """The rule of succession: after n rows without a mistake, one in n + 2 is expected to be one."""
    rng = np.random.default_rng(rows + num_labels)
    logits = rng.normal(size=(rows, num_labels))
    references = logits.argmax(axis=1)
    for scale in (0.1, 1, 100):
        temperature = fit_temperature(scale * logits, references)
        scores = softmax(scale * logits / temperature, axis=1)
        plain = softmax(scale * logits, axis=1)
        assert scores.max() <= max((rows + 1) / (rows + 2) + 1e-6, plain.max())
        assert 0.049 < temperature <= 1


def test_with_a_mistake_the_temperature_is_the_one_of_the_log_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4))
    references = logits.argmax(axis=1)
    references[0] = (references[0] + 1) % 4
    grid = np.exp(np.linspace(-3, 3, 6001))
    losses = [torch.nn.functional.cross_entropy(torch.tensor(logits / t), torch.tensor(references)) for t in grid]
    assert fit_temperature(logits, references) == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


def test_the_report_says_that_validation_was_without_a_mistake(trained_like, processor, data, tmp_path):
    validation = data.rows[data.rows["split"] == "validation"]
    model = trained_like.eval()
    evaluate_split(model, processor, data, "validation", tmp_path)
    predictions = pd.read_parquet(tmp_path / "validation" / "predictions.parquet")["prediction"]
    calibrate(model, processor, validation.assign(label=predictions.to_numpy()), data.dialogues)
    assert model.config.temperature_rows["audio+text"] == len(validation)
    evaluate_split(model, processor, data, "test", tmp_path)
    report = (tmp_path / "test" / "report.md").read_text()
    assert f"was fitted on {len(validation)} validation rows without a mistake" in report
