"""What trains in a stage, and at which rate."""

import re
from collections.abc import Mapping

import torch
from torch import nn
from transformers import TrainerCallback

from merhan.errors import InputError
from modeling_merhan import MerhanForSequenceClassification


def group_of(parameter: str) -> str:
    """The parameter group that a parameter belongs to, by its name: `audio`, `text`, `head` or `adversary`."""
    if parameter.startswith("adversary."):
        return "adversary"
    for name in ("audio", "text"):
        if parameter.startswith(f"merhan.{name}_backbone."):
            return name
    return "head"


def freeze(model: MerhanForSequenceClassification, learning_rates: Mapping[str, float], freeze_feature_encoder: bool):
    """Let exactly the groups with a rate train.

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


def count_trainable(model: nn.Module) -> dict[str, int]:
    """The number of trainable parameters in each group that has any."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[group_of(name)] = counts.get(group_of(name), 0) + parameter.numel()
    return counts


def frozen_modalities(model: MerhanForSequenceClassification) -> list[str]:
    """The modalities whose backbone has nothing to train: the ones whose features can be cached."""
    backbones = {name: getattr(model.merhan, f"{name}_backbone") for name in model.config.modalities}
    return [name for name, one in backbones.items() if one and not any(p.requires_grad for p in one.parameters())]


def layers_above(model: nn.Module, modality: str) -> dict[str, int]:
    """Each parameter of a backbone -> how many of its layers lie above it, 0 in the last layer.

    What is no part of a layer, as the embeddings, counts as below the first one.

    Raises:
        InputError: the backbone's layers have no names that tell them apart.
    """
    layers = {}
    for name, _ in model.named_parameters():
        if group_of(_own(name)) == modality:
            found = _LAYER.match(_own(name))
            layers[name] = int(found[1]) if found else -1
    if layers and max(layers.values()) < 0:
        raise InputError(
            f"stages: layer_decay and unfreeze_layers need layers, and the {modality} backbone has none that can be "
            f"told apart; leave them out for {modality}."
        )
    return {name: max(layers.values()) - layer for name, layer in layers.items()}


# As wav2vec2, BERT, DistilBERT and the light backbone name them.
_LAYER = re.compile(r"merhan\.\w+_backbone\.(?:(?:encoder|transformer)\.)?layers?\.(\d+)\.")


def _own(name: str) -> str:
    """Wrappers (DDP, torch.compile) put prefixes before the names."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


class Thawing(TrainerCallback):
    """Gradual unfreezing from the top (Howard & Ruder 2018, arXiv 1801.06146): some layers more in each epoch.

    All parameters are in the optimizer from the start; one that is still frozen has no gradient, so AdamW neither moves
    nor decays it, and begins its averages when it thaws.

    Args:
        layers_per_epoch: modality -> layers that thaw with each epoch, the first included. What lies below the first
            layer thaws as if it were one more.
    """

    def __init__(self, model: nn.Module, layers_per_epoch: Mapping[str, int]):
        parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.first_epochs = [
            (parameters[name], above // number)
            for modality, number in layers_per_epoch.items()
            for name, above in layers_above(model, modality).items()
            if name in parameters
        ]

    def on_epoch_begin(self, args, state, control, **kwargs):
        for parameter, first_epoch in self.first_epochs:
            parameter.requires_grad = int(state.epoch or 0) >= first_epoch


def parameter_groups(
    model: nn.Module,
    learning_rates: Mapping[str, float],
    decayed: set[str],
    weight_decay: float,
    layer_decay: Mapping[str, float] | None = None,
) -> list[dict]:
    """Optimizer groups: one rate per named group, no weight decay on biases and norms.

    Args:
        decayed: the names of the parameters that decay.
        layer_decay: modality -> factor on the rate of each layer of its backbone from the one above it (Clark et al.
            2020, arXiv 2003.10555).
    """
    factors = {
        name: factor**above
        for modality, factor in (layer_decay or {}).items()
        for name, above in layers_above(model, modality).items()
    }
    groups: dict[tuple[str, float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (group_of(_own(name)), factors.get(name, 1.0), name in decayed)
            groups.setdefault(kind, []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rates[group] * factor, "weight_decay": weight_decay if decays else 0.0}
        for (group, factor, decays), parameters in groups.items()
    ]
