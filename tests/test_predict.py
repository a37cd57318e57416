"""Scores for any number of utterances: forms of input and output, interruptions, several processes, broken files."""

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import LABELS

import merhan
from merhan.errors import InputError
from merhan.logs import captured_messages
from merhan.models.inference import Speed
from merhan.prediction import predict
from merhan.prediction.batches import read_windows
from merhan.prediction.inputs import Utterance, fingerprint, open_sources
from merhan.prediction.predict import Predictor
from merhan.prediction.result_files import Parts
from processing_merhan import EmotionRecognitionPipeline


SCORES = [f"score_{label}" for label in LABELS]


@pytest.fixture
def rows(demo) -> pd.DataFrame:
    """Twelve utterances with sound, words, or both."""
    rows = demo[["utterance_id", "audio", "text"]].head(12).reset_index(drop=True)
    rows.loc[::3, "audio"] = ""
    rows.loc[1::3, "text"] = ""
    return rows


@pytest.fixture
def predictor(trained_like, processor) -> Predictor:
    trained_like.config.temperature = {"audio+text": 0.5, "audio": 2.0, "text": 0.1}
    return Predictor(trained_like.eval(), processor, batch_size=3)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(predict, "PART_ROWS", 3)


@pytest.fixture
def folder(demo, tmp_path) -> Path:
    """Recordings in two folders; one has a transcript, and a file of another kind is beside them."""
    for number, path in enumerate(demo["audio"].head(4)):
        target = tmp_path / "clips" / "ab"[number % 2] / f"{number}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(path).read_bytes())
    (tmp_path / "clips" / "a" / "0.txt").write_text("Oh, wonderful!", encoding="utf-8")
    (tmp_path / "clips" / "readme.md").write_text("no sound", encoding="utf-8")
    return tmp_path / "clips"


def test_scores_are_those_of_the_pipeline(predictor, rows):
    recogniser = EmotionRecognitionPipeline(model=predictor.model, processor=predictor.processor)
    utterances = [{"audio": row.audio or None, "text": row.text or None} for row in rows.itertuples()]
    answers = [{item["label"]: item["score"] for item in answer} for answer in recogniser(utterances)]
    table = predictor.table(rows)
    expected = [[answer[label] for label in LABELS] for answer in answers]
    np.testing.assert_allclose(table[SCORES], expected, atol=1e-5)
    assert table["prediction"].tolist() == [max(answer, key=answer.__getitem__) for answer in answers]
    assert table["given"].tolist() == ["text", "audio", "audio+text"] * 4
    assert table["utterance_id"].tolist() == rows["utterance_id"].tolist()
    assert table["seconds"].isna().tolist() == [True, False, False] * 4


class Killed(BaseException):
    """Ends a call, as a signal does."""


def killed_at(monkeypatch, owner, name: str, calls: int):
    """Make a function end the process at its n-th call."""
    original, numbers = getattr(owner, name), count(1)

    def wrapped(*arguments, **options):
        if next(numbers) == calls:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("owner", "name", "calls", "finished"),
    [
        (Parts, "write", 1, 0),
        (Parts, "write", 3, 2),
        ("pyarrow.parquet", "write_table", 2, 1),
        (Parts, "read", 2, 4),
        (Parts, "remove", 2, 4),  # the first call is that of `begin`
    ],
)
def test_an_interrupted_call_resumed_is_an_uninterrupted_one(
    predictor, rows, tmp_path, monkeypatch, small_parts, owner, name, calls, finished
):
    predictor.file(rows, tmp_path / "whole.parquet")
    scored = []
    original = predictor.model.forward
    monkeypatch.setattr(
        predictor.model, "forward", lambda **batch: scored.extend(batch["input_ids"]) or original(**batch)
    )
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, sys.modules[owner] if isinstance(owner, str) else owner, name, calls)
        predictor.file(rows, tmp_path / "out.parquet")
    scored.clear()
    predictor.file(rows, tmp_path / "out.parquet")
    assert len(scored) == len(rows) - 3 * finished, "finished parts are not scored again"
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "out")))
    assert not [path for path in tmp_path.iterdir() if "part" in path.name and path.suffix != ".lock"]


def test_parts_of_another_call_are_not_mixed_in(predictor, rows, tmp_path, monkeypatch, small_parts):
    out = tmp_path / "out.csv"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, Parts, "write", 3)
        predictor.file(tmp_path / "rows.csv", out)
    state = Parts(out).state()
    rows.iloc[::-1].to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(InputError, match="part of a result whose input differ"):
        predictor.file(tmp_path / "rows.csv", out)
    predictor.model.config.temperature = {}
    with pytest.raises(InputError, match="part of a result whose model and input differ"):
        predictor.file(tmp_path / "rows.csv", out)
    assert Parts(out).state() == state and len(Parts(out).finished()) == 2
    predictor.file(tmp_path / "rows.csv", out, overwrite=True)
    assert pd.read_csv(out)["utterance_id"].tolist() == rows["utterance_id"].tolist()[::-1]
    with pytest.raises(InputError, match="exists already"):
        predictor.file(tmp_path / "rows.csv", out)


