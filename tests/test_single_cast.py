"""Under autocast, query, key and value of a layer read one cast of its states."""

import copy

import pytest
import torch
from test_families import TEXTS, parts

from merhan.models.tiny_backbones import AUDIO_FAMILIES, TEXT_FAMILIES, tiny_audio, tiny_text
from merhan.recipe.schema import ModelRecipe
from merhan.training.single_cast import cast_states_once


FAMILIES = [("audio", family) for family in AUDIO_FAMILIES] + [("text", family) for family in TEXT_FAMILIES]
FAMILIES.remove(("text", "deberta"))  # whose code in transformers fails in half precision
SHARING = {"roberta", "bert", "distilbert"}  # some families whose states are in float32, also on a CPU


class Casts(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts casts to bf16 of states, which have three dimensions."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].dim() == 3:
            self.number += output.dtype == torch.bfloat16
        return output


def run(model, batch) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Logits, all gradients, and the number of casts in the forward pass."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16), Casts() as casts:
        logits = model(**batch).logits
    logits.float().square().sum().backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return logits.detach(), torch.cat(gradients), casts.number


@pytest.mark.parametrize(("modality", "family"), FAMILIES, ids=[name for _, name in FAMILIES])
def test_logits_are_equal_and_gradients_as_close_to_those_of_float32(modality, family, demo):
    name = str(tiny_audio(family, seconds=2) if modality == "audio" else tiny_text(demo["text"], family))
    recipe = ModelRecipe(**{f"{modality}_backbone": name}, config={"hidden_size": 32})
    _, model, processor = parts(demo, recipe)
    sound = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)).numpy()
    given = {"audio": list(sound), "sampling_rate": 16_000} if modality == "audio" else {"text": TEXTS}
    batch = processor(**given, return_tensors="pt", padding=True)
    exact = float32_gradients(model, batch)
    logits, gradients, casts = run(model, batch)
    once = copy.deepcopy(model)
    cast_states_once(once)
    logits_once, gradients_once, casts_once = run(once, batch)
    assert torch.equal(logits_once, logits)
    assert (gradients_once - exact).norm() <= 1.1 * (gradients - exact).norm() + 1e-6
    assert casts_once < casts or family not in SHARING


def float32_gradients(model, batch) -> torch.Tensor:
    model.zero_grad()
    model(**batch).logits.square().sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
