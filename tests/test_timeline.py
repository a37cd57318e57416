"""Emotions along a long recording."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import LABELS

from merhan.cli.main import main
from merhan.errors import InputError
from merhan.prediction import timeline as module
from merhan.prediction.predict import Predictor
from merhan.prediction.timeline import speech_regions, timeline
from merhan.prediction.timeline_files import write_timeline


SCORES = [f"score_{label}" for label in LABELS]


@pytest.fixture
def predictor(trained_like, processor) -> Predictor:
    return Predictor(trained_like.eval(), processor, batch_size=2)


@pytest.fixture
def recording(demo, tmp_path):
    """Three utterances of the demo with silence between, and their borders in seconds."""
    pieces, borders, position = [np.zeros(8000)], [], 8000
    for path in demo["audio"].head(3):
        samples, _ = soundfile.read(path)
        borders.append((position / 16_000, (position + len(samples)) / 16_000))
        pieces += [samples, np.zeros(12_000)]
        position += len(samples) + 12_000
    soundfile.write(tmp_path / "call.wav", np.concatenate(pieces), 16_000)
    return tmp_path / "call.wav", borders


def test_each_utterance_has_the_scores_of_its_clip(predictor, recording, demo, monkeypatch):
    path, borders = recording
    monkeypatch.setattr(module, "speech_regions", lambda *_: borders)
    table = timeline(predictor, path)
    alone = predictor.table(demo[["audio"]].head(3))
    np.testing.assert_allclose(table[SCORES], alone[SCORES], atol=1e-5)
    np.testing.assert_allclose(table[["start", "end"]], borders)
    monkeypatch.setattr(module, "speech_regions", lambda *_: [])
    assert len(timeline(predictor, path)) == 0


def test_a_format_that_is_decoded_as_a_whole(predictor, recording, tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    path, borders = recording
    samples, _ = soundfile.read(path, dtype="float32")
    with av.open(str(tmp_path / "call.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    read = []
    monkeypatch.setattr(module, "speech_regions", lambda file, _: read.append(soundfile.info(file).frames) or borders)
    assert len(timeline(predictor, tmp_path / "call.m4a")) == 3
    assert abs(read[0] - len(samples)) < 4000


@pytest.mark.parametrize("rate", [8000, 16_000, 24_414, 44_100])
def test_sound_is_read_in_blocks(tmp_path, rate):
    samples = 0.5 * np.sin(2 * np.pi * 200 * np.arange(70 * rate) / rate)
    soundfile.write(tmp_path / "long.wav", np.stack([samples, samples], axis=1), rate)
    blocks = list(module._blocks(tmp_path / "long.wav"))
    assert [len(block) / 16_000 for block in blocks] == [32, 32, 6]
    assert all(len(block) % 512 == 0 for block in blocks[:-1])
    expected = 0.5 * np.sin(2 * np.pi * 200 * np.arange(70 * 16_000) / 16_000)
    np.testing.assert_allclose(torch.cat(blocks)[1000:500_000], expected[1000:500_000], atol=0.01)


def as_seconds(clock: str) -> float:
    hours, minutes, seconds = clock.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def test_every_format(tmp_path):
    table = pd.DataFrame(
        {
            "start": [0.5, 61.0, 3599.9996, 7200.25],
            "end": [1.25, 62.0, 3601.0, 7201.0],
            "prediction": ["joy", "anger", "joy", None],
            "score_anger": [0.2, 0.51, 0.1, None],
            "score_joy": [0.8, 0.49, 0.9, None],
            "abstained": pd.array([False, True, False, None], dtype="boolean"),
            "error": [None, None, None, "cannot be read"],
        }
    )
    for suffix in (".json", ".csv", ".srt", ".vtt", ".txt"):
        write_timeline(table, "call.wav", tmp_path / f"call{suffix}")
    captions = ["joy 0.80", "uncertain", "joy 0.90", "error"]
    times = [pytest.approx(row, abs=6e-4) for row in table[["start", "end"]].to_numpy().tolist()]
    for suffix, mark in ((".srt", ","), (".vtt", r"\.")):
        text = (tmp_path / f"call{suffix}").read_text(encoding="utf-8")
        clock = rf"(\d\d:\d\d:\d\d{mark}\d\d\d)"
        cues = re.findall(rf"{clock} --> {clock}\n(.+)\n", text)
        assert [[as_seconds(start), as_seconds(end)] for start, end, _ in cues] == times
        assert [caption for *_, caption in cues] == captions
    assert (tmp_path / "call.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n")
    labels = [line.split("\t") for line in (tmp_path / "call.txt").read_text(encoding="utf-8").splitlines()]
    assert [[float(start), float(end)] for start, end, _ in labels] == times
    assert [caption for *_, caption in labels] == captions
    content = json.loads((tmp_path / "call.json").read_text(encoding="utf-8"))
    assert content["recording"] == "call.wav" and content["utterances"][3]["prediction"] is None
    assert pd.read_csv(tmp_path / "call.csv")["score_joy"].tolist()[:3] == [0.8, 0.49, 0.9]
    with pytest.raises(InputError, match="a timeline is written as"):
        write_timeline(table, "call.wav", tmp_path / "call.doc")


def test_a_missing_package_is_named(predictor, recording, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "silero_vad", None)
    predictor.model.save_pretrained(tmp_path / "model")
    predictor.processor.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit):
        main(["timeline", str(tmp_path / "model"), str(recording[0]), "--out", str(tmp_path / "call.csv")])
    assert "pip install 'merhan[timeline]'" in capsys.readouterr().err


def test_labels_do_not_take_the_place_of_the_words(recording, capsys):
    with pytest.raises(SystemExit):
        main(["timeline", "model", str(recording[0]), "--out", str(recording[0].with_suffix(".txt"))])
    assert "is where the words of" in capsys.readouterr().err


def test_borders_of_real_speech(corpora, tmp_path):
    pytest.importorskip("silero_vad")
    files = sorted((corpora / "emodb").rglob("*.wav"))[:12]
    pieces, borders, position = [np.zeros(16_000)], [], 16_000
    for path in files:
        samples, rate = soundfile.read(path)
        assert rate == 16_000
        borders.append((position / 16_000, (position + len(samples)) / 16_000))
        pieces += [samples, np.zeros(24_000)]
        position += len(samples) + 24_000
    soundfile.write(tmp_path / "call.wav", np.concatenate(pieces), 16_000)
    threads = torch.get_num_threads()
    regions = speech_regions(tmp_path / "call.wav", 12.0)
    assert torch.get_num_threads() == threads
    near = [any(abs(start - low) < 0.3 and abs(end - high) < 0.3 for start, end in regions) for low, high in borders]
    assert sum(near) >= 0.9 * len(files)
    split = speech_regions(tmp_path / "call.wav", 1.5)
    assert len(split) > len(regions) and max(end - start for start, end in split) <= 1.5
