"""The benchmarks for a GPU, in small: they must not fail on the machine that is lent for minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The folder of what the script that runs everything writes."""
    folder = tmp_path_factory.mktemp("gpu")
    command = ["bash", "benchmarks/gpu.sh", str(folder), "all", "--trial"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "operators in forward and backward" in done.stdout
    return folder


def test_training_is_written_as_it_comes(results, tmp_path):
    lines = [json.loads(line)["result"] for line in (results / "training.jsonl").read_text("utf-8").splitlines()]
    tables = [line for line in lines if "epoch" in line]
    profiles = [line["profile, cached convolutions"] for line in lines if "profile, cached convolutions" in line]
    assert [line["epoch"] for line in tables[:2]] == ["1, cold", "2, warm"] and len(tables) == 18
    assert all(float(line["batch shapes"]) >= 1 for line in tables if line[""].startswith("fine-tuning"))
    assert len(profiles) == 1 and profiles[0]["parts"]
    command = [sys.executable, "benchmarks/gpu_training.py", "--trial", "--results", str(tmp_path / "x"), "--seconds=0"]
    stopped = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0 and stopped.stdout.count("no time left") == 10


def test_launching_is_written_as_it_comes(results):
    lines = [json.loads(line) for line in (results / "launch.jsonl").read_text("utf-8").splitlines()][1:]
    assert [line["run"] for line in lines] == ["plain", "plain, again", "quickstart, 1 + 1 epochs"]
    assert lines[0]["losses"] == lines[1]["losses"] and len(lines[0]["losses"]) == 3


def test_without_a_gpu_nothing_is_measured(tmp_path):
    command = ["bash", "benchmarks/gpu.sh", str(tmp_path / "results"), "all"]
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("no GPU here") == 2