def test_the_same_rows_in_another_order_are_another_input(rows):
    assert fingerprint(open_sources(rows, {}, 0)) == fingerprint(open_sources(rows.copy(), {}, 0))
    assert fingerprint(open_sources(rows, {}, 0)) != fingerprint(open_sources(rows.iloc[::-1], {}, 0))


def test_what_a_removal_left_is_not_taken_for_results(predictor, rows, tmp_path, small_parts):
    parts = Parts(tmp_path / "out.parquet")
    predictor.file(rows.iloc[::-1], tmp_path / "other.parquet")
    pd.read_parquet(tmp_path / "other.parquet").head(3).to_parquet(parts.folder.with_suffix(".x"))
    parts.folder.mkdir()
    parts.folder.with_suffix(".x").rename(parts.folder / "00000000.parquet")
    predictor.file(rows, parts.out)
    assert pd.read_parquet(parts.out)["utterance_id"].tolist() == rows["utterance_id"].tolist()


def broken_files(folder: Path, sound: bytes) -> list[Path]:
    """Ten files that hold no sound."""
    contents = {
        "empty.wav": b"",
        "words.wav": b"these are words" * 100,
        "zeros.mp3": bytes(5000),
        "cut.wav": sound[:1000],
        "header.wav": sound[:44],
        "pointer.flac": b"version https://git-lfs.github.com/spec/v1\n",
        "page.m4a": b"<html>404</html>" * 50,
        "half.ogg": b"OggS" + bytes(100),
    }
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), 16_000, subtype="FLOAT")
    return [*paths, folder / "nan.wav", folder / "missing.wav"]


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_files_are_rows_with_their_errors(predictor, rows, tmp_path, workers):
    predictor.speed = Speed(workers=workers)
    paths = broken_files(tmp_path, Path(rows["audio"].iloc[1]).read_bytes())
    broken = pd.DataFrame(
        {"utterance_id": [path.name for path in paths], "audio": list(map(str, paths)), "text": "Oh!"}
    )
    mixed = pd.concat([rows, broken]).sample(frac=1, random_state=0)
    with captured_messages() as messages:
        table = predictor.table(mixed).set_index("utterance_id")
    assert table.index.tolist() == mixed["utterance_id"].tolist()
    failed = table.loc[broken["utterance_id"]]
    for path in paths:
        assert str(path) in failed.loc[path.name, "error"]
    assert failed.drop(columns=["error", "given", "seconds", "seconds_used"]).isna().all(axis=None)
    np.testing.assert_allclose(table.loc[rows["utterance_id"], SCORES], predictor.table(rows)[SCORES], atol=1e-5)
    assert table["error"].notna().sum() == 10
    assert messages[0].startswith("10 of 22 rows have an error, the first: ")


def test_invalid_cells_and_empty_rows_are_rows_with_their_errors(predictor, rows, tmp_path):
    table = rows.assign(start="0", end="")
    table.loc[4, "start"] = "soon"
    table.loc[5, "start"] = "99"
    table.loc[6, ["audio", "text"]] = ""
    table.loc[7, "text"] = "word " * 600
    table.to_csv(tmp_path / "rows.csv", index=False)
    result = predictor.table(tmp_path / "rows.csv")
    errors = result["error"].dropna()
    assert errors.index.tolist() == [4, 5, 6, 7]
    words = ["start is not a number", "has no sound between 99.0 s", "has no audio and no text", "never truncated"]
    assert [word for word, error in zip(words, errors, strict=True) if word not in error] == []
    assert result["utterance_id"].tolist() == rows["utterance_id"].tolist()


def test_a_row_that_the_backbone_cannot_read_costs_no_other(predictor, rows, monkeypatch):
    """Whisper's extractor would cut sound beyond 30 s, which the processor refuses for a batch as a whole."""
    original = predictor.processor._audio_padding

    def padding(samples: int, *others):
        if samples > 16_000:
            raise ValueError("too long for the backbone")
        return original(samples, *others)

    monkeypatch.setattr(predictor.processor, "_audio_padding", padding)
    table = predictor.table(rows)
    too_long = table["seconds"] > 1.0
    assert 0 < too_long.sum() < len(rows)
    assert table["error"].notna().tolist() == too_long.tolist()
    assert set(table["error"].dropna()) == {"too long for the backbone"}


def as_datasets(rows: pd.DataFrame, path: Path) -> Path:
    columns = {name: [cell or None for cell in rows[name]] for name in rows}
    datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio()).save_to_disk(path)
    return path


