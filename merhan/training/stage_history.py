"""Metrics, duration and peak memory of each stage, read from the `trainer_state.json` that it leaves."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from transformers import Trainer

from merhan.content_hashes import require_intact, write_hashes
from merhan.files import read_json


_FILE = "trainer_state.json"


class StageHistory(NamedTuple):
    """One finished stage."""

    name: str
    epochs: list[dict[str, float | None]]  # per epoch: `epoch`, mean training `loss`, `validation_loss` and scores
    seconds: float  # training time with validation, since the stage was started or last resumed
    peak_memory: float  # GiB, of the GPU if there is one, else of the process


def reset_peak_memory():
    """Start to count the peak of the GPU's memory anew. (That of a process cannot be reset.)"""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def save_history(trainer: Trainer):
    """Write `trainer_state.json` of a finished stage, with its peak memory, and its hash."""
    trainer.state.log_history.append({"peak_memory": peak_memory()})
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_hashes(str(trainer.args.output_dir), (_FILE, "difficulty.npy"))


def peak_memory() -> float:
    """Peak memory in GiB: of the GPU since [`reset_peak_memory`], or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return _process_peak_memory() / 2**30


def _process_peak_memory() -> int:
    """Bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_history(run: Path) -> list[StageHistory]:
    """The finished stages of a run in their order; empty where the folder is not that of a run.

    Raises:
        InputError: the record of a stage is damaged.
    """
    if not (run / "recipe.yaml").is_file():
        return []
    stages = []
    for stage in OmegaConf.load(run / "recipe.yaml").stages:
        file = run / stage.name / _FILE
        if file.is_file():
            remedy = "restore it, or delete it: reports and card then go without the curves of that stage"
            require_intact(file.parent, remedy, (_FILE,))
            stages.append(_stage_history(stage.name, read_json(file, remedy)["log_history"]))
    return stages


def _stage_history(name: str, log: list[dict[str, Any]]) -> StageHistory:
    epochs: list[dict[str, float | None]] = []
    losses: list[float] = []
    for entry in log:
        if "loss" in entry:
            losses.append(entry["loss"])
        if "eval_loss" in entry:
            epochs.append(_epoch_metrics(entry, losses))
            losses = []
    last = {key: value for entry in log for key, value in entry.items()}
    return StageHistory(name, epochs, last.get("train_runtime", 0.0), last.get("peak_memory", 0.0))


def _epoch_metrics(entry: dict[str, Any], losses: list[float]) -> dict[str, float | None]:
    """The metrics of one validation pass, with the mean training loss since the one before."""
    scores = {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
    loss = sum(losses) / len(losses) if losses else None
    return {"epoch": entry["epoch"], "loss": loss, "validation_loss": scores.pop("loss"), **scores}
