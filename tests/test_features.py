"""Features that are the data's own (emotion2vec, for one) in a backbone's place, and dimensions beside the label."""

import copy
import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_config
from test_training import call

import train_hf_e2e
from configuration_merhan import MerhanFeaturesConfig
from merhan.data.corpora.base import read_corpus
from merhan.data.loading import keep_readable, load_data
from merhan.data.manifest import write_manifest
from merhan.errors import InputError
from merhan.evaluation.evaluate import evaluate_split
from merhan.metrics.annotations import dimension_scores
from merhan.recipe.schema import DataRecipe
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import EmotionRecognitionPipeline, MerhanDataCollator


WORDS = {"anger": "how dare you", "joy": "what a day", "sadness": "all is lost"}
RECIPE = """
run_name: features
output_dir: {folder}/outputs
data:
  corpus: datasets
  source: {folder}/saved
  options: {{columns: {{audio_features: emotion2vec_features, text: transcript, valence: pleasure}}}}
  accept_leaks: [text]
model:
  audio_backbone: features
  text_backbone: tiny
  config: {{hidden_size: 32, intermediate_size: 32, dimensions: [valence]}}
stages: [{{name: fusion, epochs: 8, learning_rate: {{head: 3.0e-3}}}}]
trainer: {{report_to: none, use_cpu: true}}
evaluation: {{conditions: [audio]}}
"""


def vectors(kind: str, size: int = 60, seed: int = 0) -> datasets.Dataset:
    """Rows whose vectors tell the emotion; the words tell nothing, and valence follows the first component."""
    rng = np.random.default_rng(seed)
    rows = {"emotion2vec_features": [], "transcript": [], "label": [], "pleasure": [], "speaker": []}
    for number in range(size):
        label = list(WORDS)[number % 3]
        shape = (24,) if kind == "utterance" else (int(rng.integers(2, 9)), 24)
        level = rng.normal()
        vector = rng.normal(0, 0.3, shape).astype(np.float32)
        vector[..., number % 3] += 4
        vector[..., 5] += level
        rows["emotion2vec_features"].append(vector.tolist())
        rows["transcript"].append(WORDS[list(WORDS)[int(rng.integers(3))]])
        rows["label"].append(label)
        rows["pleasure"].append(4 + level)
        rows["speaker"].append(f"speaker {seed}")
    rows["pleasure"][0] = None
    return datasets.Dataset.from_dict(rows)


def require_usage(folder, data_set, predictions, monkeypatch, log):
    """The lines that the run and its card end with give the scores of the evaluation."""
    run = folder / "outputs/features"
    card = (run / "model/README.md").read_text(encoding="utf-8")
    assert "`audio_features`, of width 24" in card
    code = card.partition("```python\n")[2].partition("```")[0].replace("<this folder>", str(run / "model"))
    assert code.strip() in log
    np.save(folder / "audio.npy", np.array(data_set[0]["emotion2vec_features"]))
    monkeypatch.chdir(folder)
    names = {}
    exec(code.replace("I cannot believe it!", data_set[0]["transcript"]).replace("print(", "scores = ("), names)
    scores = {entry["label"]: entry["score"] for entry in names["scores"]}
    logits = torch.tensor(predictions["logits"][0]) / predictions["temperature"][0]
    labels = [names["recogniser"].model.config.id2label[number] for number in range(len(logits))]
    assert scores == pytest.approx(dict(zip(labels, logits.softmax(dim=0).tolist(), strict=True)), abs=1e-4)