def with_bytes(rows: pd.DataFrame, path: Path) -> Path:
    sounds = [{"bytes": Path(file).read_bytes(), "path": "a.wav"} if file else None for file in rows["audio"]]
    rows.assign(audio=sounds).to_parquet(path)
    return path


def with_arrays(rows: pd.DataFrame, path: Path) -> Path:
    sounds = []
    for file in rows["audio"]:
        samples, rate = soundfile.read(file) if file else (None, 0)
        sounds.append(None if samples is None else {"array": samples, "sampling_rate": rate})
    rows.assign(audio=sounds).to_parquet(path)
    return path


def written(suffix: str):
    def write(rows: pd.DataFrame, path: Path) -> Path:
        path = path.with_suffix(suffix)
        writers = {
            ".csv": lambda: rows.to_csv(path, index=False),
            ".tsv": lambda: rows.to_csv(path, index=False, sep="\t"),
            ".jsonl": lambda: rows.to_json(path, orient="records", lines=True),
            ".parquet": lambda: rows.to_parquet(path),
            ".xlsx": lambda: rows.to_excel(path, index=False),
        }
        writers[suffix]()
        return path

    return write


FORMS = {suffix: written(suffix) for suffix in (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")}
FORMS |= {"datasets": as_datasets, "bytes": with_bytes, "arrays": with_arrays}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_table(predictor, rows, tmp_path, form, monkeypatch):
    monkeypatch.setattr("merhan.prediction.inputs._PART", 5)
    expected = predictor.table(rows)
    source = FORMS[form](rows, tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(predictor.table(source), expected)
    unnamed = FORMS[form](rows.drop(columns="utterance_id"), tmp_path / "unnamed.parquet")
    table = predictor.table([unnamed])
    np.testing.assert_allclose(table[SCORES], expected[SCORES], atol=1e-6)
    assert table["utterance_id"].is_unique and table["utterance_id"].iloc[-1].endswith("-000012")


def test_columns_of_other_names(predictor, rows, tmp_path):
    rows.rename(columns={"audio": "path", "text": "words"}).to_csv(tmp_path / "rows.csv", index=False)
    table = predictor.table(tmp_path / "rows.csv", {"audio": "path", "text": "words"})
    pd.testing.assert_frame_equal(table, predictor.table(rows))
    with pytest.raises(InputError, match="audio"):
        predictor.table(tmp_path / "rows.csv")


def test_folders_files_and_patterns(predictor, folder):
    names = ["a/0.wav", "a/2.wav", "b/1.wav", "b/3.wav"]
    table = predictor.table(folder)
    assert table["utterance_id"].tolist() == names
    assert table["given"].tolist() == ["audio+text", "audio", "audio", "audio"]
    pattern = predictor.table([str(folder / "*" / "*.wav")])
    assert pattern["utterance_id"].tolist() == [str(folder / name) for name in names]
    np.testing.assert_allclose(pattern[SCORES], table[SCORES], atol=1e-6)
    assert len(predictor.table([folder / "a", folder / "b" / "1.wav"])) == 3
    with pytest.raises(InputError, match="no such file or folder"):
        predictor.table(folder / "*.flac")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no recording"):
        predictor.table(folder / "empty")


def test_every_form_of_result(predictor, rows, tmp_path, small_parts):
    mixed = pd.concat([rows.head(7), pd.DataFrame({"utterance_id": ["ö, / 7"], "audio": ["no.wav"], "text": [""]})])
    expected = predictor.table(mixed)
    readers = {
        "parquet": pd.read_parquet,
        "csv": lambda file: pd.read_csv(file, dtype={"abstained": "boolean"}),
        "jsonl": lambda file: pd.DataFrame(map(json.loads, file.read_text(encoding="utf-8").splitlines())),
    }
    for suffix, read in readers.items():
        predictor.file(mixed, tmp_path / f"out.{suffix}")
        result = read(tmp_path / f"out.{suffix}").astype({"abstained": "boolean", "transcript": "str"})
        pd.testing.assert_frame_equal(result, expected, check_dtype=False, rtol=1e-6)
    with pytest.raises(InputError, match="results are written as"):
        predictor.file(mixed, tmp_path / "out.txt")


def test_what_is_left_out_of_long_sound_is_said(predictor, tmp_path):
    for seconds in (2.0, 5.0):
        soundfile.write(tmp_path / f"{seconds:g}.wav", 0.1 * np.sin(np.arange(int(seconds * 16_000)) / 9), 16_000)
    with captured_messages() as messages:
        table = predictor.table(tmp_path)
    assert table[["seconds", "seconds_used"]].to_numpy().tolist() == [[2.0, 2.0], [5.0, 3.0]]
    assert messages[0].startswith("1 of 2 rows have more sound than the model reads")


def test_answers_below_the_lowest_score_are_abstentions(predictor, rows):
    best = predictor.table(rows)[SCORES].max(axis=1)
    predictor.min_score = float(best.sort_values().iloc[5])
    abstained = predictor.table(rows)["abstained"]
    assert abstained.tolist() == (best < predictor.min_score).tolist() and abstained.sum() == 5


def test_dialogue_context_is_that_of_the_whole_table(predictor, rows, tmp_path, monkeypatch, small_parts):
    monkeypatch.setattr("merhan.prediction.inputs._PART", 2)
    predictor.processor.context_turns = 3
    try:
        turns = rows.assign(text=[f"Turn {number}." for number in range(12)], audio="", dialogue="d", turn=range(12))
        shuffled = turns.sample(frac=1, random_state=3)
        shuffled.to_parquet(tmp_path / "rows.parquet")
        table = predictor.table(tmp_path / "rows.parquet").set_index("utterance_id")
        recogniser = EmotionRecognitionPipeline(model=predictor.model, processor=predictor.processor)
        texts = turns["text"].tolist()
        for number in (0, 2, 9):
            (*_, scores) = [recogniser(text=texts[number], context=texts[max(number - 3, 0) : number])]
            expected = {item["label"]: item["score"] for item in scores}
            row = table.loc[turns["utterance_id"][number]]
            np.testing.assert_allclose(row[SCORES].astype(float), [expected[label] for label in LABELS], atol=1e-5)
    finally:
        predictor.processor.context_turns = 0


def test_the_input_is_read_only_as_far_as_needed(predictor):
    read = []

    def parts():
        for number in range(1000):
            read.append(number)
            yield number, [Utterance(f"{number}-{row}", text="Oh!") for row in range(64)]

    windows = read_windows(parts(), predictor.processor, ["audio", "text"], 16, workers=1)
    for _ in range(3):
        next(windows)
    assert len(read) <= 8
    windows.close()


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_the_parts(processes):
    done = {2, 3, 8}
    shares = [
        [number for number, _ in predict._missing(((part, []) for part in range(20)), done, process, processes)]
        for process in range(processes)
    ]
    assert sorted(sum(shares, [])) == sorted(set(range(20)) - done)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.slow
def test_two_processes_are_one(predictor, demo, tmp_path):
    predictor.model.save_pretrained(tmp_path / "model")
    predictor.processor.save_pretrained(tmp_path / "model")
    rows = pd.concat([demo] * 4, ignore_index=True)[["audio", "text"]]
    rows.to_parquet(tmp_path / "rows.parquet")
    merhan.predict(tmp_path / "model", tmp_path / "rows.parquet", out=tmp_path / "alone.parquet")
    environment = os.environ | {"PYTHONPATH": str(Path(merhan.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "merhan"]
    command = ["predict", "model", "rows.parquet", "--out", "shared.parquet"]
    subprocess.run([*launcher, *command], cwd=tmp_path, env=environment, check=True)
    alone, shared = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("alone", "shared"))
    pd.testing.assert_frame_equal(alone, shared, rtol=1e-5)
    assert len(alone) == len(rows)


def test_from_python(predictor, rows, tmp_path):
    predictor.model.save_pretrained(tmp_path / "model")
    predictor.processor.save_pretrained(tmp_path / "model")
    table = merhan.predict(tmp_path / "model", rows)
    assert table.columns.tolist()[:2] == ["utterance_id", "prediction"]
    merhan.predict(tmp_path / "model", rows, out=tmp_path / "out.parquet")
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "out.parquet")[SCORES], table[SCORES])
    for options, message in [
        ({"batch_size": 0}, "batch_size"),
        ({"min_score": 2}, "min_score"),
        ({"workers": -1}, "workers"),
    ]:
        with pytest.raises(InputError, match=message):
            merhan.predict(tmp_path / "model", rows, **options)


def test_the_pipeline_says_what_it_leaves_out_once_per_call(predictor, tmp_path, caplog):
    paths = []
    for seconds in (2.0, 3.0, 3.5, 5.0):
        paths.append(str(tmp_path / f"{seconds:g}.wav"))
        soundfile.write(paths[-1], 0.1 * np.sin(np.arange(int(seconds * 16_000)) / 9), 16_000)
    recogniser = EmotionRecognitionPipeline(model=predictor.model, processor=predictor.processor)
    recogniser(paths, batch_size=1)
    list(recogniser(path for path in paths))
    recogniser(paths[3], explain=True)
    counts = [record.message.split(" recordings")[0] for record in caplog.records]
    assert counts == ["Of 2", "Of 2", "Of 1"] and "longer than the 3 s" in caplog.text
    caplog.clear()
    recogniser(paths[:2])
    assert not caplog.records
