"""The robustness sweep: every condition is what it says, each once, and none is run twice."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LABELS
from test_augmentation import decibels, edits, power_between

from merhan import cli, evaluation
from merhan.augmentation import NOISES
from merhan.building import build_model, build_processor
from merhan.dataset import EmotionDataset, load_data
from merhan.evaluation import evaluate_split
from merhan.manifest import write_manifest
from merhan.recipe import DataRecipe, ModelRecipe
from merhan.robustness import Condition, conditions_for, mismatched, sweep


LABEL2ID = {label: number for number, label in enumerate(LABELS)}
BOTH = {condition.name: condition for condition in conditions_for(["audio", "text"], ["audio", "text"])}


@pytest.fixture
def data(demo):
    source = Path(demo["audio"].iloc[0]).parent.parent
    recipe = DataRecipe(source=str(source), options={"scale": 0.1})
    return load_data(recipe, *[["audio", "text"]] * 2, only="test")


def spoilt(demo, processor, name: str, size: int = 48) -> EmotionDataset:
    rows = demo[demo["split"] == "test"].head(size)
    return EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"], **BOTH[name].spoil)


def test_a_model_is_given_what_it_reads():
    names = [condition.name for condition in conditions_for(["audio", "text"], ["audio", "text"])]
    assert len(set(names)) == len(names) == 1 + len(NOISES) * 5 + 2 + 4 + 2 + 2
    words = [f"word errors {rate}" for rate in (0.1, 0.2, 0.3, 0.4)]
    assert [one.name for one in conditions_for(["text"], ["text"])] == [None, *words]
    assert [one for one in conditions_for(["audio"], ["audio"]) if "augmentation" not in one.spoil] == [Condition(None)]
    alone = ["audio", "text", "foreign audio", "foreign text"]
    assert [one.name for one in conditions_for(["audio", "text"], ["text"])] == [None, *words, *alone]
    assert [one.name for one in conditions_for(["audio", "text"], [])] == [None, *alone], "vectors cannot be noisy"


@pytest.mark.parametrize("kind", NOISES)
def test_a_ratio_in_the_table_is_the_ratio_in_the_sound(kind, demo, processor):
    loud, faint = (spoilt(demo, processor, f"{kind} noise {snr} dB", 4) for snr in (0, 20))
    for row in range(4):
        clean = loud.waveform(row).astype(np.float64)
        noise = loud[row]["audio"] - clean
        assert decibels(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(0.0, abs=1e-3)
        np.testing.assert_allclose(faint[row]["audio"] - clean, noise / 10, atol=1e-6)  # the same noise, 20 dB below


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_an_error_rate_in_the_table_is_the_rate_in_the_words(rate, demo, processor):
    data = spoilt(demo, processor, f"word errors {rate}")
    said = [text.split() for text in data.rows["text"]]
    heard = [processor.tokenizer.decode(data[row]["text"], skip_special_tokens=True).split() for row in range(48)]
    wrong = sum(sum(edits(*pair)) for pair in zip(said, heard, strict=True))
    assert wrong / sum(map(len, said)) == pytest.approx(rate, abs=0.07)


def test_telephone_and_room_reach_every_row(demo, processor):
    for name in ("telephone", "room"):
        data = spoilt(demo, processor, name, 6)
        for row in range(6):
            heard, clean = data[row]["audio"], data.waveform(row)
            assert not np.allclose(heard, clean, atol=1e-3)
            if name == "telephone":
                assert power_between(heard, 5000, 8000) < 0.01 * power_between(clean, 5000, 8000)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_mismatched_pairs_never_pair_an_utterance_with_itself(modality, demo):
    rows = demo.assign(text=demo["utterance_id"], start=np.arange(len(demo)))  # every cell tells whose it is
    alone = rows.index[rows["split"] == "test"][:3]
    rows.loc[alone, "audio"] = ""
    for seed in range(20):
        swapped = mismatched(rows, "test", modality, seed)
        mine = (rows["split"] == "test") & ~rows.index.isin(alone)
        assert (swapped.loc[mine, modality] != rows.loc[mine, modality]).all()
        assert sorted(swapped[modality]) == sorted(rows[modality]), "each goes to one row"
        pd.testing.assert_frame_equal(swapped[~mine], rows[~mine])
        kept = "text" if modality == "audio" else "audio"
        assert (swapped[kept] == rows[kept]).all() and (swapped["label"] == rows["label"]).all()
    if modality == "audio":
        belongs = dict(zip(rows["audio"], rows["start"], strict=True))
        assert all(swapped.loc[mine, "start"] == swapped.loc[mine, "audio"].map(belongs)), "a segment goes as one"
    pd.testing.assert_frame_equal(swapped, mismatched(rows, "test", modality, seed))


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_features_are_swapped_as_what_they_stand_for(modality, demo):
    column = f"{modality}_features"
    rows = demo.assign(**{modality: "", column: demo["utterance_id"]})
    swapped, mine = mismatched(rows, "test", modality), rows["split"] == "test"
    assert (swapped.loc[mine, column] != rows.loc[mine, column]).all()
    assert sorted(swapped[column]) == sorted(rows[column])
    pd.testing.assert_frame_equal(swapped[~mine], rows[~mine])


def test_a_sweep(data, trained_like, processor, tmp_path, monkeypatch):
    model = trained_like.eval()
    chosen = [BOTH[name] for name in (None, "white noise 0 dB", "word errors 0.4", "text", "foreign audio")]
    expected = evaluate_split(model, processor, data, "test", tmp_path / "alone")
    runs = []
    estimate = evaluation.estimate
    monkeypatch.setattr(evaluation, "estimate", lambda *given, **more: runs.append(given) or estimate(*given, **more))

    rows = sweep(model, processor, data, "test", tmp_path / "e", chosen)
    assert len(runs) == 5
    assert json.loads((tmp_path / "e/test/metrics.json").read_text()) == expected, "clean is what evaluation says"
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
    logits = [
        np.stack(pd.read_parquet(tmp_path / "e" / row["folder"] / "predictions.parquet")["logits"]) for row in rows
    ]
    assert not any(np.allclose(logits[0], one) for one in logits[1:]), "every condition changes what the model sees"
    page = (tmp_path / "e/robustness.html").read_text()
    assert "http" not in page and "src=" not in page and page.count("<polyline") == 2
    assert (tmp_path / "e/robustness.png").stat().st_size > 5000

    assert sweep(model, processor, data, "test", tmp_path / "e", chosen) == rows and len(runs) == 5, (
        "nothing runs twice"
    )
    (tmp_path / "e/test--text/metrics.json").unlink()
    assert sweep(model, processor, data, "test", tmp_path / "e", chosen) == rows and len(runs) == 6, (
        "what is missing does"
    )
    fainter = [chosen[0], chosen[1]._replace(spoil=BOTH["white noise 20 dB"].spoil)]
    sweep(model, processor, data, "test", tmp_path / "e", fainter)
    assert len(runs) == 7, "another condition under an old name is another condition"
    words = data._replace(rows=data.rows.assign(text=data.rows["text"] + " indeed"))
    sweep(model, processor, words, "test", tmp_path / "e", chosen[:2])
    assert len(runs) == 9, "other words are other data"
    with torch.no_grad():
        model.get_parameter("merhan.audio_backbone.masked_spec_embed").add_(1)
    sweep(model, processor, words, "test", tmp_path / "e", chosen[:2])
    assert len(runs) == 11, "other weights are another model"


def test_one_speaker_is_swept_by_the_values_alone(data, trained_like, processor, tmp_path):
    alone = data._replace(rows=data.rows.assign(speaker="s"))
    rows = sweep(trained_like.eval(), processor, alone, "test", tmp_path / "e", [BOTH[None], BOTH["text"]])
    assert rows[1]["change"] == {"value": pytest.approx(rows[1]["uar"] - rows[0]["uar"])}
    assert "NaN" not in (tmp_path / "e/robustness.json").read_text()


def test_a_model_of_words_alone_from_the_command(demo, tmp_path, monkeypatch, capsys):
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
