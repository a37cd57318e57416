"""`merhan predict` over 2,000 clips of RAVDESS and EMO-DB and ten broken files: killed, resumed, by two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import soundfile

import merhan


pytestmark = pytest.mark.slow  # minutes: every clip of two corpora, three times

CLIPS = 2_000
KILLED_AFTER = (1, 3, 6)  # parts that are there when the process is killed, of eight


def break_files(folder: Path, clip: Path) -> dict[str, str]:
    """Ten files that are no sound, each in its own way."""
    folder.mkdir()
    content = clip.read_bytes()
    kinds = {
        "empty.wav": b"",
        "text.wav": b"no sound",
        "zeros.wav": bytes(4096),
        "cut.wav": content[: len(content) // 2],
        "header.wav": content[:44],
        "pointer.wav": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "page.mp3": b"<html>not found</html>",
        "noise.flac": b"fLaC" + bytes(range(256)) * 8,
    }
    for name, broken in kinds.items():
        (folder / name).write_bytes(broken)
    soundfile.write(folder / "nothing.wav", [], 16_000)
    (folder / "folder.wav").mkdir()
    return {f"broken/{path.name}": str(path) for path in folder.iterdir()}


@pytest.fixture
def table(corpora, trained_like, processor, tmp_path) -> Path:
    """A table of all clips, some of them twice, with broken files between them, beside the model."""
    for part in (trained_like, processor):
        part.save_pretrained(tmp_path / "model")
    emodb = sorted((corpora / "emodb").rglob("*.wav"))
    clips = [*sorted((corpora / "ravdess").rglob("*.flac")), *emodb]
    assert len(clips) == 1_975
    paths = {f"{number:04d}": str(clips[number % len(clips)]) for number in range(CLIPS)}
    broken = break_files(tmp_path / "broken", emodb[0])
    rows = pd.DataFrame({"utterance_id": [*paths, *broken], "audio": [*paths.values(), *broken.values()]})
    rows.sample(frac=1, random_state=0).to_csv(tmp_path / "clips.csv", index=False)
    return tmp_path / "clips.csv"


def command(table: Path, out: str) -> list[str]:
    return ["merhan", "predict", str(table.parent / "model"), str(table), "--out", str(table.parent / out)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(merhan.__file__).parent.parent), "OMP_NUM_THREADS": "1"}


def test_killed_and_resumed_and_by_two_processes(table):
    folder = table.parent
    subprocess.run([sys.executable, "-m", *command(table, "whole.parquet")], env=environment(), check=True)
    whole = pd.read_parquet(folder / "whole.parquet")
    assert len(whole) == CLIPS + 10
    errors = whole[whole["error"].notna()]
    assert len(errors) == 10 and errors["utterance_id"].str.startswith("broken/").all(), errors["error"].tolist()
    assert errors["error"].str.len().min() > 20

    for parts in KILLED_AFTER:
        process = subprocess.Popen([sys.executable, "-m", *command(table, "killed.parquet")], env=environment())
        while len(list((folder / "killed.parquet.parts").glob("[0-9]*.parquet"))) < parts:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "killed.parquet").exists()
    subprocess.run([sys.executable, "-m", *command(table, "killed.parquet")], env=environment(), check=True)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "killed.parquet"), whole)
    assert not (folder / "killed.parquet.parts").exists()

    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m"]
    subprocess.run([*launcher, *command(table, "shared.parquet")], env=environment(), check=True)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "shared.parquet"), whole, rtol=1e-5)
