"""Damaged files are noticed when they are read, and results are there whole or not at all."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from merhan.content_hashes import FILE, damage, require_intact, write_hashes
from merhan.data.loading import Data
from merhan.errors import InputError
from merhan.evaluation import evaluate
from merhan.evaluation.comparison import read_system
from merhan.evaluation.evaluate import evaluate_split


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


PROTOCOL = {"name": "demo", "version": 1, "hash": None, "leaks": []}
FAULTS = [truncate, empty, flip]


@pytest.fixture
def data(demo) -> Data:
    rows = demo[demo["split"] == "test"]
    return Data(rows, rows, PROTOCOL, [], [])


@pytest.fixture
def evaluated(trained_like, processor, data, tmp_path):
    """An evaluation; returns its folder."""
    evaluate_split(trained_like.eval(), processor, data, "test", tmp_path)
    return tmp_path / "test"


def again(trained_like, processor, data, folder, seed: int):
    """Evaluate other weights into the same folder."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(trained_like.classifier.weight)
    return evaluate_split(trained_like, processor, data, "test", folder.parent)


@pytest.mark.parametrize("fault", FAULTS)
def test_hashes_tell_every_damage(fault, tmp_path):
    for name in ("a.bin", "sub/b.txt", "README.md", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    assert damage(tmp_path) is None, "without hashes.json, of an earlier version"
    write_hashes(tmp_path)
    assert damage(tmp_path) is None
    fault(tmp_path / "README.md")
    assert damage(tmp_path) is None, "a card is edited"
    fault(tmp_path / "sub" / "b.txt")
    with pytest.raises(InputError, match=r"sub.b.txt is damaged, or was changed .*; restore it\.$"):
        require_intact(tmp_path, "restore it")
    assert damage(tmp_path, ("a.bin",)) is None
    (tmp_path / "a.bin").unlink()
    assert "a.bin is missing" in damage(tmp_path)
    fault(tmp_path / FILE)
    assert damage(tmp_path) is not None


def test_hashes_are_computed_once_per_process(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"a" * 100)
    write_hashes(tmp_path)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert damage(tmp_path) is None


def test_an_evaluation_is_replaced_whole_or_not_at_all(evaluated, trained_like, processor, data, monkeypatch):
    """With the disk full, new predictions stood beside old metrics, and were compared with others."""
    before = {path.name: path.read_bytes() for path in evaluated.iterdir()}
    assert set(before) == set(evaluate.FILES)
    for name in ("write_page", "write_json", "write_hashes", "plot_reliability"):
        with monkeypatch.context() as context, pytest.raises(OSError, match="No space"):
            context.setattr(evaluate, name, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            again(trained_like, processor, data, evaluated, 1)
        assert {path.name: path.read_bytes() for path in evaluated.iterdir()} == before
        assert [path.name for path in evaluated.parent.iterdir()] == ["test"]
    assert again(trained_like, processor, data, evaluated, 1)["content_hash"] not in str(before["metrics.json"])
    assert read_system(evaluated).protocol == PROTOCOL


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["predictions.parquet", "metrics.json"])
@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_damaged_evaluation_is_not_compared(name, fault, has_hashes, evaluated):
    if not has_hashes:
        (evaluated / FILE).unlink()
        if fault is flip:
            pytest.skip("earlier versions wrote no hashes")
    fault(evaluated / name)
    with pytest.raises(InputError, match=rf"{name}.* evaluate again\.$"):
        read_system(evaluated)


@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_mixture_of_two_evaluations_is_not_compared(has_hashes, evaluated, tmp_path):
    predictions = pd.read_parquet(evaluated / "predictions.parquet")
    predictions["prediction"] = np.roll(predictions["prediction"], 1)
    predictions.loc[0, "prediction"] = "calm" if predictions["label"][0] != "calm" else "joy"
    predictions.loc[1, "prediction"] = predictions["label"][1]
    predictions.loc[2:, "prediction"] = predictions["label"]
    predictions.to_parquet(evaluated / "predictions.parquet")
    if not has_hashes:
        (evaluated / FILE).unlink()
    with pytest.raises(InputError, match=r"(damaged|different evaluations).*evaluate again\.$"):
        read_system(evaluated)


def test_half_an_evaluation_is_not_compared(evaluated):
    (evaluated / FILE).unlink()
    (evaluated / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics\.json: cannot be read .*; evaluate again\.$"):
        read_system(evaluated)
    assert read_system(evaluated / "predictions.parquet").protocol == {}, "a file alone"


def test_a_damaged_evaluation_is_computed_again(evaluated, trained_like, processor, data):
    def run() -> dict:
        return evaluate_split(trained_like, processor, data, "test", evaluated.parent, reuse=True)

    date = run()["date"]
    content = json.loads((evaluated / "metrics.json").read_text())
    assert content["date"] == date
    (evaluated / "metrics.json").write_text(json.dumps(content | {"war": 1.0}))
    assert run()["war"] == content["war"]
    assert damage(evaluated) is None


def test_a_folder_with_other_files_is_not_replaced(evaluated, trained_like, processor, data):
    (evaluated / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: is not of an evaluation, .*--output_dir"):
        again(trained_like, processor, data, evaluated, 1)
    assert (evaluated / "notes.txt").read_text() == "mine"
