"""Damaged files are noticed when they are read, and results are there whole or not at all."""

import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LABEL2ID
from safetensors.torch import load_file

from merhan import api
from merhan.content_hashes import FILE, damage, require_intact, write_hashes
from merhan.data.dataset import EmotionDataset
from merhan.data.loading import Data
from merhan.data.provenance import read_provenance
from merhan.errors import InputError
from merhan.evaluation import evaluate
from merhan.evaluation.comparison import read_system
from merhan.evaluation.evaluate import evaluate_split
from merhan.files import atomic_path
from merhan.training import stage
from merhan.training.checkpoints import last_checkpoint
from merhan.training.feature_cache import use_cached_features
from merhan.training.run_folder import _HASHED
from merhan.training.stage_history import read_history, save_history


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


KILLED = """
import os, signal, sys
from merhan.files import atomic_path
with atomic_path(sys.argv[1]) as part:
    part.mkdir()
    (part / "half.json").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_killed_processes_left_is_removed_by_the_next_start(trained_like, processor, data, tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "test")], check=False)
    (left,) = tmp_path.iterdir()
    others = [".hidden", ".other.part", ".test.000000-1.part"]  # the last of another machine
    for name in others:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "at work") as part:
        part.touch()
        evaluate_split(trained_like.eval(), processor, data, "test", tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"test", part.name, *others}
    assert left.name.startswith(".test.") and damage(tmp_path / "test") is None


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


# --- the artefacts of training ---

RECIPE = """
run_name: small
output_dir: {folder}/outputs
data: {{corpus: demo, source: {folder}/demo, options: {{scale: 0.1}}, accept_leaks: [text], max_seconds: 2}}
model: {{text_backbone: tiny, config: {{hidden_size: 8, num_attention_heads: 1, intermediate_size: 8}}}}
stages:
  - {{name: warmup, epochs: 1, learning_rate: {{head: 1.0e-3}}}}
  - {{name: full, epochs: 2, learning_rate: {{head: 1.0e-3, text: 1.0e-4}}, trainer: {{save_total_limit: 3}}}}
sampling: {{curriculum: {{order: confidence}}}}
ema_decay: 0.9
trainer: {{per_device_train_batch_size: 16, report_to: none}}
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run that was interrupted in its second stage after two checkpoints, and its recipe."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    with pytest.MonkeyPatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(stage, "save_history", interrupt_second_stage)
        api.train(folder / "recipe.yaml")
    return folder


def interrupt_second_stage(trainer):
    save_history(trainer)
    if Path(trainer.args.output_dir).name == "full":
        raise KeyboardInterrupt


@pytest.fixture(scope="session")
def whole(run, tmp_path_factory):
    """The run without damage, resumed."""
    folder = copy_of(run, tmp_path_factory.mktemp("whole"))
    resumed(folder)
    return folder / "outputs" / "small"


@pytest.fixture(scope="session")
def weights(whole):
    return load_file(whole / "model" / "model.safetensors")


def copy_of(run, folder):
    """A copy of the run, which is resumed there."""
    shutil.copytree(run / "outputs", folder / "outputs")
    text = (run / "recipe.yaml").read_text().replace(f"{run}/outputs", f"{folder}/outputs")
    (folder / "recipe.yaml").write_text(text)
    for file in folder.rglob("recipe.yaml"):
        file.write_text(file.read_text().replace(f"{run}/outputs", f"{folder}/outputs"))
    write_hashes(folder / "outputs" / "small", _HASHED)
    return folder


def resumed(folder) -> dict:
    api.train(folder / "recipe.yaml", resume=True)
    return load_file(folder / "outputs" / "small" / "model" / "model.safetensors")


CHECKPOINT = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [*CHECKPOINT, "ema.safetensors"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(name, fault, run, tmp_path, caplog):
    folder = copy_of(run, tmp_path) / "outputs" / "small" / "full"
    older, newer = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-2:]
    assert last_checkpoint(folder) == str(newer)
    fault(newer / name)
    with caplog.at_level("WARNING"):
        logging.getLogger("merhan").propagate = True
        assert last_checkpoint(folder) == str(older)
    assert f"{newer / name} is damaged" in caplog.text and f"resuming from {older}" in caplog.text
    assert not newer.exists()


