"""What trains in a stage, and at which rate."""

from collections.abc import Mapping

import torch
from torch import nn

from merhan.errors import InputError
from modeling_merhan import MerhanForSequenceClassification


def group_of(parameter: str) -> str:
    """The parameter group that a parameter belongs to, by its name: `audio`, `text` or `head`."""
    for name in ("audio", "text"):
        if parameter.startswith(f"merhan.{name}_backbone."):
            return name
    return "head"


def freeze(
    model: MerhanForSequenceClassification, learning_rates: Mapping[str, float], freeze_feature_encoder: bool
) -> dict[str, int]:
    """Let exactly the groups with a rate train; returns the number of trainable parameters in each group.

    Frozen backbones then stay in eval mode by themselves (`MerhanModel.train`).
    """
    absent = [name for name in ("audio", "text") if name in learning_rates and name not in model.config.modalities]
    if absent:
        raise InputError(f"stages: learning_rate names {', '.join(absent)}, but the model has no such backbone.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = group_of(name) in learning_rates
    encoder = getattr(model.merhan.audio_backbone, "feature_extractor", None)
    if encoder is not None:
        # wav2vec2 keeps a flag of its own, which makes its input differentiable: both must agree.
        encoder._requires_grad = "audio" in learning_rates and not freeze_feature_encoder
        if not encoder._requires_grad:
            encoder.requires_grad_(False)
    counts = dict.fromkeys(learning_rates, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[group_of(name)] += parameter.numel()
    return counts


def frozen_modalities(model: MerhanForSequenceClassification) -> list[str]:
    """The modalities whose backbone has nothing to train: the ones whose features can be cached."""
    backbones = {name: getattr(model.merhan, f"{name}_backbone") for name in model.config.modalities}
    return [name for name, one in backbones.items() if one and not any(p.requires_grad for p in one.parameters())]


def parameter_groups(
    model: nn.Module, learning_rates: Mapping[str, float], decayed: set[str], weight_decay: float
) -> list[dict]:
    """Optimizer groups: one rate per named group, no weight decay on biases and norms.

    Args:
        decayed: the names of the parameters that decay.
    """
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        # Wrappers (DDP, torch.compile) put prefixes before the names.
        own = name.removeprefix("module.").removeprefix("_orig_mod.")
        if parameter.requires_grad:
            groups.setdefault((group_of(own), name in decayed), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rates[group], "weight_decay": weight_decay if decays else 0.0}
        for (group, decays), parameters in groups.items()
    ]
