"""Data sets of the `datasets` library: every form of sound, of labels and of splits."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from hub_server import running_hub

from merhan import api
from merhan.data.corpora.base import read_corpus
from merhan.data.loading import load_data
from merhan.errors import InputError
from merhan.prediction.predict import Predictor
from merhan.recipe.schema import DataRecipe
from processing_merhan import decode_audio


RATE = 16_000
LABELS = ["anger", "joy", "sadness"]
SPLITS = ["train", "train", "validation", "test"]


def sound(number: int, dtype: str = "float64") -> np.ndarray:
    """Half a second of noise, another one for each number."""
    wave = 0.3 * np.random.default_rng(number).uniform(-1, 1, RATE // 2)
    if dtype.startswith("int"):
        return (wave * np.iinfo(dtype).max).astype(dtype)
    return wave.astype(dtype)


def encoded(number: int, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(number, "int16"), RATE, format=kind)
    return file.getvalue()


def samples(dtype: str, key: str = "array"):
    return lambda number: {key: sound(number, dtype), "sampling_rate": RATE}


# Form of a cell -> a cell, by the number of its row.
FORMS = {
    "float64 array": samples("float64"),
    "float32 array": samples("float32"),
    "int16 array": samples("int16"),
    "int32 array": samples("int32"),
    "raw": samples("float32", "raw"),
    "stereo": lambda number: {"array": [list(sound(number))] * 2, "sampling_rate": RATE},
    "flac bytes": lambda number: encoded(number, "FLAC"),
    "wav bytes": lambda number: encoded(number, "WAV"),
    "bytes and path": lambda number: {"bytes": encoded(number, "FLAC"), "path": "a.flac"},
    "bytes without path": lambda number: {"bytes": encoded(number, "WAV"), "path": None},
}


def shard(folder: Path, cell) -> Path:
    """A Parquet file of twelve rows with all splits."""
    path = folder / "shard.parquet"
    numbers = range(len(SPLITS) * len(LABELS))
    rows = {
        "audio": [cell(number) for number in numbers],
        "label": [LABELS[number % 3] for number in numbers],
        "split": [SPLITS[number // 3] for number in numbers],
    }
    datasets.Dataset.from_dict(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("reader", ["datasets", "table"])
@pytest.mark.parametrize("form", FORMS)
def test_sound_within_the_cells(form, reader, tmp_path):
    rows = read_corpus(reader, shard(tmp_path, FORMS[form])).rows
    assert rows["split"].tolist() == [split for split in SPLITS for _ in LABELS]
    for number in (0, 11):
        waveform, rate = decode_audio(rows["audio"].iloc[number])
        assert rate == RATE and waveform.shape[1] == RATE // 2
        np.testing.assert_allclose(waveform[0], sound(number), atol=1e-4)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (lambda number: 7, "column 'audio'.*row 1: holds int, which is no sound; give a path"),
        (lambda number: [0.5, 0.25], "holds (list|ndarray), which is no sound"),
        (lambda number: {"sound": "a.wav"}, "holds the keys 'sound', which are no sound"),
        (lambda number: {"array": [0.1], "rate": 8000}, "sampling_rate is None"),
        (lambda number: {"array": [0.1], "sampling_rate": 0}, "sampling_rate is"),
        (lambda number: {"array": [1, 2], "sampling_rate": 8000}, "int64, which has no defined full scale"),
        (lambda number: {"array": [-9000.0, 1.0], "sampling_rate": 8000}, "samples up to 9000; scale them"),
        (lambda number: "", "'audio' .*is read as audio, and all of its 12 cells are empty; .*columns.audio=null"),
        (lambda number: None, "is read as audio, and all of its 12 cells are empty"),
    ],
)
@pytest.mark.parametrize("reader", ["datasets", "table"])
def test_a_column_without_sound_is_refused(cell, expected, reader, tmp_path):
    with pytest.raises(InputError, match=expected):
        read_corpus(reader, shard(tmp_path, cell))


def test_an_audio_feature_with_missing_cells(tmp_path, tone):
    """A row whose sound is None stays with its words."""
    path = shard(tmp_path, lambda number: None if number == 4 else encoded(number, "WAV"))
    rows = datasets.load_dataset("parquet", data_files=str(path))["train"]
    cells = [None if cell is None else {"bytes": cell, "path": None} for cell in rows["audio"]]
    rows = rows.remove_columns("audio").add_column("audio", cells).cast_column("audio", datasets.Audio(decode=False))
    rows.add_column("text", ["word"] * 12).save_to_disk(tmp_path / "saved")
    again = read_corpus("datasets", tmp_path / "saved").rows
    assert (again["audio"] == "").tolist() == [number == 4 for number in range(12)]


@pytest.mark.parametrize(
    "names", [("train", "val", "eval"), ("training", "dev", "testing"), ("Train", "valid", "test")]
)
def test_other_names_of_splits(names, tmp_path):
    part = datasets.Dataset.from_dict({"text": ["yes", "no"], "label": ["joy", "anger"]})
    datasets.DatasetDict(dict.fromkeys(names, part)).save_to_disk(tmp_path / "saved")
    rows = read_corpus("datasets", tmp_path / "saved").rows
    assert rows["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_eval_beside_test_is_for_validation(tmp_path):
    part = datasets.Dataset.from_dict({"text": ["yes", "no"], "label": ["joy", "anger"]})
    datasets.DatasetDict(train=part, eval=part, test=part).save_to_disk(tmp_path / "saved")
    rows = read_corpus("datasets", tmp_path / "saved").rows
    assert rows["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


@pytest.mark.parametrize("hidden", [-1, None])
def test_hidden_labels_are_left_out_and_counted(hidden, tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)})
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, hidden, 2]}, features=features)
    part.save_to_disk(tmp_path / "saved")
    corpus = read_corpus("datasets", tmp_path / "saved")
    assert corpus.rows["label"].tolist() == ["anger", "sadness"]
    assert corpus.notes == ["1 left out: the label is empty or hidden"]
    assert corpus.rows["utterance_id"].tolist() == ["saved-000001", "saved-000003"]


def hidden_test():
    """A data set whose test has no labels."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)})
    for name, labels in {"train": [0, 1] * 6, "validation": [0, 1] * 3, "test": [-1] * 4}.items():
        rows = {"text": [f"{name} says {number}" for number in range(len(labels))], "label": labels}
        yield name, datasets.Dataset.from_dict(rows, features=features)


