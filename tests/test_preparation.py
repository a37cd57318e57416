"""`merhan prepare` and `merhan doctor`."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from releases import msp_podcast

from merhan.cli import main as cli
from merhan.data.corpora.base import read_corpus
from merhan.data.loading import load_data
from merhan.data.manifest import read_manifest, write_manifest
from merhan.data.preparation import prepare
from merhan.errors import InputError
from merhan.logs import captured_messages
from merhan.recipe.schema import DataRecipe
from processing_merhan import load_audio


REPOSITORY = Path(__file__).parent.parent
KILLED = """
import os, signal, sys
from merhan.data import preparation
written = 0
original = preparation._convert
def convert(job):
    global written
    outcome = original(job)
    written += outcome.written
    if written == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome
preparation._convert = convert
from merhan.cli import main as cli
cli.main(sys.argv[2:])
"""


@pytest.fixture
def release(tmp_path, tone) -> Path:
    """Two actors of a synthetic RAVDESS with 48 kHz, half of it stereo."""
    folder = tmp_path / "raw"
    for actor in ("01", "02"):
        (folder / f"Actor_{actor}").mkdir(parents=True)
        for emotion in range(1, 9):
            name = f"03-01-{emotion:02d}-01-01-01-{actor}.wav"
            path = tone("a.wav", seconds=0.5 + emotion / 10, rate=48_000, channels=1 + emotion % 2)
            shutil.copy(path, folder / f"Actor_{actor}" / name)
    return folder


def test_prepared_audio_equals_the_original(release, tmp_path):
    with captured_messages() as messages:
        rows = prepare("ravdess", release, tmp_path / "out").rows
    assert "| 05 | anger | 192 | 2 | 0 |" in messages[0] and "16 recordings written, 0 existed already" in messages
    again = read_manifest(tmp_path / "out/manifest.parquet")
    assert again["audio"].tolist() == rows["audio"].tolist()
    raw = read_corpus("ravdess", release).rows.set_index("utterance_id")
    for row in again.itertuples():
        info = soundfile.info(row.audio)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        original = load_audio(raw.loc[row.utterance_id, "audio"])
        np.testing.assert_allclose(load_audio(row.audio), original, atol=1e-4)
        assert row.duration == pytest.approx(len(original) / 16_000)
    about = json.loads((tmp_path / "out/corpus.json").read_text())
    assert about["licence"] == "CC BY-NC-SA 4.0"
    assert {"word": "05", "label": "anger", "utterances": 2} in about["labels"]


def test_a_finished_conversion_is_not_repeated(release, tmp_path):
    prepare("ravdess", release, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").iterdir()}
    manifest = (tmp_path / "out/manifest.parquet").read_bytes()
    with captured_messages() as messages:
        prepare("ravdess", release, tmp_path / "out")
    assert "0 recordings written, 16 existed already" in messages
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").iterdir()} == before
    assert (tmp_path / "out/manifest.parquet").read_bytes() == manifest


def test_a_killed_conversion_is_resumed(release, tmp_path):
    words = ["prepare", "ravdess", str(release), str(tmp_path / "killed")]
    done = subprocess.run([sys.executable, "-c", KILLED, "8", *words], cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    files = list((tmp_path / "killed/audio").glob("[!.]*.flac"))
    assert 8 <= len(files) < 16 and not (tmp_path / "killed/manifest.parquet").exists()
    before = {path: path.stat().st_mtime_ns for path in files}
    prepare("ravdess", release, tmp_path / "killed")
    prepare("ravdess", release, tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert not list((tmp_path / "killed/audio").glob(".*"))
    killed, whole = (pd.read_parquet(tmp_path / name / "manifest.parquet") for name in ("killed", "whole"))
    pd.testing.assert_frame_equal(killed, whole)
    for name in killed["audio"]:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_unreadable_recordings_are_listed_and_left_out(release, tmp_path):
    files = sorted(release.rglob("*.wav"))
    files[0].write_bytes(b"no sound" * 99)
    files[1].write_bytes(b"")
    files[2].write_bytes(files[2].read_bytes()[: files[2].stat().st_size // 2])
    with captured_messages() as messages:
        rows = prepare("ravdess", release, tmp_path / "out").rows
    assert len(rows) == 16 and "3 failed (3 of their rows stay, with their words)" in messages[-1]
    assert (rows["audio"] == "").sum() == 3 and (rows["text"] != "").all()
    failed = pd.read_csv(tmp_path / "out/failed.csv")
    assert failed["audio"].tolist() == [str(path) for path in files[:3]]
    assert failed["error"].str.contains("cannot be decoded|empty file|truncated").all()
    shutil.copy(files[8], files[0])  # the next run reads the replaced file
    assert len(prepare("ravdess", release, tmp_path / "out").rows) == 16
    assert len(pd.read_csv(tmp_path / "out/failed.csv")) == 2


@pytest.mark.parametrize(("share", "code"), [("0.5", 0), ("0.2", 1), ("0", 1)])
def test_exit_code_1_where_too_many_recordings_failed(share, code, tmp_path, tone, capsys):
    lines = ["audio,label", *(f"{number}.wav,joy" for number in range(3)), "broken.wav,joy"]
    for number in range(3):
        tone(f"{number}.wav")
    (tmp_path / "broken.wav").write_bytes(b"no sound" * 99)
    (tmp_path / "m.csv").write_text("\n".join(lines))
    words = ["prepare", "table", str(tmp_path / "m.csv"), str(tmp_path / "out"), "--max_failed", share]
    if code:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 1
        assert f"1 of 4 recordings failed, more than --max_failed {float(share):g}" in capsys.readouterr().err
    else:
        cli.main(words)
    assert len(read_manifest(tmp_path / "out/manifest.parquet")) == 3, "the row without words is left out"


def test_only_files_existed_already(tmp_path, tone):
    tone("a.wav")
    (tmp_path / "m.csv").write_text("audio,text,label\na.wav,yes,joy\n,no,anger\n,well,joy\n")
    for expected in ("1 recordings written, 0 existed already", "0 recordings written, 1 existed already"):
        with captured_messages() as messages:
            prepare("table", tmp_path / "m.csv", tmp_path / "out")
        assert messages[-1] == f"{expected}, 2 rows have no recording"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--label", "joy"], "--label joy: write KEY=VALUE, as --label happy=joy"),
        (["--label", "=joy"], "--label =joy: write KEY=VALUE"),
        (["--column", "audio"], "--column audio: write KEY=VALUE, as --column audio=file"),
        (["--option", "root"], "--option root: write KEY=VALUE, as --option root=clips"),
    ],
)
@pytest.mark.parametrize("command", [["prepare", "table", "m.csv", "out"], ["doctor", "m.csv", "--corpus", "table"]])
def test_an_option_without_a_value(command, words, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, *words])
    assert ended.value.code == 2 and expected in capsys.readouterr().err


def test_a_label_of_ones_own_is_carried_through(tmp_path, tone, capsys):
    """From prepare, which declares it, to the doctor, the readers and the audit."""
    lines = ["audio,label,speaker,split"]
    for number, split in enumerate(["train", "validation", "test"]):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(16_000), 16_000)
        lines += [f"{number}.wav,{label},{split},{split}" for label in ("Stress", "joy")]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    source, out = str(tmp_path / "m.csv"), tmp_path / "out"
    with pytest.raises(SystemExit):
        cli.main(["prepare", "table", source, str(out)])
    assert "label 'Stress' (3 rows) is not in the vocabulary" in capsys.readouterr().err
    cli.main(["prepare", "table", source, str(out), "--own_label", "stress"])
    assert json.loads((out / "corpus.json").read_text(encoding="utf-8"))["own_labels"] == ["stress"]
    code, said = doctor(capsys, out / "manifest.parquet")
    assert "| stress | 3 |" in said and code == 0
    code, said = doctor(capsys, source, "--corpus", "table", "--own_label", "stress")
    assert "| stress | 3 |" in said
    assert set(read_corpus("manifest", out / "manifest.parquet").rows["label"]) == {"stress", "joy"}
    assert set(
        load_data(DataRecipe("manifest", str(out / "manifest.parquet")), ["audio"], ["audio"]).rows["label"]
    ) == {
        "stress",
        "joy",
    }
    (out / "corpus.json").unlink()
    with pytest.raises(InputError, match=r"declare a label of your own with data.own_labels: \[stress\]"):
        read_corpus("manifest", out / "manifest.parquet")
    assert len(read_corpus("manifest", out / "manifest.parquet", own_labels=["stress"]).rows) == 6


def test_a_removed_line_does_not_reuse_the_audio_of_another_row(tmp_path, tone):
    """The table has no ids, so rows are numbered, and the numbers of the following rows change."""
    lines = ["audio,label"]
    for number, label in enumerate(("joy", "anger", "fear")):
        tone(f"{number}.wav", seconds=1.0 + number)
        lines.append(f"{number}.wav,{label}")
    table = tmp_path / "clips.csv"
    for content in (lines, [lines[0], *lines[2:]]):
        table.write_text("\n".join(content))
        rows = prepare("table", table, tmp_path / "out").rows
    durations = {
        label: soundfile.info(audio).duration for label, audio in zip(rows["label"], rows["audio"], strict=True)
    }
    assert durations == {"anger": 2.0, "fear": 3.0}


def test_a_turn_whose_recording_cannot_be_read_keeps_its_text(tmp_path, tone):
    tone("a.wav")
    (tmp_path / "b.wav").write_bytes(b"no sound" * 99)
    lines = ["utterance_id,corpus,audio,text,label,dialogue,turn", "a,own,a.wav,Hi.,joy,d,0", "b,own,b.wav,No.,joy,d,1"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    rows = prepare("manifest", tmp_path / "m.csv", tmp_path / "out").rows
    assert rows["text"].tolist() == ["Hi.", "No."] and rows["audio"].iloc[1] == "" and rows["audio"].iloc[0]
    assert len(pd.read_csv(tmp_path / "out/failed.csv")) == 1


def test_strict_requires_the_published_counts(release, tmp_path):
    with pytest.raises(InputError, match="'01' 2 instead of 96"):
        prepare("ravdess", release, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


def test_strict_accepts_a_complete_release(corpora, tmp_path):
    with captured_messages() as messages:
        rows = prepare("emodb", corpora / "emodb", tmp_path / "out", strict=True).rows
    assert len(rows) == 535 and "| all |  | 535 | 535 | 0 |" in messages[0]


def test_strict_accepts_a_corpus_without_published_counts(tmp_path):
    source = msp_podcast.make(tmp_path)
    with captured_messages() as messages:
        rows = prepare("msp_podcast", source, tmp_path / "out", strict=True).rows
    assert "| A | anger | 1 | 0 |" in messages[0] and "no published counts are known" in messages[0]
    assert "| published |" not in messages[0] and len(rows) == 9


def test_the_option_label_merges_and_drops_labels(release, tmp_path, capsys):
    cli.main(
        ["prepare", "ravdess", str(release), str(tmp_path / "out"), "--label", "calm=neutral", "--label", "disgust="]
    )
    rows = read_manifest(tmp_path / "out/manifest.parquet")
    assert rows["label"].value_counts()["neutral"] == 4 and "disgust" not in set(rows["label"])
    assert "2 left out: label 'disgust' is dropped" in capsys.readouterr().out


def test_segments_are_written_as_recordings(tmp_path, tone):
    tone("long.wav", seconds=3.0)
    lines = ["utterance_id,corpus,audio,text,label,start,end", "a/1,own,long.wav,,joy,0.5,1.5", "b,own,,words,joy,,"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    prepare("manifest", tmp_path / "m.csv", tmp_path / "out")
    rows = read_manifest(tmp_path / "out/manifest.parquet")
    assert rows["duration"].tolist() == [1.0, 0.0] and "start" not in rows
    assert soundfile.info(rows["audio"].iloc[0]).duration == 1.0 and rows["audio"].iloc[1] == ""


# --- the doctor ---


def doctor(capsys, *words) -> tuple[int, str]:
    """The exit code and the output of `merhan doctor`."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *map(str, words)])
    return ended.value.code, capsys.readouterr().out