@pytest.mark.parametrize("kind", ["utterance", "frame"])
def test_a_data_set_of_vectors_and_words_trains_as_it_is(kind, monkeypatch, tmp_path, caplog, capsys):
    splits = {"train": vectors(kind), "validation": vectors(kind, 12, 1), "test": vectors(kind, 30, 2)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    call(train_hf_e2e, monkeypatch, "--config", tmp_path / "recipe.yaml")
    test = tmp_path / "outputs/features/evaluation/test"
    figures, rows = json.loads((test / "metrics.json").read_text()), pd.read_parquet(test / "predictions.parquet")
    assert figures["uar"] > 0.9, "the vectors tell the emotion"
    alone = json.loads((test.with_name("test--audio") / "metrics.json").read_text())
    assert alone["n"] == 30
    assert rows["utterance_id"].is_monotonic_increasing and list(rows["label"]) == splits["test"]["label"][:]
    known = rows[rows["valence"].notna()]
    assert len(known) == 29
    np.testing.assert_allclose(known["valence"], splits["test"]["pleasure"][1:], rtol=1e-6)
    expected = dimension_scores(known["valence_prediction"], known["valence"])
    assert figures["dimensions"] == {"valence": pytest.approx(expected)} and expected["ccc"] > 0.2
    model = MerhanForSequenceClassification.from_pretrained(tmp_path / "outputs/features/model")
    require_usage(tmp_path, splits["test"], rows, monkeypatch, capsys.readouterr().out + caplog.text)
    assert model.config.audio_config.hidden_size == 24 and model.merhan.audio_backbone is None


@pytest.fixture
def vector_pipeline(processor) -> EmotionRecognitionPipeline:
    """A pipeline of an untrained model of vectors of width 5 and words."""
    config = tiny_config(None, vocab_size=len(processor.tokenizer))
    config.audio_config = MerhanFeaturesConfig(hidden_size=5)
    processor = copy.copy(processor)
    processor.modalities = ["text"]
    torch.manual_seed(0)
    model = MerhanForSequenceClassification(config).eval()
    model.merhan.text_backbone.resize_token_embeddings(len(processor.tokenizer))
    return EmotionRecognitionPipeline(model=model, processor=processor, device="cpu")


def test_the_pipeline_reads_vectors(vector_pipeline):
    rng = np.random.default_rng(0)
    frames, vector = rng.normal(size=(7, 5)), rng.normal(size=5)
    forms = [{"audio_features": frames, "text": "so late"}, {"audio_features": vector.tolist()}, {"text": "so late"}]
    forms += [{"audio_features": torch.tensor(frames), "text": "so late"}]
    together = vector_pipeline(forms, batch_size=4)
    for form, scores in zip(forms, together, strict=True):
        alone = vector_pipeline(form)
        assert [entry["label"] for entry in alone] == [entry["label"] for entry in scores]
        assert [entry["score"] for entry in alone] == pytest.approx([entry["score"] for entry in scores], abs=1e-5)
    assert together[0][0]["score"] == pytest.approx(together[3][0]["score"])
    assert list(vector_pipeline(iter(forms))) == vector_pipeline(forms, batch_size=8)
    data_set = datasets.Dataset.from_dict({"audio_features": [frames.tolist()], "text": ["so late"], "other": [1]})
    assert list(vector_pipeline(data_set))[0][0]["score"] == pytest.approx(together[0][0]["score"])
    explained = vector_pipeline(forms[0], explain=True)
    assert set(explained["contributions"]) == {"audio", "text"} and explained["seconds"] == []
    batch = MerhanDataCollator(vector_pipeline.processor)([{**form, "label": 0} for form in forms])
    assert batch["audio_features_mask"].sum(dim=1).tolist() == [7, 1, 0, 7] and batch["labels"].tolist() == [0] * 4


WRONG_VECTORS = [
    ({"audio": "a.wav"}, "audio: this model reads audio_features and text"),
    ({"text_features": [1.0] * 5}, "text_features: this model reads audio_features and text"),
    ({"audio_features": [1.0] * 6}, "audio_features: are of width 6, and this model reads 5"),
    ({"audio_features": "a.npy"}, "audio_features: is of type str; give an array of floats"),
    ({"audio_features": [[1.0] * 5, [1.0]]}, "audio_features: is of type list; give an array"),
    ({"audio_features": [[[1.0] * 5]]}, r"audio_features: has the shape \(1, 1, 5\)"),
    ({"audio_features": []}, r"audio_features: has the shape \(0,\)"),
    ({"audio_features": [1.0, 2.0, 3.0, 4.0, np.nan]}, "all finite"),
    ({"audio_features": [1.0] * 5, "video_features": 1}, "unknown: video_features"),
    ({}, "Nothing to read|neither"),
]


@pytest.mark.parametrize(("wrong", "expected"), WRONG_VECTORS, ids=lambda value: str(value)[:30])
def test_wrong_vectors_are_named(wrong, expected, vector_pipeline):
    with pytest.raises(ValueError, match=expected):
        vector_pipeline(wrong)


def test_vectors_are_refused_by_a_model_of_sound(recogniser):
    with pytest.raises(ValueError, match="audio_features: this model reads audio and text"):
        recogniser({"audio_features": [1.0] * 5})


def test_vectors_of_several_widths_and_none_at_all_are_refused(monkeypatch, tmp_path, capsys):
    wide = vectors("utterance", 12, 1)
    wide = wide.map(lambda row: {"emotion2vec_features": row["emotion2vec_features"] + [0.0]})
    whole = {"train": vectors("utterance"), "validation": wide, "test": vectors("utterance", 30, 2)}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))

    def refused(*changes) -> str:
        with pytest.raises(SystemExit) as ended:
            call(train_hf_e2e, monkeypatch, "--config", tmp_path / "recipe.yaml", *changes)
        assert ended.value.code == 2 and not (tmp_path / "outputs").exists()
        return capsys.readouterr().err

    assert "audio_features: holds vectors of several widths, 24, 25" in refused()
    columns = "data.options.columns={text: transcript}"
    without = ["--set", columns, "--set", "model.config.dimensions=[]", "--set", "data.accept_leaks=[text, validation]"]
    assert "reads the column audio_features" in refused(*without)
    rate = "stages=[{name: x, epochs: 1, learning_rate: {head: 1.0e-3, audio: 1.0e-3}}]"
    assert "the model has no audio backbone to train" in refused("--set", rate)


