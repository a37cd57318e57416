"""The TrainingArguments of a stage."""

import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from merhan.logs import get_logger, progress_is_visible
from merhan.models.inference import HALF_PRECISION, machine_defaults, without_cudnn_attention


logger = get_logger(__name__)

DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.1,  # a share of the steps
    "weight_decay": 0.01,
    "logging_steps": 10,
    "dataloader_pin_memory": torch.cuda.is_available(),
    "accelerator_config": {"non_blocking": torch.cuda.is_available()},  # a batch is copied while the GPU computes
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,  # the best checkpoint is kept besides the last
    "load_best_model_at_end": True,
    "report_to": "tensorboard",
    "remove_unused_columns": False,
    "train_sampling_strategy": "group_by_length",  # or `random`: more padding, and batches of any lengths
    "restore_callback_states_from_checkpoint": True,
}


def training_arguments(
    folder: Path, options: Mapping[str, Any], epochs: float, metric: str, seed: int
) -> TrainingArguments:
    """Our defaults, those of the machine, and the recipe's options on top.

    Half precision is switched off, with a warning, where there is no GPU, unless `use_cpu` is set.

    Args:
        folder: the stage's folder.
        options: fields of TrainingArguments.
        epochs: number of epochs.
        metric: validation metric that selects the best epoch.
        seed: seed of the stage.
    """
    without_cudnn_attention()
    chosen = machine_defaults(options)
    if chosen:
        listed = ", ".join(f"{name}={value}" for name, value in chosen.items())
        _log_once(logging.INFO, f"chosen for this machine: {listed}")
    options = {"disable_tqdm": not progress_is_visible(), **DEFAULTS, **chosen, **options}
    half_precision = [name for name in ("bf16", "fp16") if options.get(name)]
    if half_precision and not torch.cuda.is_available() and not options.get("use_cpu"):
        _log_once(logging.WARNING, f"no GPU: training in float32 instead of {half_precision[0]}")
        options |= dict.fromkeys(half_precision, False)
    # The filter waits for the GPU in each step, and hides a training that diverges, which `MerhanTrainer` reports. In
    # fp16 a loss may be infinite until the scale of the gradients is found.
    options.setdefault("logging_nan_inf_filter", bool(options.get("fp16")))
    options["report_to"] = options["report_to"] or "none"
    options = {name: value for name, value in options.items() if not name.startswith("torch_compile")}  # of our own
    if "tensorboard" in options["report_to"]:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.parent / "tensorboard" / folder.name)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        metric_for_best_model=metric,
        greater_is_better=True,
        seed=seed,
        **options,
    )


@cache
def _log_once(level: int, text: str):
    """Log a line that every stage, and the check of the recipe, would repeat."""
    logger.log(level, text)


def autocast_precision(arguments: TrainingArguments) -> torch.dtype | None:
    """The half precision that a stage computes in; None = that of the weights."""
    return next((dtype for name, dtype in HALF_PRECISION.items() if getattr(arguments, name)), None)
