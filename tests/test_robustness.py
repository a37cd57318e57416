"""Robustness: every condition corrupts as documented, is evaluated once, and its result is reused."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LABEL2ID, LABELS
from test_augmentation import decibels, edits, power_between

from merhan.cli import main as cli
from merhan.data.augmentation import NOISES
from merhan.data.dataset import EmotionDataset
from merhan.data.loading import load_data
from merhan.data.manifest import write_manifest
from merhan.evaluation import evaluate as evaluation
from merhan.evaluation.evaluate import evaluate_split
from merhan.evaluation.robustness import Condition, conditions_for, evaluate_robustness, swap_modality
from merhan.models.building import build_model, build_processor
from merhan.recipe.schema import DataRecipe, ModelRecipe


BOTH = {condition.name: condition for condition in conditions_for(["audio", "text"], ["audio", "text"])}


@pytest.fixture
def data(demo):
    source = Path(demo["audio"].iloc[0]).parent.parent
    recipe = DataRecipe(source=str(source), options={"scale": 0.1})
    return load_data(recipe, ["audio", "text"], ["audio", "text"], only="test")


def corrupted(demo, processor, name: str, size: int = 48) -> EmotionDataset:
    """Test rows under a condition."""
    rows = demo[demo["split"] == "test"].head(size)
    return EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"], **BOTH[name].corruption)


def names_of(modalities: list[str], raw: list[str]) -> list[str | None]:
    return [condition.name for condition in conditions_for(modalities, raw)]


def test_conditions_depend_on_the_modalities_of_the_model():
    names = names_of(["audio", "text"], ["audio", "text"])
    assert len(set(names)) == len(names) == 1 + len(NOISES) * 5 + 2 + 4 + 2 + 2
    words = [f"word errors {rate}" for rate in (0.1, 0.2, 0.3, 0.4)]
    assert names_of(["text"], ["text"]) == [None, *words]
    audio_only = conditions_for(["audio"], ["audio"])
    assert audio_only[0] == Condition(None) and all("augmentation" in entry.corruption for entry in audio_only[1:])
    combinations = ["audio", "text", "foreign audio", "foreign text"]
    assert names_of(["audio", "text"], ["text"]) == [None, *words, *combinations]
    assert names_of(["audio", "text"], []) == [None, *combinations], "features cannot be corrupted"


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_the_signal_to_noise_ratio_of_its_name(kind, demo, processor):
    loud, faint = (corrupted(demo, processor, f"{kind} noise {snr} dB", 4) for snr in (0, 20))
    for row in range(4):
        clean = loud.waveform(row).astype(np.float64)
        noise = loud[row]["audio"] - clean
        assert decibels(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(0.0, abs=1e-3)
        np.testing.assert_allclose(faint[row]["audio"] - clean, noise / 10, atol=1e-6)  # the same noise, 20 dB below


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_word_errors_have_the_rate_of_their_name(rate, demo, processor):
    data = corrupted(demo, processor, f"word errors {rate}")
    spoken = [text.split() for text in data.rows["text"]]
    heard = [processor.tokenizer.decode(data[row]["text"], skip_special_tokens=True).split() for row in range(48)]
    wrong = sum(sum(edits(*pair)) for pair in zip(spoken, heard, strict=True))
    assert wrong / sum(map(len, spoken)) == pytest.approx(rate, abs=0.07)


def test_telephone_and_room_change_every_row(demo, processor):
    for name in ("telephone", "room"):
        data = corrupted(demo, processor, name, 6)
        for row in range(6):
            heard, clean = data[row]["audio"], data.waveform(row)
            assert not np.allclose(heard, clean, atol=1e-3)
            if name == "telephone":
                assert power_between(heard, 5000, 8000) < 0.01 * power_between(clean, 5000, 8000)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_swapping_never_pairs_an_utterance_with_itself(modality, demo):
    rows = demo.assign(text=demo["utterance_id"], start=np.arange(len(demo)))  # so that every cell identifies its row
    alone = rows.index[rows["split"] == "test"][:3]
    rows.loc[alone, "audio"] = ""
    for seed in range(20):
        swapped = swap_modality(rows, "test", modality, seed)
        mine = (rows["split"] == "test") & ~rows.index.isin(alone)
        assert (swapped.loc[mine, modality] != rows.loc[mine, modality]).all()
        assert sorted(swapped[modality]) == sorted(rows[modality]), "each is passed on to one row"
        pd.testing.assert_frame_equal(swapped[~mine], rows[~mine])
        other = {"audio": "text", "text": "audio"}[modality]
        assert (swapped[other] == rows[other]).all() and (swapped["label"] == rows["label"]).all()
    if modality == "audio":
        belongs = dict(zip(rows["audio"], rows["start"], strict=True))
        assert all(swapped.loc[mine, "start"] == swapped.loc[mine, "audio"].map(belongs)), (
            "bounds move with their audio"
        )
    pd.testing.assert_frame_equal(swapped, swap_modality(rows, "test", modality, seed))


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_features_are_swapped_with_their_modality(modality, demo):
    column = f"{modality}_features"
    rows = demo.assign(**{modality: "", column: demo["utterance_id"]})
    swapped, mine = swap_modality(rows, "test", modality), rows["split"] == "test"
    assert (swapped.loc[mine, column] != rows.loc[mine, column]).all()
    assert sorted(swapped[column]) == sorted(rows[column])
    pd.testing.assert_frame_equal(swapped[~mine], rows[~mine])


def test_conditions_are_evaluated_once_and_reused(data, trained_like, processor, tmp_path, monkeypatch):
    model = trained_like.eval()
    chosen = [BOTH[name] for name in (None, "white noise 0 dB", "word errors 0.4", "text", "foreign audio")]
    expected = evaluate_split(model, processor, data, "test", tmp_path / "alone")
    runs = []
    predict = evaluation.predict_logits

    def counted(*arguments, **options):
        runs.append(arguments)
        return predict(*arguments, **options)

    monkeypatch.setattr(evaluation, "predict_logits", counted)

    rows = evaluate_robustness(model, processor, data, "test", tmp_path / "e", chosen)
    assert len(runs) == 5
    clean = json.loads((tmp_path / "e/test/metrics.json").read_text())
    assert {**clean, "date": ""} == {**expected, "date": ""}, "the clean condition equals a plain evaluation"
    saved = json.loads((tmp_path / "e/robustness.json").read_text())
    assert saved["conditions"] == rows and saved["protocol"] == expected["protocol"]
    names = ["clean", "white noise 0 dB", "word errors 0.4", "text alone", "foreign audio"]
    text = (tmp_path / "e/robustness.md").read_text()
    for name, row in zip(names, rows, strict=True):
        assert row["condition"] == name and text.count(f"| {name} |") == 1
        folder = "test" if name == "clean" else f"test--{name.removesuffix(' alone').replace(' ', '-')}"
        assert json.loads((tmp_path / "e" / folder / "metrics.json").read_text())["uar"] == row["uar"]
        if row["change"]:
            assert row["change"]["value"] == pytest.approx(row["uar"] - rows[0]["uar"])
            assert row["change"]["low"] <= row["change"]["value"] <= row["change"]["high"]
    files = [tmp_path / "e" / row["folder"] / "predictions.parquet" for row in rows]
    logits = [np.stack(pd.read_parquet(file)["logits"]) for file in files]
    assert not any(np.allclose(logits[0], other) for other in logits[1:]), "every condition changes the input"
    page = (tmp_path / "e/robustness.html").read_text()
    assert "http" not in page and "src=" not in page and page.count("<polyline") == 2
    assert (tmp_path / "e/robustness.png").stat().st_size > 5000

    assert evaluate_robustness(model, processor, data, "test", tmp_path / "e", chosen) == rows
    assert len(runs) == 5, "all results are reused"
    (tmp_path / "e/test--text/metrics.json").unlink()
    assert evaluate_robustness(model, processor, data, "test", tmp_path / "e", chosen) == rows
    assert len(runs) == 6, "a missing result is computed again"
    fainter = [chosen[0], chosen[1]._replace(corruption=BOTH["white noise 20 dB"].corruption)]
    evaluate_robustness(model, processor, data, "test", tmp_path / "e", fainter)
    assert len(runs) == 7, "a changed condition with the same name is evaluated"
    changed = data._replace(rows=data.rows.assign(text=data.rows["text"] + " indeed"))
    evaluate_robustness(model, processor, changed, "test", tmp_path / "e", chosen[:2])
    assert len(runs) == 9, "changed text is evaluated"
    with torch.no_grad():
        model.get_parameter("merhan.audio_backbone.masked_spec_embed").add_(1)
    evaluate_robustness(model, processor, changed, "test", tmp_path / "e", chosen[:2])
    assert len(runs) == 11, "changed weights are evaluated"


def test_results_without_a_description_are_evaluated_again(data, trained_like, processor, tmp_path):
    """Versions before `date` and `model` were added to `metrics.json` wrote such results."""
    model, file = trained_like.eval(), tmp_path / "e/test/metrics.json"
    first = evaluate_robustness(model, processor, data, "test", tmp_path / "e", [BOTH[None]])
    described = json.loads(file.read_text())
    added = ("date", "model", "modalities", "corpora")
    file.write_text(json.dumps({key: value for key, value in described.items() if key not in added}))
    assert evaluate_robustness(model, processor, data, "test", tmp_path / "e", [BOTH[None]]) == first
    assert set(json.loads(file.read_text())) == set(described)


def test_the_change_of_a_single_speaker_has_no_interval(data, trained_like, processor, tmp_path):
    single = data._replace(rows=data.rows.assign(speaker="s"))
    conditions = [BOTH[None], BOTH["text"]]
    rows = evaluate_robustness(trained_like.eval(), processor, single, "test", tmp_path / "e", conditions)
    assert rows[1]["change"] == {"value": pytest.approx(rows[1]["uar"] - rows[0]["uar"])}
    assert "NaN" not in (tmp_path / "e/robustness.json").read_text()


def test_the_command_with_a_text_model(demo, tmp_path, monkeypatch, capsys):
    recipe = ModelRecipe(text_backbone="tiny", config={"hidden_size": 32, "intermediate_size": 32})
    build_model(recipe, LABELS, demo).save_pretrained(tmp_path / "model")
    build_processor(recipe, DataRecipe(), demo).save_pretrained(tmp_path / "model")
    write_manifest(demo, tmp_path / "demo.parquet")
    words = ["robustness", str(tmp_path / "model"), "--manifest", str(tmp_path / "demo.parquet")]
    monkeypatch.setattr(sys, "argv", ["merhan", *words, "--split", "validation", "--output_dir", str(tmp_path / "e")])
    cli.main()
    printed = capsys.readouterr().out
    assert printed.count("| word errors") == 4 and "noise" not in printed and "telephone" not in printed
    folders = {path.parent.name for path in (tmp_path / "e").glob("*/metrics.json")}
    assert folders == {"validation", *(f"validation--word-errors-{rate}" for rate in (0.1, 0.2, 0.3, 0.4))}
    assert "telephone" not in (tmp_path / "e/robustness.md").read_text()
