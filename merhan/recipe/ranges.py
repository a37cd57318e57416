"""Ranges of numbers, in one form for the keys of a recipe, for TrainingArguments and for the options of commands.

A range is a mapping with any of `minimum`, `above`, `maximum`, `below`.
"""

import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, get_args

from merhan.errors import InputError


Range = Mapping[str, Any]

LARGEST_SEED = 2**32 - 1001  # NumPy takes 32 bits, and stages add their number

_COUNT = {"minimum": 1}
_INTERVAL = {"above": 0, "maximum": 1e9}
# TrainingArguments -> range. Every other number among them must be finite and at least 0.
TRAINER: dict[str, Range] = {
    "max_steps": {"minimum": -1},
    "local_rank": {"minimum": -1},
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "dataloader_prefetch_factor": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "dataloader_num_workers": {"minimum": 0, "maximum": 1024},
    "data_seed": {"minimum": 0, "maximum": LARGEST_SEED},
    "logging_steps": _INTERVAL,
    "eval_steps": _INTERVAL,
    "save_steps": _INTERVAL,
    "eval_delay": {"minimum": 0, "maximum": 1e9},
    "warmup_steps": {"minimum": 0, "maximum": 1e9},
    "weight_decay": {"minimum": 0, "maximum": 100},
    "adam_beta1": {"minimum": 0, "below": 1},
    "adam_beta2": {"minimum": 0, "below": 1},
    "adam_epsilon": {"minimum": 0, "maximum": 1},
    "neftune_noise_alpha": {"minimum": 0, "maximum": 1e6},
}
# Fields of the model's configs -> range. Every other count among them is 1 to 1e6, every other number at least 0.
MODEL: dict[str, Range] = {
    "spec_augment_masks": {"minimum": 0},
    "mask_time_length": {"minimum": 0},
    "mask_feature_length": {"minimum": 0},
    "layer_norm_eps": {"above": 0, "maximum": 1},
    "initializer_range": {"minimum": 0, "maximum": 100},
    "focal_gamma": {"minimum": 0, "maximum": 100},
    "dimension_weight": {"minimum": 0, "maximum": 1e6},
}
# Fields of peft's configs -> range; others are left to peft.
ADAPTERS: dict[str, Range] = {
    "r": _COUNT,
    "lora_alpha": {"above": 0, "maximum": 1e6},
    "alpha": {"above": 0, "maximum": 1e6},
    "lora_dropout": {"minimum": 0, "maximum": 1},
    "rank_dropout": {"minimum": 0, "maximum": 1},
    "module_dropout": {"minimum": 0, "maximum": 1},
}


def is_within(number: float, bounds: Range) -> bool:
    """Whether a number is finite and within its range."""
    if not math.isfinite(number):
        return False
    low, above = bounds.get("minimum"), bounds.get("above")
    high, below = bounds.get("maximum"), bounds.get("below")
    too_low = (low is not None and number < low) or (above is not None and number <= above)
    too_high = (high is not None and number > high) or (below is not None and number >= below)
    return not too_low and not too_high


def describe_bounds(bounds: Range) -> str:
    """A range in words, as `above 0, at most 1`; empty where anything goes."""
    words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}
    return ", ".join(f"{word} {bounds[name]:g}" for name, word in words.items() if bounds.get(name) is not None)


def check_typed(value: Any, hint: Any, bounds: Range, where: str):
    """Check a value of a free mapping whose field elsewhere has a type: its type and its range.

    Args:
        value: as YAML gives it.
        hint: type of the field; others than numbers, words and switches are not checked.
        bounds: range of a number.
        where: file and key, for the error message.

    Raises:
        InputError: names the key, the value and what it must be.
    """
    types = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
    if value is None and NoneType in types:
        return
    types -= {NoneType}
    wanted = _wanted(types, bounds)
    if wanted and not _fits(value, types, bounds):
        raise InputError(f"{where} is {value!r}; it must be {wanted}.")


def _wanted(types: set[Any], bounds: Range) -> str:
    """What a value must be; empty where that is not checked."""
    if types == {bool}:
        return "true or false"
    if types == {int}:
        return f"a whole number, {describe_bounds(bounds)}"
    if types in ({float}, {float, int}):
        return f"a number, {describe_bounds(bounds)}"
    return ""


def _fits(value: Any, types: set[Any], bounds: Range) -> bool:
    if types == {bool}:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if types == {int} and not isinstance(value, int):
        return False
    return is_within(value, bounds)