def test_doctor_of_ravdess_reports_duplicates_and_stereo_files(corpora, capsys):
    code, said = doctor(capsys, corpora / "ravdess")
    assert code == 0 and "1440 utterances, 1.48 h" in said
    duplicates = next(line for line in said.splitlines() if "byte-identical" in line)
    assert "| 2 |" in duplicates and all(f"03-01-03-01-02-0{take}-07" in duplicates for take in (1, 2))
    stereo = next(line for line in said.splitlines() if "several channels" in line)
    names = ["01-01-02-01", "08-01-02-02-01", "02-01-02-02-05", "03-01-02-01-20", "06-01-01-02-20"]
    assert "| 5 |" in stereo and all(name in stereo for name in names)


def test_doctor_of_emodb_suggests_limits(corpora, capsys, tmp_path):
    code, said = doctor(capsys, corpora / "emodb", "--corpus", "emodb", "--json", tmp_path / "d.json")
    assert code == 0 and "data.max_seconds=6" in said and "data.max_tokens=32" in said
    diagnosis = json.loads((tmp_path / "d.json").read_text())
    assert diagnosis["healthy"] and diagnosis["labels"]["anger"] == 127 and diagnosis["seconds"]["100%"] == 8.98
    assert len(diagnosis["speakers"]) == 10


