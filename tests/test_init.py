"""`merhan init`: guesses about folders and tables, and the recipe that is written for them."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from merhan.cli import main as cli
from merhan.data.first_look import guess_columns, look
from merhan.data.loading import check_data
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe


LABELS = ("angry", "joy", "sad")
MEANINGS = {"angry": "anger", "joy": "joy", "sad": "sadness"}
SPEAKERS = ("anna", "ben", "cara", "dan")
COMBINATIONS = list(itertools.product(SPEAKERS, LABELS, ("01", "02")))


def write(path: Path, number: int):
    """Half a second of noise with a rhythm of its own, so that it is no copy of another one."""
    noise = 0.1 * np.random.default_rng(number).standard_normal(8000)
    noise[300 * number : 300 * number + 2000] *= 0.001
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, 16_000)


# How a corpus names its files, with the label, the speaker and the take.
LAYOUTS = [
    "{speaker}_{label}_{take}",
    "{label}-{take}-{speaker}",
    "{take}.{speaker}.{label}",
    "{speaker} {label} {take}",
    "{label}/{speaker}_{take}",
    "{label}/{speaker}/{take}",
    "{speaker}/{label}_{take}",
    "{speaker}/session{take}/{label}",
    "data/{label}/{take}_{speaker}",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_and_speakers_of_names(layout, tmp_path):
    for number, (speaker, label, take) in enumerate(COMBINATIONS):
        name = layout.format(speaker=speaker, label=label.upper() if number % 2 else label, take=take)
        write(tmp_path / "clips" / f"{name}.wav", number)
    first_look = look(tmp_path / "clips")
    rows = first_look.table
    expected = {layout.format(speaker=s, label=w, take=t).lower() + ".wav": (w, s) for s, w, t in COMBINATIONS}
    for row in rows.itertuples():
        assert (row.label.lower(), row.speaker) == expected[row.file.lower()]
    meanings = {word.lower(): label for word, label in first_look.labels.items()}
    assert meanings == MEANINGS and first_look.notes == []


@pytest.mark.parametrize("layout", LAYOUTS[:4])
def test_takes_are_no_speakers(layout, tmp_path):
    """Though there are more of them than speakers, and each occurs with every label."""
    for number, (speaker, label, take) in enumerate(itertools.product(SPEAKERS[:2], LABELS, range(4))):
        write(tmp_path / "clips" / f"{layout.format(speaker=speaker, label=label, take=take)}.wav", number)
    assert set(look(tmp_path / "clips").table["speaker"]) == set(SPEAKERS[:2])


@pytest.mark.parametrize("splits", [("train", "test"), ("train",)])
def test_a_table_without_all_splits_is_divided(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path, {name: name for name in NAMES[0]})
    rows["split"] = [splits[number % len(splits)] for number in range(len(rows))]
    rows.to_csv("mine.csv", index=False)
    cli.main(["init", "mine.csv"])
    data = load_recipe("mine.yaml").data
    assert data.protocol == "grouped:speaker"
    assert "train 12" in check_data(data, ["audio"], ["audio"])[0]


def test_splits_and_transcripts_of_a_folder(tmp_path):
    for number, split in enumerate(("train", "dev", "test")):
        for label in LABELS:
            path = tmp_path / "clips" / split / label / f"{number}{label[0]}.wav"
            write(path, number)
            path.with_suffix(".txt").write_text(f"words of {label}", encoding="utf-8")
    rows = look(tmp_path / "clips").table
    assert list(rows.columns) == ["file", "label", "split", "text"]
    assert rows["split"].value_counts().to_dict() == {"train": 3, "dev": 3, "test": 3}
    assert set(rows["text"]) == {f"words of {label}" for label in LABELS}


def test_names_without_a_label_are_counted(tmp_path):
    for number, name in enumerate(["anna_joy", "anna_sad", "ben_joy", "ben_sad", "noise", "joy_sad_mixed"]):
        write(tmp_path / "clips" / f"{name}.wav", number)
    first_look = look(tmp_path / "clips")
    assert first_look.table["label"].tolist() == ["joy", "sad", "joy", "sad", "", ""]
    assert first_look.notes == ["2 of 6 recordings have no label in their name, as joy_sad_mixed.wav"]


def test_a_folder_without_labels_or_recordings(tmp_path):
    (tmp_path / "clips").mkdir()
    with pytest.raises(InputError, match="no recording in it or below it"):
        look(tmp_path / "clips")
    write(tmp_path / "clips" / "03-01-05-01.wav", 0)
    with pytest.raises(InputError, match="no folder or file name holds a label"):
        look(tmp_path / "clips")


# --- tables ---

NAMES = [
    {"audio": "Datei", "text": "Text", "label": "Gefühl", "speaker": "Sprecher", "split": "part"},
    {"audio": "path", "text": "sentence", "label": "emotion", "speaker": "client_id", "split": "set"},
    {"audio": "file_name", "text": "transcription", "label": "class", "speaker": "speaker_id", "split": "subset"},
    {"audio": "a", "text": "b", "label": "c", "speaker": "who", "split": "e"},
]


def table(folder: Path, names: dict[str, str], prefix: str = "clips/") -> pd.DataFrame:
    rows = []
    for number, (speaker, label, take) in enumerate(COMBINATIONS):
        path = f"{prefix}{speaker}{take}{label}.wav"
        write(folder / path.replace("\\", "/"), number)
        split = {"cara": "dev", "dan": "test"}.get(speaker, "train")
        cells = {"audio": path, "text": f"he says {number}", "label": label, "speaker": speaker, "split": split}
        rows.append({"index": number} | {names[field]: cell for field, cell in cells.items()})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("names", NAMES)
def test_the_columns_of_a_table(names, tmp_path):
    assert guess_columns(table(tmp_path, names)) == names


@pytest.mark.parametrize(
    ("separator", "encoding"), [(";", "cp1252"), (",", "utf-8"), ("\t", "utf-16"), (";", "utf-8-sig")]
)
@pytest.mark.parametrize(("prefix", "place"), [("clips\\", ""), ("clips/", "tables"), ("clips\\", "tables")])
def test_the_recipe_of_a_table_of_excel(separator, encoding, prefix, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path, NAMES[0], prefix)
    (tmp_path / place).mkdir(exist_ok=True)
    source = Path(place) / "mine.csv"
    source.write_bytes(rows.to_csv(index=False, sep=separator, lineterminator="\r\n").encode(encoding))
    cli.main(["init", str(source)])
    assert "24 rows, 4 speakers; labels: angry -> anger, joy -> joy, sad -> sadness" in capsys.readouterr().out
    recipe = load_recipe("mine.yaml")
    assert recipe.data.label_map == {"angry": "anger", "sad": "sadness"}
    sentence, *_ = check_data(recipe.data, ["audio"], ["audio"])
    assert "24 rows (train 12, validation 6, test 6), labels anger, joy, sadness" in sentence
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert ("encoding: cp1252 # guess" in text) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("speakers", "expected", "leaks"),
    [(4, "grouped:speaker", []), (2, "grouped:speaker", ["speaker:validation"]), (1, "random", ["speaker"])],
)
def test_the_protocol_depends_on_the_speakers(speakers, expected, leaks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path, {name: name for name in NAMES[0]}).drop(columns="split")
    rows["speaker"] = [SPEAKERS[SPEAKERS.index(name) % speakers] for name in rows["speaker"]]
    rows.to_csv("mine.csv", index=False)
    cli.main(["init", "mine.csv"])
    data = load_recipe("mine.yaml").data
    assert (data.protocol, data.accept_leaks) == (expected, leaks)
    check_data(data, ["audio"], ["audio"])


def test_labels_that_nothing_is_near_to_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path, {name: name for name in NAMES[0]}).replace({"label": {"joy": "stress", "sad": "no: 1"}})
    rows.to_csv("mine.csv", index=False)
    cli.main(["init", "mine.csv"])
    data = load_recipe("mine.yaml").data
    assert data.own_labels == ["no: 1", "stress"]
    assert "labels anger, no: 1, stress" in check_data(data, ["audio"], ["audio"])[0]


def test_class_ids_of_a_parquet_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path, {name: name for name in NAMES[0]})
    rows["audio"] = [(tmp_path / path).read_bytes() for path in rows["audio"]]
    rows["label"] = rows["label"].map(LABELS.index)
    rows.to_parquet("mine.parquet")
    cli.main(["init", "mine.parquet"])
    data = load_recipe("mine.yaml").data
    assert data.own_labels == ["0", "1", "2"]
    check_data(data, ["audio"], ["audio"])


def test_categorical_columns_and_empty_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path, {name: name for name in NAMES[0]}).drop(columns=["split", "index"])
    rows.loc[0, "label"] = None
    rows.loc[1, "label"] = "NaN"
    rows.astype("category").to_parquet("mine.parquet")
    cli.main(["init", "mine.parquet"])
    data = load_recipe("mine.yaml").data
    assert data.label_map == {"NaN": None, "angry": "anger", "sad": "sadness"} and data.own_labels == []
    assert "22 rows" in check_data(data, ["audio"], ["audio"])[0]


def test_recordings_that_are_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = table(tmp_path / "far" / "away", {name: name for name in NAMES[0]})
    rows.to_csv("mine.csv", index=False)
    cli.main(["init", "mine.csv"])
    said = capsys.readouterr().out
    assert f"the recordings of column 'audio' are in none of {tmp_path}" in said and "set data.options.root" in said
    check_data(replace(load_recipe("mine.yaml").data, options={"root": "far/away"}), ["audio"], ["audio"])


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["anna_joy", "ben_sad"]):
        write(tmp_path / "clips" / f"{name}.wav", number)
    for existing in ("clips.csv", "clips.yaml"):
        Path(existing).write_text("mine", encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            cli.main(["init", "clips"])
        assert ended.value.code == 2 and f"{existing}: exists already" in capsys.readouterr().err
        assert Path(existing).read_text(encoding="utf-8") == "mine"
        Path(existing).unlink()
    cli.main(["init", "clips"])
    assert Path("clips.yaml").is_file() and Path("clips.csv").is_file()


def test_a_table_without_labels(tmp_path):
    (tmp_path / "mine.csv").write_text("path,note\na.wav,x\nb.wav,y\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column seems to hold labels; it has 'path', 'note'"):
        look(tmp_path / "mine.csv")


# --- from clips to a model ---


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_four_commands_from_clips_to_a_model(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = "clips"
    if kind == "table":
        source = "mine.csv"
        rows = table(tmp_path, NAMES[0], "clips\\")
        Path(source).write_bytes(rows.to_csv(index=False, sep=";").encode("cp1252"))
    else:
        for number, (speaker, label, take) in enumerate(COMBINATIONS):
            write(tmp_path / "clips" / f"{speaker}_{label}_{take}.wav", number)
    name = Path(source).stem
    cli.main(["init", source])
    for words in (["doctor", f"{name}.yaml"], ["audit", "--config", f"{name}.yaml"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0, capsys.readouterr()
    cli.main(["train", "--config", f"{name}.yaml", "--set", "stages.0.epochs=1"])
    predictions = pd.read_parquet(f"outputs/{name}/evaluation/test/predictions.parquet")
    assert len(predictions) == 6 and set(predictions["label"]) == {"anger", "joy", "sadness"}
