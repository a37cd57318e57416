"""The benchmark for a GPU, in small: it must not fail on the machine that is lent for minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_results_as_they_come(tmp_path):
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "benchmarks/gpu_training.py", "--trial", "--results", str(results)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line)["result"] for line in results.read_text(encoding="utf-8").splitlines()]
    tables = [line for line in lines if "epoch" in line]
    profiles = [line["profile, cached convolutions"] for line in lines if "profile, cached convolutions" in line]
    assert [line["epoch"] for line in tables[:2]] == ["1, cold", "2, warm"] and len(tables) == 18
    assert all(float(line["batch shapes"]) >= 1 for line in tables if line[""].startswith("fine-tuning"))
    assert len(profiles) == 1 and profiles[0]["parts"]
    assert "operators in forward and backward" in done.stdout
    stopped = subprocess.run([*command, "--seconds", "0"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0 and stopped.stdout.count("no time left") == 10


@pytest.mark.slow
def test_the_launch_benchmark_runs_and_writes_results_as_they_come(tmp_path):
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "benchmarks/gpu_launch.py", "--trial", "--results", str(results)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()][1:]
    assert [line["run"] for line in lines] == ["plain", "plain, again", "quickstart, 1 + 1 epochs"]
    assert lines[0]["losses"] == lines[1]["losses"] and len(lines[0]["losses"]) == 3
