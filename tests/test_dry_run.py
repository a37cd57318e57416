"""A dry run of every recipe of configs/, and the errors that it must find."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from transformers import PreTrainedConfig

import train_hf_e2e
from merhan.api import train_on
from merhan.errors import InputError
from merhan.experiments.plan import read_experiment
from merhan.models.tiny_backbones import AUDIO_FAMILIES, TEXT_FAMILIES, tiny_audio, tiny_text
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import BUILT_IN_BACKBONES
from merhan.training.dry_run import check_available_data, check_without_data, dry_run


CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
EXPERIMENTS = sorted(CONFIGS.glob("experiments/*.yaml"))
TINY = ["model.config={hidden_size: 16, num_attention_heads: 2, intermediate_size: 16}"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Neither corpora, nor anything in the working directory; files of a dry run go where the test can see them."""
    monkeypatch.delenv("MERHAN_CORPORA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_trains(path, elsewhere, cache):
    kept = sorted(cache.rglob("*"))
    line = dry_run(path, [], train_on)
    assert "builds and trains" in line and "\n" not in line
    assert not list(elsewhere.iterdir()) and sorted(cache.rglob("*")) == kept, "nothing is left"
    assert os.environ["MERHAN_CACHE"] == str(cache)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_of_recipes_that_are_checked(path):
    experiment = read_experiment(path)
    for row in experiment.rows.values():
        recipe = load_recipe(row.config, [*experiment.set, *row.set, "data.source=null"])
        assert Path(row.config) in RECIPES and (row.condition or "text") in ("text", *recipe.model.modalities)
        check_without_data(recipe)
        with_rows = load_recipe(row.config, ["data.source=null"])
        assert recipe != with_rows or not row.set, f"{row.set} changes nothing"


def test_the_program_says_what_it_tried_and_that_the_data_is_not_here(monkeypatch, capsys):
    words = ["--config", str(CONFIGS / "meld-text.yaml"), "--dry_run", "--set", "stages.1.epochs=1", "--run_name", "x"]
    monkeypatch.setattr(sys, "argv", ["train_hf_e2e.py", *words])
    train_hf_e2e.main()
    line, data = capsys.readouterr().out.splitlines()
    assert "the data was not checked" in data and "MERHAN_CORPORA" in data
    assert "x builds and trains" in line and "tiny bert" in line and "7 labels" in line
    assert "stages warmup (head), finetune (head, text)" in line


def test_data_that_is_here_is_checked(elsewhere, demo):
    source = str(Path(demo["audio"].iloc[0]).parent.parent)
    recipe = CONFIGS / "quickstart.yaml"
    here = [f"data.source={source}", "data.options={scale: 0.1}"]
    first, *_ = check_available_data(recipe, here)
    assert "rows (train" in first and "labels anger, calm, joy, sadness" in first
    with pytest.raises(InputError, match="accept_leaks"):
        check_available_data(recipe, [*here, "data.accept_leaks=[]"])
    with pytest.raises(InputError, match="neither a path or name nor a list of them"):
        check_available_data(recipe, ["data.source={a: b}"])
    (absent,) = check_available_data(recipe, [f"data.source={elsewhere / 'nowhere'}"])
    assert "the data was not checked" in absent and "nowhere is not on this machine" in absent


AUDIO, TEXT = list(AUDIO_FAMILIES), list(TEXT_FAMILIES)
# Each recipe over four families of either modality, in turn, so that every family is met by several recipes.
OVER = [(path, 4 * number + turn) for number, path in enumerate(RECIPES) for turn in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "number"), OVER, ids=lambda value: getattr(value, "stem", str(value)))
def test_every_recipe_over_the_families(path, number, elsewhere, demo):
    """A dry run of a checkpoint that is here builds its family; it is refused only for what a run is refused for."""
    recipe = load_recipe(path, [*TINY, "data.source=null"])
    folders = {
        "audio": tiny_audio(AUDIO[number % len(AUDIO)]),
        "text": tiny_text(demo["text"], TEXT[number % len(TEXT)]),
    }
    named = [name for name in folders if getattr(recipe.model, f"{name}_backbone") not in (None, *BUILT_IN_BACKBONES)]
    changes = [*TINY, *(f"model.{name}_backbone={folders[name]}" for name in named)]
    if recipe.model.adapters:  # names modules of one family
        changes.append("model.adapters={audio: {r: 2}, text: {r: 2}}")
    line = dry_run(path, changes, train_on)
    assert "builds and trains" in line
    assert all(PreTrainedConfig.get_config_dict(folders[name])[0]["model_type"] in line for name in named), (
        "it built what was named"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("data.context_truns=3", "did you mean 'data.context_turns'"),
        ("model.config.hiden_size=3", "did you mean 'hidden_size'"),
        ("model.text_config={hiden_act: gelu}", "hiden_act"),
        ("stages.0.learning_rate={head: 0}", r"stages\[0\] \(warmup\): learning_rate names head, but none of its"),
        ("stages.1.learning_rate.text=0", r"stages\[1\] \(finetune\): learning_rate names text, but none of its"),
        ("trainer.lr_scheduler_type=cosin", "cosin is not a valid SchedulerType"),
        ("trainer.optim=adamw_bnb_8bit", "stage warmup: .* ends with: .*bitsandbytes"),
        ("trainer.report_to=tensorbord", "trainer.report_to: unknown 'tensorbord'; did you mean 'tensorboard'"),
        ("data.fold=1", "meld7-official has no folds"),
        ("data.protocol=meld7-oficial", "did you mean 'meld7-official'"),
        ("data.options={split: dev}", "the meld reader does not take these"),
        ("data.accept_leaks=[speakers]", "unknown leak 'speakers'; did you mean 'speaker'"),
        ("model.config={class_weights: [1, 2]}", "class_weights: 2 weights for 7 labels"),
    ],
)
def test_what_cannot_work_is_found(change, expected, elsewhere):
    with pytest.raises(InputError, match=expected):
        dry_run(CONFIGS / "meld-text.yaml", [*TINY, change], train_on)
    assert not list(elsewhere.iterdir())


COLUMNS = "{columns: {audio_features: emotion2vec_features, text: transcript}}"


@pytest.mark.parametrize(
    "changes",
    [
        ["data.corpus=datasets", f"data.options={COLUMNS}", "data.protocol=null", "model.audio_backbone=features"],
        ["sampling.curriculum={order: column, column: snr}", "difficulty_weight=0.5"],
        ["adversary={column: microphone}"],
    ],
)
def test_columns_of_the_recipes_own_are_there(changes, elsewhere):
    assert "builds and trains" in dry_run(CONFIGS / "meld-text.yaml", [*TINY, *changes], train_on)
    assert not list(elsewhere.iterdir())
