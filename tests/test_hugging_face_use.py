"""Model, processor and pipeline used as people use any other of transformers: pipelines, Trainer, data sets."""

import subprocess
import sys
import sysconfig

import datasets
import numpy as np
import pytest
import torch
from conftest import LABEL2ID
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from merhan.models.building import build_model, build_processor
from merhan.recipe.schema import DataRecipe, ModelRecipe
from processing_merhan import EmotionRecognitionPipeline, MerhanDataCollator


RATE = 16_000
TEXTS = ["the dinner was lovely", "no", "his answer is ghastly"]


@pytest.fixture
def paths(tone):
    return [str(tone(f"{number}.wav", seconds=0.6 + number / 5)) for number in range(3)]


def scores_of(results) -> np.ndarray:
    return np.array([[entry["score"] for entry in sorted(row, key=lambda entry: entry["label"])] for row in results])


# --- the pipeline ---


def test_options_count_at_construction_and_a_call_overrides_them(trained_like, processor, paths, monkeypatch):
    options = {"model": trained_like, "processor": processor, "device": "cpu"}
    first = EmotionRecognitionPipeline(**options, top_k=1, batch_size=2)
    sizes = []
    preprocess = first.preprocess
    monkeypatch.setattr(
        first,
        "preprocess",
        lambda inputs, **more: sizes.append(len(inputs["utterances"])) or preprocess(inputs, **more),
    )
    assert [len(scores) for scores in first(paths)] == [1, 1, 1] and sizes == [2, 1]
    assert len(first(paths[0], top_k=3)) == 3 and len(first(paths, batch_size=3)) == 3 and sizes == [2, 1, 1, 3]
    explained = EmotionRecognitionPipeline(**options, explain=True)
    assert set(explained(paths[0], text=TEXTS[0])) == {"scores", "contributions", "words", "seconds"}
    assert [len(result["scores"]) for result in explained(paths)] == [4, 4, 4]
    assert isinstance(explained(paths[0], explain=False), list)


def test_a_batch_size_that_is_none_is_refused_at_construction_too(trained_like, processor):
    made = EmotionRecognitionPipeline(model=trained_like.eval(), processor=processor, batch_size=0)
    with pytest.raises(ValueError, match="batch_size: 0 is not a number of utterances"):
        made(text="no")


def test_a_label_that_only_some_rows_have_is_an_error(processor):
    with pytest.raises(KeyError, match="label"):
        MerhanDataCollator(processor)([{"text": "no"}, {"text": "yes", "label": 1}])


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2"])
def test_a_number_of_labels_that_is_none_is_refused(recogniser, top_k):
    with pytest.raises(ValueError, match="top_k: .* is not a number of labels"):
        recogniser(text="no", top_k=top_k)


def test_a_pipeline_takes_a_loaded_model_by_the_name_of_its_task(trained_like, processor, recogniser, paths):
    made = pipeline("emotion-recognition", model=trained_like, processor=processor, device="cpu")
    np.testing.assert_allclose(scores_of(made(paths)), scores_of(recogniser(paths)), atol=1e-6)


def test_streams_give_an_iterator_that_reads_as_it_goes(recogniser, paths):
    expected = scores_of(recogniser(paths, text=TEXTS))
    taken = []

    def utterances():
        for path, text in zip(paths, TEXTS, strict=True):
            taken.append(path)
            yield {"audio": path, "text": text}

    results = recogniser(utterances(), batch_size=1)
    next(results)
    assert len(taken) == 1, "one batch is read at a time"
    assert len(list(results)) == 2
    rows = [{"audio": path, "text": text, "id": 3} for path, text in zip(paths, TEXTS, strict=True)]
    data = datasets.Dataset.from_list(rows)
    streams = {
        "generator": (utterances(), {}),
        "data set": (data, {}),
        "iterable data set": (data.to_iterable_dataset(), {}),
        "columns": (data["audio"], {"text": data["text"]}),
        "KeyDatasets": (KeyDataset(data, "audio"), {"text": KeyDataset(data, "text")}),
        "a stream beside a list": ((path for path in paths), {"text": TEXTS}),
    }
    for name, (audio, more) in streams.items():
        np.testing.assert_allclose(scores_of(recogniser(audio, **more)), expected, atol=1e-5, err_msg=name)
    words = recogniser(text=KeyDataset(data, "text"))
    np.testing.assert_allclose(scores_of(words), scores_of(recogniser(text=TEXTS)), atol=1e-5)


def test_a_stream_that_cannot_be_read_is_refused(recogniser, paths):
    with pytest.raises(ValueError, match="no column `audio` or `text`, but sound, words"):
        list(recogniser(datasets.Dataset.from_list([{"sound": "a.wav", "words": "no"}])))
    with pytest.raises(ValueError, match="text: is a single value beside a stream"):
        list(recogniser((path for path in paths), text="no"))
    with pytest.raises(ValueError, match="zip"):
        list(recogniser((path for path in paths), text=TEXTS[:2]))