def test_doctor_of_git_lfs_pointers_names_the_remedy(tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    code, said = doctor(capsys, tmp_path)
    assert (
        code == 1 and "Git LFS pointers" in said and "git lfs pull" in said and "fix the errors before training" in said
    )


@pytest.mark.parametrize(
    ("fault", "expected", "code"),
    [
        ("silent", "silent recordings", 1),
        ("clipped", "clipped recordings", 0),
        ("short", "recordings under 0.3 s", 0),
        ("long", "recordings over 30 s", 0),
        ("slow", "recordings below 16 kHz", 0),
        ("other rate", "recordings of 48000 Hz, where others have 16000", 0),
        ("wrong duration", "differ from their annotation", 0),
        ("no text", "rows without text", 0),
        ("missing", "recordings that do not exist", 1),
        ("rare", "labels with under ten rows", 0),
        ("no sound", "rows without sound", 0),
        ("null word", "cells of text such as `nan`", 0),
        ("same text", "whose text is that of one row in twenty", 0),
    ],
)
def test_doctor_finds(fault, expected, code, tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        path, rate, seconds, gain = tmp_path / f"{number}.wav", 16_000, 0.6, 0.1
        text, label, annotated = f"words {number}", ("joy", "anger")[number % 2], None
        if fault == "same text":
            text = f"words {number % 2}"
        if number == 3:
            rate = {"slow": 8_000, "other rate": 48_000}.get(fault, rate)
            seconds = {"short": 0.1, "long": 31.0}.get(fault, seconds)
            gain = {"silent": 1e-5, "clipped": 2.0}.get(fault, gain)
            text = {"no text": "", "null word": "NaN"}.get(fault, text)
            label = {"rare": "fear"}.get(fault, label)
            annotated = {"wrong duration": 9.0}.get(fault)
        waveform = np.clip(gain * rng.standard_normal(round(rate * seconds)), -1, 1)
        soundfile.write(path, waveform, rate)
        rows.append([f"u{number}", "own", path.name, text, label, annotated or seconds])
    table = pd.DataFrame(rows, columns=["utterance_id", "corpus", "audio", "text", "label", "duration"])
    table.to_csv(tmp_path / "m.csv", index=False)
    if fault == "no sound":
        table.loc[3, "audio"] = ""
        table.to_csv(tmp_path / "m.csv", index=False)
    if fault == "missing":
        (tmp_path / "3.wav").unlink()
    exit_code, said = doctor(capsys, tmp_path / "m.csv", "--html", tmp_path / "page.html")
    assert exit_code == code
    line = next(line for line in said.splitlines() if expected in line)
    assert "u3" in line or fault in ("rare", "same text")
    page = (tmp_path / "page.html").read_text()
    assert expected.split(",")[0] in page and "http" not in page.replace("data:image/png;base64", "")


def test_doctor_of_the_demo_corpus_has_no_errors(demo, tmp_path, capsys):
    write_manifest(demo, tmp_path / "m.parquet")
    code, said = doctor(capsys, tmp_path / "m.parquet", "--html", tmp_path / "page.html")
    assert code == 0 and "training can start" in said and "error" not in said
    assert (tmp_path / "page.html").read_text().count("<img") == 4
