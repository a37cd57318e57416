"""Which parameters train in a stage, and at which learning rate."""

import re
from collections.abc import Mapping

import torch
from torch import nn
from transformers import TrainerCallback

from merhan.errors import InputError
from merhan.names import MODALITIES
from modeling_merhan import MerhanForSequenceClassification


# Number of the layer in a parameter's name, as wav2vec2, BERT, DistilBERT, T5 and the light backbone have it.
_LAYER = re.compile(r"merhan\.\w+_backbone\.(?:(?:encoder|transformer)\.)*(?:layers?|block)\.(\d+)\.")


def parameter_group(name: str) -> str:
    """The group of a parameter by its name: `audio`, `text`, `head` or `adversary`."""
    if name.startswith("adversary."):
        return "adversary"
    for modality in MODALITIES:
        if name.startswith(f"merhan.{modality}_backbone."):
            return modality
    return "head"


def set_trainable(
    model: MerhanForSequenceClassification, learning_rates: Mapping[str, float], freeze_feature_encoder: bool
):
    """Make exactly the parameter groups that have a learning rate trainable.

    Frozen backbones stay in eval mode (`MerhanModel.train`).

    Args:
        freeze_feature_encoder: keep the convolutional encoder of a wav2vec2-like backbone frozen.
    """
    absent = [name for name in MODALITIES if name in learning_rates and name not in model.config.modalities]
    if absent:
        raise InputError(f"stages: learning_rate names {', '.join(absent)}, but the model has no such backbone.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = parameter_group(name) in learning_rates
    encoder = getattr(model.merhan.audio_backbone, "feature_extractor", None)
    if encoder is not None:
        # wav2vec2 has a flag of its own that makes the encoder's input differentiable; both must agree.
        encoder._requires_grad = "audio" in learning_rates and not freeze_feature_encoder
        if not encoder._requires_grad:
            encoder.requires_grad_(False)


def count_trainable(model: nn.Module) -> dict[str, int]:
    """The number of trainable parameters of each group that has any."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = parameter_group(name)
            counts[group] = counts.get(group, 0) + parameter.numel()
    return counts


def frozen_modalities(model: MerhanForSequenceClassification) -> list[str]:
    """The modalities whose backbone has no trainable parameter: those whose features can be cached."""
    frozen = []
    for name in model.config.modalities:
        backbone = getattr(model.merhan, f"{name}_backbone")
        if backbone is not None and not any(parameter.requires_grad for parameter in backbone.parameters()):
            frozen.append(name)
    return frozen


def layers_above(model: nn.Module, modality: str) -> dict[str, int]:
    """Parameter name -> the number of layers of its backbone above it, 0 in the last layer.

    Parameters outside of the layers, as the embeddings, count as one layer below the first.

    Raises:
        InputError: the names of the backbone's parameters do not tell its layers apart.
    """
    layers = {}
    for name, _ in model.named_parameters():
        if parameter_group(_unwrapped_name(name)) == modality:
            match = _LAYER.match(_unwrapped_name(name))
            layers[name] = int(match[1]) if match else -1
    if layers and max(layers.values()) < 0:
        raise InputError(
            f"stages: layer_decay and unfreeze_layers need numbered layers, which the {modality} backbone does not "
            f"have; remove them for {modality}."
        )
    return {name: max(layers.values()) - layer for name, layer in layers.items()}


def backbone_layers(model: nn.Module) -> list[nn.Module]:
    """The numbered layers of the backbones."""
    return [module for name, module in model.named_modules() if _LAYER.fullmatch(f"{name}.")]


class GradualUnfreezing(TrainerCallback):
    """Unfreezes layers from the top, some more in each epoch (Howard & Ruder 2018, arXiv 1801.06146).

    All parameters are in the optimizer from the start. One that is still frozen has no gradient, so AdamW neither
    changes nor decays it, and starts its moments when it is unfrozen.

    Args:
        model: the model of the stage.
        layers_per_epoch: modality -> layers that are unfrozen with each epoch, the first included. What lies below the
            first layer is unfrozen as one more layer.
    """

    def __init__(self, model: nn.Module, layers_per_epoch: Mapping[str, int]):
        trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.first_epochs = []
        for modality, number in layers_per_epoch.items():
            for name, above in layers_above(model, modality).items():
                if name in trainable:
                    self.first_epochs.append((trainable[name], above // number))

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
    """Optimizer groups: one learning rate per parameter group and layer, weight decay only where it belongs.

    Args:
        decayed: names of the parameters with weight decay (not biases and norms).
        layer_decay: modality -> factor on the learning rate from each layer to the one below (Clark et al. 2020, arXiv
            2003.10555).
    """
    factors: dict[str, float] = {}
    for modality, factor in (layer_decay or {}).items():
        factors |= {name: factor**above for name, above in layers_above(model, modality).items()}
    groups: dict[tuple[str, float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (parameter_group(_unwrapped_name(name)), factors.get(name, 1.0), name in decayed)
            groups.setdefault(kind, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rates[group] * factor,
            "weight_decay": weight_decay * has_decay,
        }
        for (group, factor, has_decay), parameters in groups.items()
    ]


def _unwrapped_name(name: str) -> str:
    """A parameter's name without the prefixes of DDP and torch.compile."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")
