"""Recordings are decoded once to load a corpus, however often it is loaded; what is kept is never stale or damaged."""

import os
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import processing_merhan
from merhan.data import audio_facts
from merhan.data.audio_facts import inspect_audio, measure_recordings
from merhan.data.dataset import EmotionDataset
from merhan.data.doctor import examine
from merhan.data.facts_cache import FactsCache
from merhan.data.loading import check_data, load_data
from merhan.errors import InputError
from merhan.logs import captured_messages
from merhan.recipe.schema import DataRecipe


RATE = 8000
BOTH = ["audio", "text"]


def tone(seconds: float, hertz: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def settle(folder: Path):
    """Set the files' time of change back, as if they had been written an hour ago."""
    for path in folder.glob("*.*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """A manifest of nine recordings in three formats, two of them segments of one file, with a cache of its own."""
    monkeypatch.setenv("MERHAN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    for number in range(9):
        name = f"{number}.{('wav', 'flac', 'mp3')[number % 3]}"
        soundfile.write(folder / name, tone(0.2 + number / 20, 300 + 90 * number), RATE)
        part = ("train", "validation", "test")[number // 3]
        label = ("joy", "anger")[number % 2]
        rows.append({"utterance_id": f"u{number}", "corpus": "own", "audio": name, "text": f"words {number}"})
        rows[-1] |= {"label": label, "split": part, "speaker": f"s{number}", "start": None, "end": None}
    rows[0] |= {"audio": "3.wav", "start": 0.0, "end": 0.1}
    rows[3] |= {"start": 0.1, "end": 0.3}
    pd.DataFrame(rows).to_json(folder / "m.jsonl", orient="records", lines=True)
    settle(folder)
    return folder / "m.jsonl"


@pytest.fixture
def decoded(monkeypatch) -> Counter:
    """Segment -> how often it was decoded, by whatever function."""
    counts: Counter = Counter()
    decode = processing_merhan._decode

    def counted(source, name, start, end):
        counts[Path(source).name, start, end] += 1
        return decode(source, name, start, end)

    monkeypatch.setattr(processing_merhan, "_decode", counted)
    return counts


def load(manifest: Path, only: str | None = None):
    return load_data(DataRecipe("manifest", str(manifest)), BOTH, BOTH, only)


def test_loading_a_corpus_decodes_each_recording_once(corpus, decoded, processor):
    """Durations, checks and fingerprints come from one pass, and the next run, fold or process does not repeat it."""
    check_data(DataRecipe("manifest", str(corpus)), BOTH, BOTH)
    first = load(corpus)
    assert len(decoded) == 9 and set(decoded.values()) == {1}
    again, test = load(corpus), load(corpus, only="test")
    labels = {"joy": 0, "anger": 1}
    data = EmotionDataset(first.rows[first.rows["split"] == "train"], processor, labels, BOTH, first.dialogues)
    assert data.shapes[:, 0].all()
    assert set(decoded.values()) == {1}
    pd.testing.assert_frame_equal(again.rows, first.rows)
    tested = first.rows["split"] == "test"
    pd.testing.assert_frame_equal(test.rows[tested], first.rows[tested])
    assert [data[row] for row in range(3)] and sum(decoded.values()) == 9 + 3, "an epoch decodes what it reads"


def test_an_evaluation_decodes_its_split_alone(corpus, decoded):
    (corpus.parent / "1.flac").unlink()
    rows = load(corpus, only="test").rows
    assert len(rows) == 9 and rows["duration"].gt(0).tolist() == [False] * 6 + [True] * 3
    assert sorted(name for name, *_ in decoded) == ["6.wav", "7.flac", "8.mp3"]


def test_facts_from_the_cache_are_those_that_were_measured(corpus, decoded):
    rows = load(corpus).rows
    assert np.array_equal(inspect_audio(rows).facts, inspect_audio(rows, again=True).facts)
    assert set(decoded.values()) == {2}, "once for the cache, and once again"


def test_the_doctor_decodes_every_recording(corpus, decoded):
    rows = load(corpus).rows
    examine(rows, "own")
    assert set(decoded.values()) == {2}, "what was intact may be damaged by now"


def rewritten(path: Path):
    soundfile.write(path, tone(0.2, 1000), RATE)


def with_its_old_time(path: Path):
    """Other content of the same size and time, as of a copy that keeps the times."""
    status = path.stat()
    soundfile.write(path, tone(len(soundfile.read(path)[0]) / RATE, 1000), RATE)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


WITHOUT_TIME_OF_CHANGE = pytest.mark.skipif(os.name == "nt", reason="Windows has no time of change")


@pytest.mark.parametrize("change", [rewritten, pytest.param(with_its_old_time, marks=WITHOUT_TIME_OF_CHANGE)])
def test_a_changed_recording_is_measured_again(change, corpus, decoded):
    before = load(corpus).rows
    change(corpus.parent / "6.wav")
    facts = measure_recordings(before, "own")[1]
    assert np.array_equal(facts, inspect_audio(before, again=True).facts)
    assert decoded["6.wav", None, None] == 3 and decoded["7.flac", None, None] == 2


def test_a_recording_written_just_now_is_not_relied_on(corpus, decoded):
    """It may be written again within the resolution of its time."""
    rewritten(corpus.parent / "6.wav")
    for _ in range(2):
        load(corpus)
    assert decoded["6.wav", None, None] == 2 and decoded["7.flac", None, None] == 1


def test_a_recording_that_cannot_be_read_is_tried_again(corpus, decoded):
    rows = load(corpus).rows
    content = (corpus.parent / "6.wav").read_bytes()
    (corpus.parent / "6.wav").write_bytes(b"nothing")
    assert list(inspect_audio(rows).errors) == [6]
    (corpus.parent / "6.wav").write_bytes(content)
    assert not inspect_audio(rows).errors
    (corpus.parent / "6.wav").unlink()
    assert "no such file" in str(inspect_audio(rows).errors[6])


def test_a_moved_corpus_is_measured_at_its_new_place(corpus, decoded, tmp_path):
    load(corpus)
    shutil.copytree(corpus.parent, tmp_path / "moved")
    assert len(load(tmp_path / "moved" / "m.jsonl").rows) == 9
    assert set(decoded.values()) == {2}


def test_an_interrupted_pass_is_resumed(corpus, decoded, monkeypatch):
    monkeypatch.setattr(audio_facts, "CHUNK", 2)
    inspect = audio_facts._inspect

    def interrupted(segment):
        if "5" in Path(segment[0]).name:
            raise KeyboardInterrupt
        return inspect(segment)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(audio_facts, "_inspect", interrupted)
        load(corpus)
    decoded.clear()
    load(corpus)
    assert len(decoded) == 9 - 4, "two chunks of two were kept"


# --- damage to the cache ---


def test_a_damaged_entry_is_measured_again(corpus, decoded, tmp_path):
    rows = load(corpus).rows
    facts = inspect_audio(rows).facts
    with sqlite3.connect(tmp_path / "cache/recordings.sqlite") as connection:
        for key, content in list(connection.execute("SELECT segment, content FROM facts"))[:5]:
            damaged = bytes([content[0] ^ 1]) + content[1:]
            connection.execute("UPDATE facts SET content = ? WHERE segment = ?", (damaged, key))
    connection.close()
    assert np.array_equal(inspect_audio(rows).facts, facts)
    assert sorted(decoded.values()) == [1] * 4 + [2] * 5


@pytest.mark.parametrize("damage", ["garbage", "folder", "truncated"])
def test_a_cache_that_cannot_be_used_costs_a_note(damage, corpus, tmp_path):
    rows = load(corpus).rows
    facts, path = inspect_audio(rows).facts, tmp_path / "cache/recordings.sqlite"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"garbage" * 1000 if damage == "garbage" else content[: len(content) // 2])
    with captured_messages() as messages:
        assert np.array_equal(inspect_audio(rows).facts, facts)
    (message,) = messages
    assert str(path) in message and "delete it" in message


def test_facts_of_another_version_are_not_used(corpus, decoded, monkeypatch):
    load(corpus)
    monkeypatch.setattr(audio_facts, "VERSION", 0)
    load(corpus)
    assert set(decoded.values()) == {2}


def test_the_facts_of_version_1():
    """Where this fails, what is measured has changed: raise VERSION, so that kept facts are measured again."""
    ramp = np.linspace(0.2, 1, 8000, dtype=np.float32)
    wave = np.stack([np.sign(np.sin(np.arange(8000) / 9)) * ramp, 0.1 * ramp]).astype(np.float32)
    facts = audio_facts.audio_facts(wave, RATE)
    scalars = [facts[name].item() for name in ("duration", "sampling_rate", "channels", "peak", "digest")]
    assert audio_facts.VERSION == 1
    assert scalars == [1.0, 8000, 2, 1.0, bytes.fromhex("ffa97589738cfc382681581633095238")]
    np.testing.assert_allclose([facts["level"], facts["clipped_share"]], [-9.811, 0.000625], atol=1e-3)
    bands = [57, -50, -62, 13, -25, -50, -10, -85, -25, -63, -35, -59, -52, -50, -59, -59, -60, -61, -62, -62]
    assert abs(facts["fingerprint"][::32].astype(int) - bands).max() <= 1


def test_an_error_of_one_split_counts_the_rows_of_the_table(corpus):
    (corpus.parent / "7.flac").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"row 8 \('u7'\)"):
        load(corpus, "test")
    (corpus.parent / "7.flac").unlink()
    with pytest.raises(InputError, match=r"row 8 \('u7'\)"):
        load(corpus, "test")


def test_recordings_that_vanish_and_entries_without_content_cost_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MERHAN_CACHE", str(tmp_path))
    there, gone = tmp_path / "a.wav", tmp_path / "b.wav"
    there.write_bytes(b"")
    segments = [(str(path), None, None) for path in (there, gone)]
    with FactsCache("1") as cache:
        cache.write(dict.fromkeys(segments, b"facts"), begun=there.stat().st_mtime + 3600)
        assert cache.read(segments) == {segments[0]: b"facts"}
        cache._connection.execute("UPDATE facts SET content = NULL")
        assert cache.read(segments) == {}
