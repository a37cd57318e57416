"""Adversarial training by gradient reversal: the fused representation should not predict a column, as the speaker."""

from typing import Any, cast

import pandas as pd
import torch
from torch import nn

from merhan.recipe.schema import AdversaryRecipe
from modeling_merhan import MerhanForSequenceClassification, MerhanSequenceClassifierOutput


UNKNOWN_CLASS = -100  # class of a row whose column is empty; it takes no part in the loss
ADAM_BETA1 = 0.5  # Adam's first moment decay in adversarial training, unless the recipe sets another


class _Reversal(torch.autograd.Function):
    """Identity in the forward pass; multiplies the gradient by -weight in the backward pass."""

    @staticmethod
    def forward(context, states: torch.Tensor, weight: float) -> torch.Tensor:
        context.weight = weight
        return states.view_as(states)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.weight * gradient, None


class Adversary(nn.Module):
    """Predicts a column from the fused representation through a gradient reversal (Ganin et al. 2016, JMLR 17:59): the
    adversary minimises its loss, and everything below it maximises it, `weight` times as fast.

    It is a submodule of the model while it trains, so that optimizer, checkpoints, averages and DDP treat it as part of
    the model. Its classes come with the batch as `adversary_labels` (batch,); its loss is added to that of the model.

    If the model learns faster than the adversary, it hides the column instead of forgetting it, and a freshly trained
    probe predicts it as well as before. On toy data Adam does so with its usual momentum of 0.9 and does not with 0.5
    ([`ADAM_BETA1`], as Radford et al. 2016, arXiv 1511.06434) if the adversary's learning rate is ten times as high.

    Args:
        hidden_size: width of the fused representation.
        num_classes: number of values of the column.
        weight: factor on the reversed gradient.
    """

    def __init__(self, hidden_size: int, num_classes: int, weight: float):
        super().__init__()
        self.weight = weight
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, num_classes)
        self.labels: torch.Tensor | None = None
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """`(batch, hidden_size)` -> logits `(batch, num_classes)`."""
        return self.classifier(torch.relu(self.dense(_Reversal.apply(pooled, self.weight))))

    def loss(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, summed over the rows that have a class and divided by the number of all rows: so it does not
        depend on how a batch is cut into accumulation steps."""
        losses = nn.functional.cross_entropy(self(pooled).float(), labels, ignore_index=UNKNOWN_CLASS, reduction="sum")
        return losses / len(labels)


def add_adversary(model: MerhanForSequenceClassification, recipe: AdversaryRecipe, rows: pd.DataFrame) -> torch.Tensor:
    """Attach an adversary to the model; returns the adversary's class of each training row `(rows,)`."""
    values = rows[recipe.column].replace("", None)
    classes, known = pd.factorize(values, sort=True, use_na_sentinel=True)
    adversary = Adversary(model.config.hidden_size, len(known), recipe.weight)
    adversary.hooks = [
        model.register_forward_pre_hook(_take_labels, with_kwargs=True),
        model.register_forward_hook(_add_loss),
    ]
    model.adversary = adversary
    return torch.from_numpy(classes).where(torch.from_numpy(classes >= 0), UNKNOWN_CLASS)


def remove_adversary(model: MerhanForSequenceClassification):
    """Detach the adversary from the model."""
    for hook in _adversary(model).hooks:
        hook.remove()
    del model.adversary


def _take_labels(model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Before forward: keep `adversary_labels` back from the model, which does not know that argument."""
    _adversary(model).labels = inputs.pop("adversary_labels", None)
    return args, inputs


def _add_loss(model: nn.Module, args: tuple, outputs: MerhanSequenceClassifierOutput):
    """After forward: add the adversary's loss. Being part of forward, DDP sees that the adversary takes part."""
    adversary = _adversary(model)
    if adversary.labels is not None and outputs.loss is not None and outputs.pooler_output is not None:
        outputs.loss = outputs.loss + adversary.loss(outputs.pooler_output, adversary.labels)


def _adversary(model: nn.Module) -> Adversary:
    return cast(Adversary, model.adversary)