def test_a_test_whose_labels_are_hidden(tmp_path, trained_like, processor):
    datasets.DatasetDict(hidden_test()).save_to_disk(tmp_path / "saved")
    sentence = "split test: its labels are hidden \\(all 4 rows\\); `merhan predict` scores it"
    recipe = DataRecipe(corpus="datasets", source=str(tmp_path / "saved"))
    with pytest.raises(
        InputError, match=f"test split is empty.* {sentence}; divide the labelled rows by data.protocol"
    ):
        load_data(recipe, ["text"], ["text"])
    recipe = replace(recipe, protocol="random", accept_leaks=["speaker", "text"])
    data = load_data(recipe, ["text"], ["text"])
    assert len(data.rows) == 18 and set(data.rows["split"]) == {"train", "validation", "test"}
    assert any(re.match(sentence, note) for note in data.notes)
    table = Predictor(trained_like.eval(), processor).table(str(tmp_path / "saved"))
    assert len(table) == 22 and table["error"].isna().all(), "labels are not needed for a prediction"


def test_a_split_without_the_label_column(tmp_path):
    part = datasets.Dataset.from_dict({"text": ["yes", "no"], "label": ["joy", "anger"]})
    hidden = part.remove_columns("label")
    datasets.DatasetDict(train=part, validation=part, test=hidden).save_to_disk(tmp_path / "saved")
    corpus = read_corpus("datasets", tmp_path / "saved")
    assert len(corpus.rows) == 4
    left_out, remark = corpus.notes
    assert left_out == "2 left out: the label is empty or hidden" and remark.startswith("split test: its labels are")
    hidden.save_to_disk(tmp_path / "none")
    with pytest.raises(InputError, match="has no column 'label'; known are text"):
        read_corpus("datasets", tmp_path / "none")


