"""An exponential moving average (EMA) of the weights, which a stage validates and saves in place of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback


_FILE = "ema.safetensors"


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of the weights (Polyak & Juditsky 1992), to be updated after every step.

    average(1) = weights(1), then average(t) = d * average(t-1) + (1 - d) * weights(t), where d is `decay` but at most
    t / (9 + t), as in TensorFlow: otherwise a training of a few hundred steps would keep much of its initial weights.

    Args:
        decay: in (0, 1); 0.999 averages over about the last thousand steps.
    """

    def update(averaged, current, steps):
        step = int(steps) + 1
        get_ema_multi_avg_fn(min(decay, step / (9 + step)))(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=update)


@contextmanager
def averaged_weights(model: nn.Module, average: AveragedModel | None) -> Iterator[None]:
    """Within this context the model has the averaged weights, if there are any."""
    if average is None:
        yield
        return
    _swap_weights(model, average)
    try:
        yield
    finally:
        _swap_weights(model, average)


def save_average(average: AveragedModel, checkpoint: str):
    """Write the average into a checkpoint's folder; [`load_average`] reads it."""
    save_model(average, str(Path(checkpoint) / _FILE))


def load_average(average: AveragedModel, checkpoint: str):
    """Read, in place, what [`save_average`] wrote."""
    load_model(average, Path(checkpoint) / _FILE, device=str(average.n_averaged.device))


class AveragingCallback(TrainerCallback):
    """Updates the average after every step, and at the end puts that of the last or the best epoch into the model."""

    def __init__(self, average: AveragedModel):
        self.average = average

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.average.update_parameters(model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if args.load_best_model_at_end and state.best_model_checkpoint:
            load_average(self.average, state.best_model_checkpoint)
        _swap_weights(model, self.average)


def _swap_weights(model: nn.Module, average: AveragedModel):
    # The storages are exchanged and not the parameters, so that optimizer and DDP keep the model's own parameters.
    for parameter, mean in zip(model.parameters(), average.module.parameters(), strict=True):
        parameter.data, mean.data = mean.data, parameter.data
