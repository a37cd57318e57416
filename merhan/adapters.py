"""Adapters on a frozen backbone, by peft: few weights that train, added to the backbone's own once a stage is over."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft import PeftModel, get_peft_config, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from merhan.errors import InputError
from modeling_merhan import MerhanForSequenceClassification


# The kinds that become part of the backbone's own weights, so that the exported model needs no peft.
KINDS = ("LORA", "LOHA", "LOKR", "OFT", "IA3")

# WavLM hands these weights to PyTorch's attention past their modules: an adapter on them would never be called.
_BYPASSED = {"wavlm": ["q_proj", "k_proj", "v_proj", "out_proj"]}


def fields_of(kind: str) -> set[str]:
    """What a recipe may say of adapters of a kind: the fields of peft's config, and `peft_type`."""
    return set(PEFT_TYPE_TO_CONFIG_MAPPING[kind].__dataclass_fields__)


def add_adapters(
    model: MerhanForSequenceClassification, adapters: Mapping[str, Mapping[str, Any]], groups: Iterable[str]
) -> list[PeftModel]:
    """Put new adapters into the backbones that train, and freeze the backbones' own weights.

    They are drawn from torch's global generator, and change no logit before the first step. Without `target_modules`
    every linear layer of the backbone gets one (Dettmers et al. 2023, arXiv 2305.14314).

    Args:
        adapters: modality -> fields of peft's config (Hu et al. 2021, arXiv 2106.09685, for LoRA).
        groups: the parameter groups that train in this stage; other backbones stay without.

    Raises:
        InputError: a field or a target that peft does not take for this backbone.
    """
    added = []
    for name in sorted(set(adapters) & set(groups)):
        backbone = getattr(model.merhan, f"{name}_backbone")
        options = {"peft_type": "LORA", "target_modules": "all-linear", **adapters[name]}
        if bypassed := _BYPASSED.get(backbone.config.model_type):
            options["exclude_modules"] = [*bypassed, *_names(name, options.get("exclude_modules"))]
        with _explained(name):
            added.append(get_peft_model(backbone, get_peft_config(options)))
        if hasattr(backbone, "feature_extractor"):
            # Its input need not be differentiable: nothing below the adapters trains (see stages.freeze).
            backbone.feature_extractor._requires_grad = False
    return added


def _names(name: str, excluded: Sequence[str] | None) -> Sequence[str]:
    if isinstance(excluded, str):
        raise InputError(f"model.adapters.{name}.exclude_modules: is {excluded!r}; for this backbone give a list.")
    return excluded or ()


def merge_adapters(added: Iterable[PeftModel]):
    """Add the adapters to the weights that they adapt, in place; the model is then as if there had been none."""
    for adapted in added:
        adapted.merge_and_unload(safe_merge=True)


@contextmanager
def _explained(name: str):
    try:
        yield
    except (ValueError, TypeError) as error:
        raise InputError(f"model.adapters.{name}: {' '.join(str(error).split())}") from None
