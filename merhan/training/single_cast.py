"""Autocast with fewer casts: query, key and value of a layer read the same cast of its states.

Autocast casts the states for each of the three, and their gradients back for each: with the sums of these gradients, a
twelfth of what a step reads and writes (RESULTS.md, "The least time of a step").
"""

from typing import Any

import torch
from torch import nn

from merhan.training.parameter_groups import backbone_layers


# What transformers calls the projection to queries.
_QUERIES = ("q", "q_lin", "q_proj", "query", "query_proj", "linear_q")


def cast_states_once(model: nn.Module):
    """Cast what enters the attention of each layer of the backbones once, wherever autocast is on.

    The forward pass gives the same numbers. The gradients of the three are added up in half precision, as those of any
    product of half precision are, and not in float32.
    """
    modules = [module for layer in backbone_layers(model) for module in layer.modules()]
    for module in modules:
        if any(isinstance(getattr(module, name, None), nn.Linear) for name in _QUERIES):
            module.register_forward_pre_hook(_cast, with_kwargs=True)


def _cast(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Cast the states of an attention module, its first argument; None where a family names it otherwise."""
    states = args[0] if args else kwargs.get("hidden_states")
    if not torch.is_tensor(states) or not torch.is_autocast_enabled(states.device.type):
        return None
    device = states.device.type
    states = states.to(torch.get_autocast_dtype(device))
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": states}
