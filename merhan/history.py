"""What each stage of a run learnt and cost, from the `trainer_state.json` that it leaves behind."""

import json
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from transformers import Trainer


class Stage(NamedTuple):
    """One finished stage."""

    name: str
    epochs: list[dict[str, float]]  # `epoch`, the mean training `loss` since the last, and validation's figures
    seconds: float  # of training, validation included; since the last resume
    peak_memory: float  # GiB, of the GPU where there is one, else of the process


def begin():
    """A stage's peak is its own, not that of the stages before it. The system counts a process's for good."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def record(trainer: Trainer):
    """Write the stage's history beside its checkpoints."""
    trainer.state.log_history.append({"peak_memory": peak_memory()})
    trainer.save_state()


def peak_memory() -> float:
    """The most that this process held at once, in GiB; of the GPU's memory since [`begin`]."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def stages_of(run: Path) -> list[Stage]:
    """The finished stages of a run's folder in their order; none where the folder is no run."""
    if not (run / "recipe.yaml").is_file():
        return []
    names = [stage.name for stage in OmegaConf.load(run / "recipe.yaml").stages]
    files = {name: run / name / "trainer_state.json" for name in names}
    return [_stage(name, json.loads(file.read_text())["log_history"]) for name, file in files.items() if file.is_file()]


def _stage(name: str, log: list[dict[str, Any]]) -> Stage:
    epochs, losses = [], []
    for entry in log:
        if "loss" in entry:
            losses.append(entry["loss"])
        if "eval_loss" in entry:
            scores = {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
            loss = sum(losses) / len(losses) if losses else None
            epochs.append({"epoch": entry["epoch"], "loss": loss, "validation_loss": scores.pop("loss"), **scores})
            losses = []
    last = {key: value for entry in log for key, value in entry.items()}
    return Stage(name, epochs, last.get("train_runtime", 0.0), last.get("peak_memory", 0.0))