@pytest.mark.parametrize("dtype", ["int8", "int64", "float64", "string"])
def test_class_ids_with_a_label_map(dtype, tmp_path):
    """The ids of a recipe are numbers; those of a column with empty cells are floats in pandas."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value(dtype)})
    ids = [0, 1, 2] if dtype != "string" else ["0", "1", "2"]
    rows = {"text": ["a", "b", "c", "d"], "label": [*ids, None]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    corpus = read_corpus("datasets", tmp_path / "saved", dict(enumerate(LABELS)))
    assert corpus.rows["label"].tolist() == LABELS and len(corpus.skipped) == 1
    with pytest.raises(InputError, match=r"labels '0' .1 rows., '1' .1 rows., '2' .1 rows. are not in the vocabulary"):
        read_corpus("datasets", tmp_path / "saved")


def test_a_data_set_that_needs_a_missing_package(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from ImportError("install 'torchcodec'")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(InputError, match="cannot be loaded as a data set .install 'torchcodec'"):
        read_corpus("datasets", tmp_path)


def audio_folder(folder: Path) -> Path:
    for number in range(len(SPLITS) * len(LABELS)):
        path = folder / "data" / SPLITS[number // 3] / LABELS[number % 3] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number, "WAV"))
    return folder / "data"


def test_an_audiofolder(tmp_path):
    rows = read_corpus("datasets", audio_folder(tmp_path)).rows
    assert rows.groupby("split")["label"].value_counts().to_dict() == {
        (split, label): SPLITS.count(split) for split in SPLITS for label in LABELS
    }
    for path, label in zip(rows["audio"], rows["label"], strict=True):
        assert Path(path).parent.name == label


def test_an_audiofolder_with_metadata(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(encoded(number, "WAV"))
    table = pd.DataFrame({"file_name": [f"{number}.wav" for number in range(4)], "feeling": ["joy", "anger"] * 2})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    rows = read_corpus("datasets", tmp_path, columns={"label": "feeling"}).rows
    assert rows["label"].tolist() == ["joy", "anger"] * 2
    assert [Path(path).name for path in rows["audio"]] == [f"{number}.wav" for number in range(4)]


# --- a recipe of ten lines ---

RECIPE = """\
run_name: own
output_dir: {folder}/outputs
data:
  corpus: datasets
  source: {source}
  {extra}
