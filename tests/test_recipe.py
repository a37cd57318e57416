"""Recipes that inherit from recipes: what wins, what is replaced whole, and what is refused."""

from dataclasses import replace

import pytest
import torch
from conftest import LABELS
from omegaconf import OmegaConf

from merhan.errors import InputError
from merhan.models.building import build_model
from merhan.recipe.loading import load_recipe, save_recipe


BASE = """
run_name: base
seed: 3
data: {corpus: emodb, source: "${oc.env:MERHAN_NOWHERE}/emodb", label_map: {joy: null, fear: anger}}
model: {audio_backbone: light, config: {hidden_size: 32, hidden_dropout: 0.3}}
stages:
  - {name: one, epochs: 1, learning_rate: {head: 1.0e-3, audio: 1.0e-4}}
  - {name: two, epochs: 2, learning_rate: {head: 1.0e-3}}
trainer: {weight_decay: 0.1}
"""


@pytest.fixture
def write(tmp_path):
    """Write a recipe and return its path."""

    def write(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    write("base.yaml", BASE)
    return write


def test_parts_are_merged_and_free_mappings_and_lists_replaced(write):
    heir = write(
        "below/heir.yaml",
        """
base: ../base.yaml
run_name: heir-of-${data.corpus}
data: {source: here, label_map: {calm: joy}}
model.config.hidden_size: 64
stages: [{name: three, epochs: 3, learning_rate: {audio: 1.0e-5}}]
trainer: {logging_steps: 1}
""",
    )
    recipe = load_recipe(heir)
    assert (recipe.run_name, recipe.seed) == ("heir-of-emodb", 3)
    assert (recipe.data.corpus, recipe.data.source, recipe.data.label_map) == ("emodb", "here", {"calm": "joy"})
    assert recipe.model.audio_backbone == "light"
    assert recipe.model.config == {"hidden_size": 64, "hidden_dropout": 0.3}, "a dotted key changes one entry"
    assert [(stage.name, stage.learning_rate) for stage in recipe.stages] == [("three", {"audio": 1e-5})]
    assert recipe.trainer == {"logging_steps": 1}


def test_a_change_does_what_the_same_keys_in_an_heir_do(write):
    heir = write("heir.yaml", "base: base.yaml\ndata: {source: x, label_map: {calm: joy}}\nstages.1.epochs: 7\n")
    changes = ["data={source: x, label_map: {calm: joy}}", "stages.1.epochs=7"]
    assert load_recipe(write("plain.yaml", BASE), changes) == load_recipe(heir)


def test_of_several_bases_the_later_wins_and_a_shared_one_counts_once(write):
    write("a.yaml", "base: base.yaml\nseed: 4\ndata.source: a\n")
    write("b.yaml", "base: base.yaml\ndata.source: b\n")
    recipe = load_recipe(write("heir.yaml", "base: [a.yaml, b.yaml]\n"))
    assert (recipe.data.source, recipe.seed) == ("b", 4), "b says nothing of the seed: its base's does not undo a's"


def test_what_is_saved_stands_alone(write, tmp_path):
    recipe = load_recipe(write("heir.yaml", "base: base.yaml\ndata.source: x\n"))
    save_recipe(recipe, tmp_path / "elsewhere.yaml")
    (tmp_path / "base.yaml").unlink()
    assert "base" not in OmegaConf.load(tmp_path / "elsewhere.yaml")
    assert load_recipe(tmp_path / "elsewhere.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: gone.yaml\n", "heir.yaml: base: there is no file .*gone.yaml; write the path relative to"),
        ("base: heir.yaml\n", r"heir.yaml: is based on itself \(.*heir.yaml -> .*heir.yaml\)"),
        ("base: loop.yaml\n", r"heir.yaml -> .*loop.yaml -> .*heir.yaml"),
        ("base: wrong.yaml\n", "wrong.yaml: unknown key 'data.corpsu'; did you mean 'data.corpus'"),
        ("base: {a: b}\n", "base: .* is neither the path of a recipe nor a list of paths"),
        ("bsae: base.yaml\n", "unknown key 'bsae'; did you mean 'base'"),
        ("- base.yaml\n", "holds a list; a recipe holds keys with values"),
        ("base: base.yaml\n", "data.source: .*MERHAN_NOWHERE"),
    ],
)
def test_what_cannot_be_inherited_is_a_sentence(text, expected, write):
    write("loop.yaml", "base: heir.yaml\n")
    write("wrong.yaml", "data: {corpsu: demo}\n")
    with pytest.raises(InputError, match=expected):
        load_recipe(write("heir.yaml", text))


def test_a_checkpoint_brings_its_fusion_and_the_head_of_the_same_labels(trained_like, tiny_recipe, demo, tmp_path):
    with torch.no_grad():
        trained_like.classifier.weight.add_(1.0)
    trained_like.save_pretrained(tmp_path)
    recipe = replace(tiny_recipe, checkpoint=str(tmp_path))
    torch.manual_seed(5)  # another start at random
    again, other = (build_model(recipe, labels, demo) for labels in (LABELS, LABELS[::-1]))
    known = trained_like.merhan.fusion.state_dict()
    for model in (again, other):
        assert all(torch.equal(tensor, known[name]) for name, tensor in model.merhan.fusion.state_dict().items())
    assert torch.equal(again.classifier.weight, trained_like.classifier.weight)
    assert not torch.isclose(other.classifier.weight, trained_like.classifier.weight).any()
    with pytest.raises(InputError, match="model.checkpoint: the fusion of .* is another one"):
        build_model(replace(recipe, config={"hidden_size": 16, "intermediate_size": 32}), LABELS, demo)


def test_a_checkpoint_brings_its_layer_mixing_and_the_head_of_the_same_dimensions(tiny_recipe, demo, tmp_path):
    rows = demo.assign(valence=3.0, arousal=2.0)
    dimensions = ["valence", "arousal"]
    recipe = replace(tiny_recipe, config=tiny_recipe.config | {"layer_mixing": True, "dimensions": dimensions})
    known = build_model(recipe, LABELS, rows)
    with torch.no_grad():
        for parameter in known.parameters():
            parameter.add_(1.0)
    known.save_pretrained(tmp_path)
    recipe = replace(recipe, checkpoint=str(tmp_path))
    again = build_model(recipe, LABELS, rows)
    other = build_model(replace(recipe, config=recipe.config | {"dimensions": dimensions[::-1]}), LABELS, rows)
    for model in (again, other):
        assert torch.equal(model.merhan.audio_mixing, known.merhan.audio_mixing)
        assert torch.equal(model.merhan.text_mixing, known.merhan.text_mixing)
        backbones = zip(model.merhan.text_backbone.parameters(), known.merhan.text_backbone.parameters(), strict=True)
        assert not any(torch.equal(one, another) for one, another in backbones), "these are as the recipe names them"
    assert torch.equal(again.regressor.weight, known.regressor.weight)
    assert torch.equal(again.regressor.bias, known.regressor.bias)
    assert other.regressor.bias.tolist() == [2.0, 3.0], "of other dimensions: begins at their mean"