def test_the_first_argument_of_a_model_of_text_is_its_text(demo):
    recipe = ModelRecipe(text_backbone="tiny")
    words = EmotionRecognitionPipeline(
        model=build_model(recipe, list(LABEL2ID), demo).eval(), processor=build_processor(recipe, DataRecipe(), demo)
    )
    assert words("no") == words(text="no")
    assert words(TEXTS) == words(text=TEXTS) == words([{"text": text} for text in TEXTS])
    assert list(words(text for text in TEXTS)) == words(TEXTS)
    with pytest.raises(ValueError, match="reads text only"):
        words({"array": np.zeros(RATE), "sampling_rate": RATE})


ELSEWHERE = f"""
import sys; sys.path.append({sysconfig.get_paths()["purelib"]!r})
import json
from transformers import pipeline
trust = {{"trust_remote_code": True, "device": "cpu"}}
first = pipeline("emotion-recognition", model=sys.argv[1], **trust)
first.save_pretrained("saved")
expected = first(sys.argv[2], text="no")
for task in ("emotion-recognition", "audio-classification"):
    for folder in (sys.argv[1], "saved"):
        again = pipeline(task, model=folder, **trust)
        assert again(sys.argv[2], text="no") == expected, (task, folder)
try:
    pipeline("audio-classification", model="saved", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
    print("DONE")
"""


def test_a_saved_pipeline_loads_elsewhere_also_under_the_task_that_the_hub_names(recogniser, paths, cache, tmp_path):
    """The stock audio-classification pipeline would drop the text, and give scores that are not calibrated."""
    recogniser.model.config.temperature = {"audio+text": 0.3}
    recogniser.save_pretrained(tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    assert str(cache) not in config and "_name_or_path" not in config, "no path of this machine travels"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-S", "-c", ELSEWHERE, str(tmp_path / "model"), paths[0]]
    process = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert "DONE" in process.stdout, process.stderr[-2000:]


# --- the processor ---


def test_tensors_of_numpy_are_those_of_torch(processor, paths):
    arrays, tensors = processor(paths, TEXTS, return_tensors="np"), processor(paths, TEXTS)
    assert set(arrays) == set(tensors) and all(isinstance(array, np.ndarray) for array in arrays.values())
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, tensors[name].numpy())


def test_padding_and_truncation(processor, paths, tone):
    fixed, longest = (processor(paths, TEXTS, padding=padding) for padding in ("max_length", "longest"))
    assert fixed["input_values"].shape == (3, round(processor.max_seconds * RATE))
    assert fixed["input_ids"].shape == (3, processor.max_tokens)
    size = longest["input_values"].shape[1]
    torch.testing.assert_close(fixed["input_values"][:, :size], longest["input_values"])
    assert torch.equal(fixed["audio_attention_mask"].sum(dim=1), longest["audio_attention_mask"].sum(dim=1))
    long = tone("long.wav", seconds=processor.max_seconds + 1)
    assert processor(long)["input_values"].shape[1] == round(processor.max_seconds * RATE)
    assert processor(long, truncation=False)["input_values"].shape[1] == round((processor.max_seconds + 1) * RATE)
    assert processor(paths[0], "no", padding=False)["input_ids"].shape[0] == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"return_tensors": "tf"}, "return_tensors: 'tf' is not one of 'pt', 'np'"),
        ({"padding": "shortest"}, "padding: 'shortest' is not one of"),
        ({"padding": False}, "padding=False: 3 utterances do not fit"),
    ],
)
def test_options_that_cannot_be_met_are_refused(processor, options, expected):
    with pytest.raises(ValueError, match=expected):
        processor(text=TEXTS, **options)


# --- Trainer ---


@pytest.mark.parametrize("noise", [None, 5.0])
def test_a_plain_trainer_trains_it(trained_like, processor, demo, tmp_path, noise):
    """With NEFTune's noise on the token embeddings, too, which changes the loss in training and nothing afterwards."""
    rows = [
        {"audio": row.audio, "text": row.text, "label": LABEL2ID[row.label], "speaker": row.speaker}
        for row in demo.head(8).itertuples()
    ]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-3, report_to="none",
        remove_unused_columns=False, neftune_noise_alpha=noise, logging_steps=1, save_strategy="no", use_cpu=True,
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    trainer = Trainer(
        trained_like, arguments, train_dataset=datasets.Dataset.from_list(rows), eval_dataset=rows,
        data_collator=MerhanDataCollator(processor),
    )  # fmt: skip
    hooks = []
    if noise:
        embeddings = trained_like.get_input_embeddings()
        forward = embeddings.forward
        embeddings.forward = lambda ids: hooks.append(getattr(embeddings, "neftune_noise_alpha", None)) or forward(ids)
    trainer.train()
    assert set(hooks) <= {noise} and bool(hooks) == bool(noise)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trained_like.state_dict().items())
    assert trainer.evaluate()["eval_loss"] > 0
    predictions = trainer.predict(rows)
    assert predictions.predictions.shape == (8, 4) and list(predictions.label_ids) == [row["label"] for row in rows]


def test_a_model_folder_with_a_backbone_of_our_own_loads_as_remote_code(make_model, tmp_path):
    make_model("light").save_pretrained(tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert loaded.config.audio_config.model_type == "merhan_audio"