model: {{audio_backbone: tiny}}
stages: [{{name: train, epochs: 1, learning_rate: {{head: 1.0e-3}}}}]
trainer: {{per_device_train_batch_size: 4}}
"""


@pytest.mark.parametrize("kind", ["struct with a label of ones own", "audiofolder", "flac with integer labels"])
def test_each_form_trains_from_ten_lines(kind, tmp_path):
    extra = "min_seconds: 0.5"
    if kind == "audiofolder":
        source = audio_folder(tmp_path)
    elif kind == "struct with a label of ones own":
        source = shard(tmp_path, FORMS["float32 array"])
        rows = pd.read_parquet(source)
        rows.replace({"label": {"joy": "stress"}}).to_parquet(source)
        extra = "own_labels: [stress]"
    else:
        source = shard(tmp_path, FORMS["flac bytes"])
        rows = pd.read_parquet(source)
        rows["label"] = rows["label"].map(LABELS.index)
        rows.rename(columns={"audio": "audio_flac"}).to_parquet(source)
        extra = "label_map: {0: anger, 1: joy, 2: sadness}\n  options: {columns: {audio: audio_flac}}"
    recipe = tmp_path / "own.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path, source=source, extra=extra), encoding="utf-8")
    assert len(recipe.read_text(encoding="utf-8").splitlines()) <= 10
    run = api.train(recipe)
    predictions = pd.read_parquet(run / "evaluation" / "test" / "predictions.parquet")
    assert len(predictions) == 3
    if "own_labels" in extra:
        assert "stress" in (run / "model" / "README.md").read_text(encoding="utf-8")


READ_FROM_HUB = """
import json, sys
from merhan.data.corpora.base import read_corpus
from merhan.errors import InputError
columns = {"audio": "recording", "text": "transcript", "label": "emotion", "audio_features": "vectors"}
results = []
for streaming in (False, True):
    corpus = read_corpus("datasets", sys.argv[1], columns=columns, streaming=streaming)
    results.append([corpus.rows.to_dict("records"), list(corpus.notes)])
    first = read_corpus("datasets", sys.argv[2], columns=columns, streaming=streaming)
    assert first.rows["text"].tolist() == ["first"] and first.rows["corpus"].tolist() == ["my-set"], first.rows
try:
    read_corpus("datasets", "me/none", columns=columns, streaming=True)
except InputError as error:
    results.append(str(error))
print(json.dumps(results))
"""


@pytest.mark.parametrize("form", ["int16 array", "Audio"])
def test_a_data_set_of_the_hub_by_name_and_streamed(form, tmp_path):
    rows = {"recording": [samples("int16")(number) for number in range(3)]}
    features = datasets.Features({"recording": {"array": datasets.List(datasets.Value("int16"))}})
    features["recording"]["sampling_rate"] = datasets.Value("int64")
    if form == "Audio":
        rows = {"recording": [{"bytes": encoded(number, "FLAC"), "path": "a.flac"} for number in range(3)]}
        features = datasets.Features(
            {"recording": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
        )
    features |= {"transcript": datasets.Value("string"), "emotion": datasets.ClassLabel(names=LABELS)}
    features["vectors"] = datasets.List(datasets.Value("float32"))
    rows |= {"transcript": ["a", "b", "c"], "emotion": [0, -1, 2], "vectors": [[1.0, 2.0], None, [3.0, 4.0]]}
    data_set = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    if form == "Audio":
        data_set = data_set.cast_column("recording", datasets.Audio())
    data_set.to_parquet(tmp_path / "shard.parquet")
    with running_hub() as hub:
        hub.commits["me/my-set"] = []
        rows = data_set.select([0]).map(lambda _: {"transcript": "first"})
        rows.to_parquet(tmp_path / "first.parquet")
        for file in ("first", "shard"):
            content = (tmp_path / f"{file}.parquet").read_bytes()
            hub.commit("me/my-set", {"data/train-00000-of-00001.parquet": content})
        first = hub.commits["me/my-set"][0][0]
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "TQDM_DISABLE": "1"}
        own |= {"HF_HOME": str(tmp_path / "hf"), "MERHAN_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", READ_FROM_HUB, "me/my-set", f"me/my-set@{first}"]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (whole, whole_notes), (streamed, notes), refused = json.loads(done.stdout)
    assert whole == streamed and len(whole) == 2 and notes == whole_notes
    assert notes == ["1 left out: the label is empty or hidden"] and [row["label"] for row in whole] == LABELS[::2]
    np.testing.assert_allclose(decode_audio(whole[1]["audio"])[0][0], sound(2, "int16") / 2**15, atol=1e-4)
    np.testing.assert_array_equal(np.load(whole[1]["audio_features"]), [3.0, 4.0])
    assert "'me/none' cannot be loaded as a data set" in refused


def test_streaming_is_for_the_hub(tmp_path):
    with pytest.raises(InputError, match="streaming is for names on the Hub"):
        read_corpus("datasets", tmp_path, streaming=True)
