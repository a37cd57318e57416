"""The moving average of a model's weights, which is what a stage validates and keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback


_FILE = "ema.safetensors"


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights (Polyak & Juditsky 1992), to be updated after every step.

    average(1) = weights(1), then average(t) = d * average(t-1) + (1 - d) * weights(t). d is `decay`, but no more than
    t / (9 + t), as TensorFlow's: otherwise a training of a few hundred steps would keep much of what it began with.

    Args:
        decay: in (0, 1); 0.999 remembers the last thousand steps.
    """

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], steps: torch.Tensor | int):
        step = int(steps) + 1
        get_ema_multi_avg_fn(min(decay, step / (9 + step)))(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=update)


@contextmanager
def averaged(model: nn.Module, average: AveragedModel | None) -> Iterator[None]:
    """Within it, the model has the averaged weights, if there are any."""
    if average is None:
        yield
        return
    _swap(model, average)
    try:
        yield
    finally:
        _swap(model, average)


def save_average(average: AveragedModel, checkpoint: str):
    """Beside a checkpoint's weights; `load_average` reads it back."""
    save_model(average, str(Path(checkpoint) / _FILE))


def load_average(average: AveragedModel, checkpoint: str):
    """What `save_average` wrote, in place."""
    load_model(average, Path(checkpoint) / _FILE, device=str(average.n_averaged.device))


class Averaging(TrainerCallback):
    """Averages after every step, and at the end gives the model the average of the last epoch, or of the best one."""

    def __init__(self, average: AveragedModel):
        self.average = average

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.average.update_parameters(model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if args.load_best_model_at_end and state.best_model_checkpoint:
            load_average(self.average, state.best_model_checkpoint)
        _swap(model, self.average)


def _swap(model: nn.Module, average: AveragedModel):
    # Storage changes hands, so that optimizer and DDP still hold the model's own parameters.
    for own, mean in zip(model.parameters(), average.module.parameters(), strict=True):
        own.data, mean.data = mean.data, own.data
