"""`trainer.torch_compile`: the layers of the backbones are compiled, and train to the same weights."""

import pytest
import torch
from test_training import part, without_dropout
from torch import nn

from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import Recipe, StageRecipe
from merhan.training.compilation import compile_layers
from merhan.training.parameter_groups import backbone_layers
from merhan.training.stage import train_stage


OPTIONS = {"report_to": "none", "max_steps": 3, "load_best_model_at_end": False, "save_strategy": "no"}
STAGE = StageRecipe("finetune", 1, {"head": 1e-3, "audio": 1e-3, "text": 1e-3})


def test_a_compiled_stage_trains_to_the_same_weights(demo, trained_like, processor, tmp_path):
    """With a backend that runs the traced operators as they are: what is tested is the tracing."""

    def trained(name: str, **options) -> dict[str, torch.Tensor]:
        model = without_dropout(trained_like)
        model.load_state_dict(start)
        train, validation = part(demo, processor, "train", 24), part(demo, processor, "validation", 8)
        recipe = Recipe(run_name="x", trainer=OPTIONS | options)
        return train_stage(recipe, STAGE, 0, model, processor, train, validation, tmp_path / name).state_dict()

    trained_like.merhan.audio_backbone.config.apply_spec_augment = False
    start = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    plain = trained("plain")
    torch._dynamo.utils.counters.clear()
    compiled = trained("compiled", torch_compile=True, torch_compile_backend="eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "one of each backbone"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert compiled.keys() == plain.keys()
    for name, tensor in compiled.items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "compiled"),
    [
        ({}, False),
        ({"torch_compile": False}, False),
        ({"torch_compile": False, "torch_compile_backend": "eager"}, False),
        ({"torch_compile": True}, True),
        ({"torch_compile_mode": "reduce-overhead"}, True),
    ],
)
def test_the_options_are_those_of_training_arguments(options, compiled, trained_like):
    compile_layers(trained_like, options)
    layers = backbone_layers(trained_like)
    config = trained_like.config
    assert len(layers) == config.audio_config.num_hidden_layers + config.text_config.num_hidden_layers
    assert [layer._compiled_call_impl is not None for layer in layers] == [compiled] * len(layers)


def test_a_model_without_layers_is_refused():
    with pytest.raises(InputError, match="trainer.torch_compile: .* remove the key"):
        compile_layers(nn.Linear(2, 2), {"torch_compile": True})


@pytest.mark.parametrize("key", ["torch_compile_backend", "torch_compile_mode"])
def test_a_word_that_torch_does_not_know_is_refused_before_anything_is_read(key):
    with pytest.raises(InputError, match=f"trainer.{key}"):
        load_recipe("configs/quickstart.yaml", [f"trainer.{key}=nonsense"])
