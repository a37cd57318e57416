"""Adapters of peft on frozen backbones: few trainable weights, merged into the backbone at the end of a stage."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from peft import PeftModel, get_peft_config, get_peft_model

from merhan.errors import InputError
from modeling_merhan import MerhanForSequenceClassification


# WavLM passes these weights to PyTorch's attention without calling their modules: an adapter on them would do nothing.
_NEVER_CALLED = {"wavlm": ["q_proj", "k_proj", "v_proj", "out_proj"]}


def add_adapters(
    model: MerhanForSequenceClassification, adapters: Mapping[str, Mapping[str, Any]], groups: Iterable[str]
) -> list[PeftModel]:
    """Add new adapters to the backbones that train, and freeze the weights of these backbones.

    Adapters are initialised by torch's global generator, and change no logit before the first step. Without
    `target_modules` every linear layer of the backbone gets one (Dettmers et al. 2023, arXiv 2305.14314).

    Args:
        adapters: modality -> fields of peft's config (for LoRA see Hu et al. 2021, arXiv 2106.09685).
        groups: the parameter groups that train in this stage; other backbones get no adapters.

    Returns:
        The adapted backbones, for [`merge_adapters`].

    Raises:
        InputError: peft does not accept a field or a target for this backbone.
    """
    adapted = []
    for name in sorted(set(adapters) & set(groups)):
        backbone = getattr(model.merhan, f"{name}_backbone")
        options = _options(name, backbone.config.model_type, adapters[name])
        with _named_errors(name):
            adapted.append(cast(PeftModel, get_peft_model(backbone, get_peft_config(options))))
        if hasattr(backbone, "feature_extractor"):
            # Nothing below the adapters trains, so its input need not be differentiable (see `set_trainable`).
            backbone.feature_extractor._requires_grad = False
    return adapted


def merge_adapters(adapted: Iterable[PeftModel]):
    """Merge the adapters into the weights that they adapt, in place, and remove them."""
    for backbone in adapted:
        backbone.merge_and_unload(safe_merge=True)


def _options(modality: str, model_type: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of peft's config: our defaults, then the recipe's, without modules that are never called."""
    merged = {"peft_type": "LORA", "target_modules": "all-linear", **options}
    never_called = _NEVER_CALLED.get(model_type)
    if never_called:
        excluded = options.get("exclude_modules") or []
        if isinstance(excluded, str):
            raise InputError(
                f"model.adapters.{modality}.exclude_modules: is {excluded!r}; give a list for this backbone."
            )
        merged["exclude_modules"] = [*never_called, *excluded]
    return merged


@contextmanager
def _named_errors(modality: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise InputError(f"model.adapters.{modality}: {' '.join(str(error).split())}") from None
