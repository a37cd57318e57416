"""The model's calibrated scores of windows of utterances."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from scipy.special import softmax

from merhan.models.inference import label_ids
from merhan.prediction.batches import Window
from modeling_merhan import MerhanForSequenceClassification


_NOT_FINITE = "the model's scores are not finite: its training diverged, or half precision overflowed"


def score_windows(
    model: MerhanForSequenceClassification,
    windows: Iterable[Window],
    precision: torch.dtype | None,
    advance: Callable[[int], Any],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The number of each window, and its rows with `prediction` and a score per label, which sum to 1; None where there
    is an error.

    Args:
        model: is moved to the device of this process.
        precision: of autocast; None = that of the weights.
        advance: is told the number of rows of every batch.
    """
    device = PartialState().device
    model = model.to(device).eval()  # type: ignore[arg-type]  # of a decorator in transformers
    names = list(label_ids(model))
    for window in windows:
        for positions, batch in window.batches:
            moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision is not None):
                logits = model(**moved).logits.float().cpu().numpy()
            for position, values in zip(positions, logits, strict=True):
                _add_scores(window.rows[position], values, model.config.temperature, names)
            advance(len(positions))
        advance(len(window.rows) - sum(len(positions) for positions, _ in window.batches))
        empty = {"prediction": None, **{f"score_{name}": None for name in names}}
        yield window.number, [{**empty, **row} for row in window.rows]


def _add_scores(row: dict[str, Any], logits: np.ndarray, temperatures: dict[str, float], names: list[str]):
    if not np.isfinite(logits).all():
        row["error"] = _NOT_FINITE
        return
    scores = softmax(logits / temperatures.get(row["given"], 1.0))
    row["prediction"] = names[scores.argmax()]
    row |= {f"score_{name}": float(score) for name, score in zip(names, scores, strict=True)}
