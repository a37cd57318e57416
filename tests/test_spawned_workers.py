"""Loader workers that are spawned, as on Windows and macOS, where they import everything anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset


# In a fresh process, because the workers import the main module again.
TRAINING = """
import multiprocessing, sys
from merhan.cli.main import main
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main(sys.argv[1:])
"""


def test_spawned_workers_make_the_same_batches(demo, processor):
    label2id = {label: number for number, label in enumerate(sorted(set(demo["label"])))}
    data_set = EmotionDataset(demo.head(4), processor, label2id, ["audio", "text"])
    options = {"batch_size": 2, "collate_fn": Collator(processor)}
    expected = list(DataLoader(data_set, **options))
    spawned = list(DataLoader(data_set, **options, num_workers=1, multiprocessing_context="spawn"))
    for batch, other in zip(expected, spawned, strict=True):
        torch.testing.assert_close(dict(other), dict(batch))


@pytest.mark.slow
def test_training_with_spawned_workers(tmp_path):
    changes = ["data.options={scale: 0.1}", "stages.0.epochs=1", "stages.1.epochs=1", "evaluation.conditions=[]"]
    changes += ["trainer.dataloader_num_workers=1", "trainer.max_steps=2"]
    command = ["train", "--config", "merhan:quickstart", *(word for change in changes for word in ("--set", change))]
    (tmp_path / "program.py").write_text(TRAINING, encoding="utf-8")
    project = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "program.py", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": project, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "outputs/quickstart/model/model.safetensors").is_file()