def test_a_checkpoint_whose_best_epoch_is_damaged_is_passed_over(run, tmp_path):
    folder = copy_of(run, tmp_path) / "outputs" / "small" / "full"
    older, newer = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-2:]
    state = json.loads((newer / "trainer_state.json").read_text()) | {"best_model_checkpoint": f"moved/{older.name}"}
    (newer / "trainer_state.json").write_text(json.dumps(state))
    write_hashes(newer)
    assert last_checkpoint(folder) == str(newer)
    flip(older / "model.safetensors")
    assert last_checkpoint(folder) is None, "the older one is damaged itself"


def test_a_run_whose_checkpoint_was_damaged_ends_with_the_same_weights(run, weights, tmp_path):
    folder = copy_of(run, tmp_path)
    newest = max(folder.rglob("full/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    flip(newest / "optimizer.pt")
    empty(folder / "outputs" / "small" / "full" / "difficulty.npy")
    again = resumed(folder)
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


def test_checkpoints_of_earlier_versions_are_resumed(run, weights, tmp_path):
    folder = copy_of(run, tmp_path)
    for file in folder.rglob(FILE):
        file.unlink()
    again = resumed(folder)
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "name", ["warmup/model/model.safetensors", "warmup/model/config.json", "recipe.yaml", "provenance.json"]
)
def test_other_damage_of_a_run_is_named_when_it_is_resumed(name, fault, run, tmp_path):
    folder = copy_of(run, tmp_path)
    fault(folder / "outputs" / "small" / name)
    with pytest.raises(InputError, match=rf"{name} is damaged, or was changed .*; .*(--resume|--overwrite)\.$"):
        resumed(folder)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "model/config.json", "model/tokenizer.json", "recipe.yaml"]
)
def test_damage_of_a_finished_run_is_named_when_it_is_evaluated(name, fault, run, whole, tmp_path):
    (tmp_path / "a").mkdir()
    shutil.copytree(run / "demo", tmp_path / "demo")  # where the run's manifest has it, relative to the run
    done = tmp_path / "a" / "done"
    shutil.copytree(whole, done)
    fault(done / name)
    with pytest.raises(InputError, match=rf"{name} is damaged, or was changed .*; restore it, or delete hashes.json"):
        api.evaluate(done)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"data": '])
@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_damaged_provenance_does_not_hide_a_leak(content, has_hashes, tmp_path):
    assert read_provenance(str(tmp_path)) == {}, "weights from elsewhere have none"
    (tmp_path / "provenance.json").write_text('{"data": {"corpora": ["demo"]}}')
    if has_hashes:
        write_hashes(tmp_path)
    assert read_provenance(str(tmp_path))["data"]
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(InputError, match=r"provenance.json:? is damaged.* train again\.$"):
        read_provenance(str(tmp_path))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("has_hash", [True, False])
def test_damaged_features_are_computed_again(
    fault, has_hash, demo, trained_like, processor, monkeypatch, caplog, tmp_path
):
    """A truncated entry was refused for ever; a flipped bit gave other results."""
    monkeypatch.setenv("MERHAN_CACHE", str(tmp_path))
    dataset = EmotionDataset(demo.head(3), processor, LABEL2ID, ["text"])

    def compute() -> list[np.ndarray]:
        use_cached_features(trained_like.merhan, dataset, "text", torch.device("cpu"))
        return [np.load(file) for file in dataset.features["text"]]

    first = compute()
    file = dataset.features["text"][1]
    if not has_hash:
        file.write_bytes(file.read_bytes()[:-16])
        with monkeypatch.context() as context:
            context.setattr(trained_like.merhan, "encode", None)
            compute()
        if fault is flip:
            return
    fault(file)
    logging.getLogger("merhan").propagate = True
    again = compute()
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert "1 damaged entries of the feature cache are computed again" in caplog.text
    caplog.clear()
    compute()
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_record_of_a_stage_is_named(run, tmp_path, fault):
    small = copy_of(run, tmp_path) / "outputs" / "small"
    assert read_history(small)[0].epochs
    fault(small / "warmup" / "trainer_state.json")
    with pytest.raises(InputError, match=r"trainer_state.json is damaged.*; restore it, or delete it"):
        read_history(small)
    (small / "warmup" / "trainer_state.json").unlink()
    assert "warmup" not in [stage.name for stage in read_history(small)]