def test_columns_of_vectors_become_files_with_the_same_numbers(tmp_path):
    split = vectors("frame", 6)
    datasets.DatasetDict(train=split).save_to_disk(tmp_path)
    columns = {"audio_features": "emotion2vec_features", "text": "transcript", "valence": "pleasure"}
    rows = read_corpus("datasets", tmp_path, columns=columns).rows
    for file, row in zip(rows["audio_features"], split, strict=True):
        np.testing.assert_array_equal(np.load(file), np.array(row["emotion2vec_features"], dtype=np.float32))


def test_a_row_has_a_modality_if_the_model_can_read_it(demo):
    rows = demo.head(3).assign(text="", audio=["a.wav", "", "c.wav"], audio_features=["", "b.npy", "c.npy"])
    for raw, kept, missing in (([], [1, 2], "audio_features"), (["audio"], [0, 2], "audio")):
        found, notes = keep_readable(rows, ["audio"], raw, "m")
        assert found["utterance_id"].tolist() == rows["utterance_id"].iloc[kept].tolist()
        assert notes == [f"m: 1 of 3 rows left out, they have no {missing}"]
    with pytest.raises(InputError, match="no row has text or audio_features, which"):
        keep_readable(rows.head(1), ["text", "audio"], ["text"], "m")
    with pytest.raises(InputError, match="no row has text_features, which"):
        keep_readable(demo, ["text"], [], "m")


def test_rows_of_vectors_alone_are_left_out_for_a_model_that_reads_audio(demo, trained_like, processor, tmp_path):
    rows = demo[demo["split"] == "test"].head(8).assign(audio_features="")
    rows.iloc[0, [rows.columns.get_loc(name) for name in ("audio", "text", "audio_features")]] = ["", "", "a.npy"]
    np.save(tmp_path / "a.npy", np.zeros(24, dtype=np.float32))
    write_manifest(rows.replace("a.npy", str(tmp_path / "a.npy")), tmp_path / "m.csv")
    recipe = DataRecipe("manifest", str(tmp_path / "m.csv"))
    data = load_data(recipe, ["audio", "text"], processor.modalities, "test")
    assert len(data.rows) == 7 and "1 of 8 rows left out, they have no audio and no text" in data.notes[-1]
    whole = data._replace(rows=rows.assign(duration=1.0))
    assert evaluate_split(trained_like.eval(), processor, whole, "test", tmp_path / "e")["n"] == 7


def test_a_model_without_backbones_reads_features_and_nothing_else(tmp_path):
    config = tiny_config(None, text=False)
    config = type(config)(
        audio_config=MerhanFeaturesConfig(hidden_size=24),
        text_config=MerhanFeaturesConfig(hidden_size=8),
        hidden_size=16,
        num_attention_heads=2,
    )
    model = MerhanForSequenceClassification(config).eval()
    given = {"audio_features": torch.randn(2, 5, 24), "text_features": torch.randn(2, 1, 8)}
    with torch.no_grad():
        before = model(**given).logits
        model.save_pretrained(tmp_path)
        again = MerhanForSequenceClassification.from_pretrained(tmp_path).eval()
        assert torch.equal(again(**given).logits, before)
        assert again(audio_features=given["audio_features"]).logits.isfinite().all()
    with pytest.raises(ValueError, match="no audio backbone; give audio_features"):
        model(input_values=torch.randn(2, 8000))
