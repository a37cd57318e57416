"""`torch.compile` of the layers that a backbone repeats, in place of the model as a whole.

The layers share one compiled function, so that compilation takes seconds and not minutes, and what lies between them
(masks, LayerDrop, SpecAugment) may go on depending on values.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from merhan.errors import InputError
from merhan.logs import get_logger
from merhan.training.parameter_groups import backbone_layers


logger = get_logger(__name__)

# Functions that a layer may be compiled to: of each backbone in training and evaluation, with and without padding.
_MOST_FUNCTIONS = 32


def compile_layers(model: nn.Module, options: Mapping[str, Any]) -> bool:
    """Compile the layers of the backbones in place, for any batch shape; names of parameters stay as they are.

    Args:
        options: the recipe's `trainer`, whose `torch_compile`, `torch_compile_backend` and `torch_compile_mode` decide;
            without them nothing is compiled.

    Returns:
        Whether anything is compiled.

    Raises:
        InputError: the backbones have no numbered layers.
    """
    chosen = {name: options.get(f"torch_compile_{name}") for name in ("backend", "mode")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if not options.get("torch_compile", bool(chosen)):
        return False
    layers = backbone_layers(model)
    if not layers:
        raise InputError("trainer.torch_compile: the backbones have no numbered layers to compile; remove the key.")
    torch._dynamo.config.recompile_limit = _MOST_FUNCTIONS
    logger.info(f"the {len(layers)} layers of the backbones are compiled in their first batches")
    for layer in layers:
        layer.compile(dynamic=True, **chosen)
    return True
