"""Temperatures: one for whatever an utterance has, the same in evaluation and pipeline."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from merhan.dataset import Data, load_data
from merhan.evaluation import calibrate, evaluate_split
from merhan.metrics import fit_temperature
from merhan.recipe import DataRecipe
from processing_merhan import EmotionRecognitionPipeline


@pytest.fixture
def data(demo) -> Data:
    source = Path(demo["audio"].iloc[0]).parent.parent
    return load_data(DataRecipe(source=str(source), options={"scale": 0.1}), *[["audio", "text"]] * 2)


def test_each_choice_of_modalities_is_calibrated_alone(trained_like, processor, data, tmp_path):
    """To what is best for its own logits; labels are what the model says of this row or that, so that it is right often
    enough to have a best."""
    model, names = trained_like.eval(), ("audio", "text", "audio+text")

    def logits(name: str, data: Data) -> np.ndarray:
        condition = None if name == "audio+text" else name
        found = evaluate_split(model, processor, data, "validation", tmp_path, condition)
        assert found["temperatures"] == {name: model.config.temperature.get(name, 1.0)}
        folder = tmp_path / found["folder"]
        return np.stack(pd.read_parquet(folder / "predictions.parquet")["logits"])

    validation = data.rows[data.rows["split"] == "validation"]
    said = np.stack([logits(name, data).argmax(axis=1) for name in names])
    labels = said[np.arange(len(validation)) % 3, np.arange(len(validation))]
    validation = validation.assign(label=[model.config.id2label[label] for label in labels])
    model.config.temperature = {"audio+text": 9.0, "image": 3.0}  # of a checkpoint that it began from
    calibrate(model, processor, validation, data.dialogues)
    best = {name: fit_temperature(logits(name, data._replace(rows=validation)), labels) for name in names}
    assert model.config.temperature == pytest.approx(best)
    assert len({round(temperature, 2) for temperature in best.values()}) == 3, "the test would see one for all"


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
    assert found["temperatures"] == {"audio": 3.0, "audio+text": 0.5}
    assert "3.00 (audio), 0.50 (audio+text)" in (tmp_path / "test" / "report.md").read_text()
    predictions = pd.read_parquet(tmp_path / "test" / "predictions.parquet")
    assert predictions["temperature"].tolist() == [3.0, 0.5, 0.5]
    recogniser = EmotionRecognitionPipeline(model=model, processor=processor, device="cpu")
    answers = recogniser(rows["audio"].tolist(), [text or None for text in rows["text"]])
    for answer, logits, temperature in zip(answers, predictions["logits"], predictions["temperature"], strict=True):
        scores = {one["label"]: one["score"] for one in answer}
        found = torch.tensor([scores[label] for label in model.config.label2id])
        torch.testing.assert_close(found, torch.from_numpy(softmax(logits / temperature)), atol=1e-4, rtol=1e-3)
