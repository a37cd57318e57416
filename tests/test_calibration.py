"""Temperatures: one for whatever an utterance has, the same in evaluation and pipeline."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.special import softmax

from merhan.dataset import Data, load_data
from merhan.evaluation import calibrate, evaluate_split
from merhan.recipe import DataRecipe
from processing_merhan import EmotionRecognitionPipeline


@pytest.fixture
def data(demo) -> Data:
    source = Path(demo["audio"].iloc[0]).parent.parent
    return load_data(DataRecipe(source=str(source), options={"scale": 0.1}), *[["audio", "text"]] * 2)


def test_each_choice_of_modalities_is_calibrated_alone(trained_like, processor, data, tmp_path):
    model = trained_like.eval()
    model.config.temperature = {"audio+text": 9.0, "image": 3.0}  # of a checkpoint that it began from
    calibrate(model, processor, data.rows[data.rows["split"] == "validation"], data.dialogues)
    assert set(model.config.temperature) == {"audio", "text", "audio+text"}
    for condition in (None, "audio", "text"):
        found = evaluate_split(model, processor, data, "validation", tmp_path, condition)
        assert found["temperature"] == model.config.temperature[condition or "audio+text"]
        assert found["calibration"]["log_loss"] < found["uncalibrated"]["log_loss"]


def test_what_no_validation_row_has_is_not_calibrated(trained_like, processor, data):
    validation = data.rows[data.rows["split"] == "validation"].assign(text="")
    calibrate(trained_like.eval(), processor, validation, data.dialogues)
    assert set(trained_like.config.temperature) == {"audio"}


def test_a_row_without_words_has_the_temperature_of_voices(trained_like, processor, data, tmp_path):
    model = trained_like.eval()
    model.config.temperature = {"audio": 3.0, "audio+text": 0.5}
    rows = data.rows[data.rows["split"] == "test"].head(3).reset_index(drop=True)
    rows.loc[0, "text"] = ""
    found = evaluate_split(model, processor, data._replace(rows=rows), "test", tmp_path)
    assert found["temperature"] == 0.5
    predictions = pd.read_parquet(tmp_path / "test" / "predictions.parquet")
    assert predictions["temperature"].tolist() == [3.0, 0.5, 0.5]
    recogniser = EmotionRecognitionPipeline(model=model, processor=processor, device="cpu")
    answers = recogniser(rows["audio"].tolist(), [text or None for text in rows["text"]])
    for answer, logits, temperature in zip(answers, predictions["logits"], predictions["temperature"], strict=True):
        scores = {one["label"]: one["score"] for one in answer}
        found = torch.tensor([scores[label] for label in model.config.label2id])
        torch.testing.assert_close(found, torch.from_numpy(softmax(logits / temperature)), atol=1e-4, rtol=1e-3)
