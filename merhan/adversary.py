"""What must not be read from an utterance: an adversary learns to, and the model learns to prevent it."""

from typing import Any

import pandas as pd
import torch
from torch import nn

from merhan.recipe import AdversaryRecipe
from modeling_merhan import MerhanForSequenceClassification, MerhanSequenceClassifierOutput


UNKNOWN = -100  # the class of a row whose column is empty
BETA = 0.5  # Adam's first, where an adversary trains and the recipe says nothing else


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context, states: torch.Tensor, weight: float) -> torch.Tensor:
        context.weight = weight
        return states.view_as(states)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.weight * gradient, None


class Adversary(nn.Module):
    """Guesses a column, as the speaker, from the fused utterance, through a gradient reversal (Ganin et al. 2016, JMLR
    17:59): the adversary goes down its loss, and all below goes up it, `weight` times as fast.

    It sits on the model while it trains, so that optimizer, checkpoints, averages and DDP treat it as a part of it. Its
    classes come with the batch as `adversary_labels` (batch,), and its loss is added to the model's.

    The game has its trap: where the model moves faster than the adversary, it does not forget the column but moves it
    about, and a fresh probe reads it no worse than before. On toy data Adam falls into it with its usual momentum of
    0.9, and forgets with 0.5 (`BETA`, with which Radford et al. 2016, arXiv 1511.06434, trained adversaries) against an
    adversary ten times as fast; so does SGD, as in the paper.

    Args:
        hidden_size: width of the fused utterance.
        num_classes: how many words the column has.
        weight: of the reversed gradient.
    """

    def __init__(self, hidden_size: int, num_classes: int, weight: float):
        super().__init__()
        self.weight = weight
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, num_classes)
        self.labels: torch.Tensor | None = None

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """`(batch, hidden_size)` -> `(batch, num_classes)`."""
        return self.classifier(torch.relu(self.dense(_Reversal.apply(pooled, self.weight))))

    def loss(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over rows that have a class, by the number of all rows: so it does not hang on how a batch is cut."""
        losses = nn.functional.cross_entropy(self(pooled).float(), labels, ignore_index=UNKNOWN, reduction="sum")
        return losses / len(labels)


def add_adversary(model: MerhanForSequenceClassification, recipe: AdversaryRecipe, rows: pd.DataFrame) -> torch.Tensor:
    """Put an adversary on the model; returns its class of each training row, `(rows,)`."""
    words = rows[recipe.column].replace("", None)
    classes, known = pd.factorize(words, sort=True, use_na_sentinel=True)
    model.adversary = Adversary(model.config.hidden_size, len(known), recipe.weight)
    model.adversary.hooks = [
        model.register_forward_pre_hook(_take_labels, with_kwargs=True),
        model.register_forward_hook(_add_loss),
    ]
    return torch.from_numpy(classes).where(torch.from_numpy(classes >= 0), UNKNOWN)


def remove_adversary(model: MerhanForSequenceClassification):
    """The model as it was without, but for what it has learnt."""
    for hook in model.adversary.hooks:
        hook.remove()
    del model.adversary


def _take_labels(model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    model.adversary.labels = inputs.pop("adversary_labels", None)
    return args, inputs


def _add_loss(model: nn.Module, args: tuple, outputs: MerhanSequenceClassifierOutput):
    # Within the model's forward, so that DDP sees that the adversary takes part.
    if model.adversary.labels is not None:
        outputs.loss = outputs.loss + model.adversary.loss(outputs.pooler_output, model.adversary.labels)
