"""Every format of a timeline, read back by a parser of somebody else."""

import html
import json

import numpy as np
import pandas as pd
import pytest

from merhan.errors import InputError
from merhan.prediction.curve import smoothed_curve
from merhan.prediction.timeline import Timeline
from merhan.prediction.timeline_files import write_timeline


LABELS = ["anger", "joy"]
ANSWERS = ["joy", "uncertain", "joy", "error"]
WORD_COLUMNS = ["utterance", "start", "end", "word"]
CAPTIONS = ["Ann: joy 0.80: oh & well", "uncertain", "Bob <b> & Co: joy 0.90", "Ann: error"]


@pytest.fixture
def timeline() -> Timeline:
    utterances = pd.DataFrame(
        {
            "start": [0.5, 61.0, 3599.9996, 7200.25],
            "end": [1.25, 62.0, 3601.0, 7201.0],
            "speaker": ["Ann", None, "Bob <b> & Co", "Ann"],
            "text": ["oh & well", None, None, None],
            "prediction": ["joy", "anger", "joy", None],
            "score_anger": [0.2, 0.51, 0.1, None],
            "score_joy": [0.8, 0.49, 0.9, None],
            "given": ["audio"] * 3 + [None],
            "abstained": pd.array([False, True, False, None], dtype="boolean"),
            "error": [None, None, None, "cannot be read"],
        }
    )
    curve = smoothed_curve(utterances, LABELS, 7202.0, 0.6)
    words = pd.DataFrame([(0, 0.5, 0.8, "oh"), (0, 0.8, 0.9, "&"), (0, 0.9, 1.25, "well")], columns=WORD_COLUMNS)
    return Timeline("folder/call one.wav", 7202.0, LABELS, utterances, curve, words, "whisper")


@pytest.fixture
def write(timeline, tmp_path):
    def write(suffix: str):
        write_timeline(timeline, tmp_path / f"call{suffix}")
        return tmp_path / f"call{suffix}"

    return write


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_subtitles(timeline, write, suffix):
    pysubs2 = pytest.importorskip("pysubs2")
    path = write(suffix)
    events = list(pysubs2.load(str(path), encoding="utf-8"))
    times = np.array([[event.start, event.end] for event in events]) / 1000
    np.testing.assert_allclose(times, timeline.utterances[["start", "end"]], atol=6e-4)
    captions = [caption.replace("&", "&amp;").replace("<", "&lt;") for caption in CAPTIONS]
    text = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if "joy" in line or "error" in line or "uncertain" in line] == (
        captions if suffix == ".vtt" else CAPTIONS
    )
    assert [html.unescape(event.plaintext) for event in events][:2] == CAPTIONS[:2]


def test_rttm(timeline, write):
    core = pytest.importorskip("pyannote.core")
    names = ["type", "uri", "channel", "start", "duration", "a", "b", "label", "confidence", "c"]
    table = pd.read_csv(write(".rttm"), sep=r"\s+", names=names, keep_default_na=False)
    annotation = core.Annotation(uri="call_one")
    for number, row in table.iterrows():
        annotation[core.Segment(row["start"], row["start"] + row["duration"]), number] = row["label"]
    assert annotation.labels() == ["Ann/error", "Ann/joy", "Bob_<b>_&_Co/joy", "uncertain"]
    assert table["confidence"].tolist() == ["0.800", "<NA>", "0.900", "<NA>"]
    theirs = [line.split() for line in annotation.to_rttm().splitlines()]
    ours = table.astype(str).to_numpy().tolist()
    assert [row[:3] + row[5:8] for row in theirs] == [row[:3] + row[5:8] for row in ours]
    np.testing.assert_allclose(table["start"], timeline.utterances["start"], atol=6e-4)
    np.testing.assert_allclose(table["start"] + table["duration"], timeline.utterances["end"], atol=2e-3)


def test_elan(timeline, write):
    pympi = pytest.importorskip("pympi")
    eaf = pympi.Elan.Eaf(str(write(".eaf")))
    assert set(eaf.get_tier_names()) == {"emotion", "emotion Ann", "emotion Bob <b> & Co", "words Ann"}
    assert sorted(eaf.get_annotation_data_for_tier("words Ann")) == [
        (500, 800, "oh"),
        (800, 900, "&"),
        (900, 1250, "well"),
    ]
    rows = timeline.utterances.assign(answer=ANSWERS)
    for speaker, own in rows.groupby("speaker", dropna=False):
        tier = "emotion" if pd.isna(speaker) else f"emotion {speaker}"
        annotations = sorted(eaf.get_annotation_data_for_tier(tier))
        times = (1000 * own[["start", "end"]]).round().astype(int).to_numpy().tolist()
        assert [list(annotation[:2]) for annotation in annotations] == times
        assert [annotation[2] for annotation in annotations] == own["answer"].tolist()
    assert eaf.get_parameters_for_tier("emotion Ann")["PARTICIPANT"] == "Ann"
    assert [media["RELATIVE_MEDIA_URL"] for media in eaf.get_linked_files()] == ["./call one.wav"]


def test_labels_of_audacity(timeline, write):
    lines = [line.split("\t") for line in write(".txt").read_text(encoding="utf-8").splitlines()]
    times = np.array([line[:2] for line in lines], float)
    np.testing.assert_allclose(times, timeline.utterances[["start", "end"]], atol=6e-4)
    assert [line[2] for line in lines] == CAPTIONS


def test_tables(timeline, write):
    table = pd.read_csv(write(".csv"))
    assert table["score_joy"].tolist()[:3] == [0.8, 0.49, 0.9]
    content = json.loads(write(".json").read_text(encoding="utf-8"))
    assert content["recording"] == "folder/call one.wav" and content["utterances"][3]["prediction"] is None
    assert content["transcribed_by"] == "whisper" and [word["word"] for word in content["words"]] == ["oh", "&", "well"]
    assert len(content["curve"]) == 3 * 7202, "each speaker and second"
    assert content["curve"][0] == {
        "second": 0,
        "speaker": "Ann",
        "prediction": "joy",
        "score_anger": pytest.approx(0.2),
        "score_joy": pytest.approx(0.8),
        "abstained": False,
    }


def test_another_format_is_refused(write):
    with pytest.raises(InputError, match="a timeline is written as"):
        write(".doc")


@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".rttm", ".eaf", ".txt", ".csv", ".json"])
def test_a_recording_without_speech(timeline, tmp_path, suffix):
    empty = timeline._replace(utterances=timeline.utterances.iloc[:0], curve=timeline.curve.iloc[:0])
    write_timeline(empty, tmp_path / f"call{suffix}")
    assert (tmp_path / f"call{suffix}").exists()
