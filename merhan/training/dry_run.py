"""A dry run (`train_hf_e2e.py --dry_run`): everything that a run does, two steps per stage, on tiny stand-ins.

The data are a few utterances of the built-in corpus with the recipe's labels, speakers, dialogues and every column that
the recipe names; the backbones are random ones of the named families. So it needs no network, no corpus and no GPU,
takes seconds and leaves no files. It finds what would otherwise end a run after hours: an option that cannot work, a
stage that trains nothing.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf.errors import InterpolationResolutionError
from transformers import set_seed
from transformers.integrations import get_reporting_integration_callbacks

from merhan.data.corpora.base import require_options
from merhan.data.leaks import require_accepted_leaks
from merhan.data.loading import Data, check_data
from merhan.errors import InputError
from merhan.logs import captured_messages
from merhan.models.building import build_model, build_processor
from merhan.models.inference import load_stage_model
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import HubRecipe, Recipe
from merhan.training.arguments import training_arguments
from merhan.training.dry_run_stand_ins import add_recipe_columns, expected_labels, stand_in_model, stand_in_rows
from merhan.training.parameter_groups import parameter_group
from merhan.training.run_folder import check_run_folder, run_folder
from modeling_merhan import MerhanForSequenceClassification


# Options of every stage: as little work as possible, in this process, without a reporter.
LIMITS = {
    "max_steps": 2,
    "warmup_steps": 0,  # both steps at the peak learning rate, so that parameters visibly move
    "per_device_train_batch_size": 4,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "torch_compile": False,
    "report_to": "none",
}
_PROTOCOL = {"name": "dry-run", "version": 1, "hash": "none", "leaks": []}
_FAILURES = (ValueError, TypeError, AssertionError, ImportError, RuntimeError)


def dry_run(path: str | Path, changes: Sequence[str], train: Callable[[Recipe, Data], Any]) -> str:
    """Check a recipe, and train and evaluate it on stand-ins.

    Args:
        path: the recipe's file.
        changes: `key=value` changes.
        train: what a run does once its data is loaded.

    Returns:
        One line that says what was built and trained.

    Raises:
        InputError: the recipe is wrong, cannot be built or trained, or a stage names a parameter group that does not
            train.
    """
    recipe = load_recipe(path, [*changes, "data.source=null"])
    with tempfile.TemporaryDirectory() as folder, _cache_in(folder), captured_messages() as messages:
        labels = check_without_data(replace(recipe, output_dir=folder))
        recipe, rows = _with_stand_ins(recipe, labels, Path(folder))
        try:
            model = _initial_model(recipe, labels, rows)
            train(recipe, Data(rows, rows, dict(_PROTOCOL), [], []))
            stages = [_describe_stage(recipe, number, model) for number in range(len(recipe.stages))]
        except InputError:
            raise
        except _FAILURES as error:
            stage = [message for message in messages if message.startswith("stage ")][-1:]
            raise InputError(f"{path}: {' '.join([*stage, 'ends with:', *str(error).split()])}") from error
    return _summary(path, recipe, model, labels, stages)


def check_available_data(path: str | Path, changes: Sequence[str]) -> list[str]:
    """Check the data of a recipe as far as it is on this machine; see [`check_data`].

    Returns:
        Sentences on what was checked, or on why nothing was.

    Raises:
        InputError: the data cannot be used.
    """
    try:
        recipe = load_recipe(path, changes)
    except InputError as error:
        if not isinstance(error.__cause__, InterpolationResolutionError):
            raise
        return [f"the data was not checked: {error}"]  # a variable of its source is not set on this machine
    sources = recipe.data.source if isinstance(recipe.data.source, list) else [recipe.data.source]
    absent = [str(source) for source in sources if source is None or not Path(source).exists()]
    if absent:
        return [f"the data was not checked: {absent[0]} is not on this machine"]
    return check_data(recipe.data, recipe.model.modalities, recipe.model.backbones)


def check_without_data(recipe: Recipe) -> list[str]:
    """Check everything that needs neither data nor weights.

    Returns:
        The labels that the data will have.
    """
    data = recipe.data
    check_run_folder(recipe, resume=False, overwrite=False)
    require_accepted_leaks([], data.accept_leaks)
    require_options(data.corpus, data.options)
    for stage in recipe.stages:
        options = recipe.trainer | stage.trainer
        arguments = training_arguments(Path(recipe.output_dir), options, stage.epochs, recipe.metric, 0)
        try:
            get_reporting_integration_callbacks(arguments.report_to)
        except ValueError as error:
            raise InputError(f"trainer.report_to, in stage {stage.name}: {error}") from None
    return expected_labels(data)


def _with_stand_ins(recipe: Recipe, labels: Sequence[str], folder: Path) -> tuple[Recipe, pd.DataFrame]:
    """The recipe over tiny backbones with two steps per stage, and rows to train it on."""
    splits = ["train", "validation", *recipe.evaluation.splits]
    rows = stand_in_rows(labels, splits, folder / "audio")
    rows = add_recipe_columns(rows, recipe, folder / "vectors.npy")
    stages = [replace(stage, trainer=stage.trainer | LIMITS) for stage in recipe.stages]
    model = stand_in_model(recipe.model, rows["text"])
    return replace(recipe, output_dir=str(folder), hub=HubRecipe(), model=model, stages=stages), rows


def _initial_model(recipe: Recipe, labels: Sequence[str], rows: pd.DataFrame) -> MerhanForSequenceClassification:
    """The model as a run starts with it."""
    set_seed(recipe.seed)
    train = rows[rows["split"] == "train"]
    build_processor(recipe.model, recipe.data, train)
    return build_model(recipe.model, sorted(labels), train)


def _describe_stage(recipe: Recipe, number: int, initial: torch.nn.Module) -> str:
    """`warmup (head)`, or an error if a parameter group that the stage names did not change in it."""
    stages, folder = recipe.stages, run_folder(recipe)
    after = load_stage_model(folder / stages[number].name / "model", "eager").state_dict()
    previous = initial
    if number:
        previous = load_stage_model(folder / stages[number - 1].name / "model", "eager")
    before: Mapping[str, torch.Tensor] = previous.state_dict()
    changed = {parameter_group(key) for key in after if key not in before or not torch.equal(after[key], before[key])}
    unchanged = [name for name in stages[number].learning_rate if name not in changed]
    if unchanged:
        raise InputError(
            f"stages[{number}] ({stages[number].name}): learning_rate names {' and '.join(unchanged)}, but none of its "
            f"parameters trains; give it a rate above 0, or unfreeze some of it."
        )
    return f"{stages[number].name} ({', '.join(stages[number].learning_rate)})"


def _summary(
    path: str | Path,
    recipe: Recipe,
    model: MerhanForSequenceClassification,
    labels: Sequence[str],
    stages: Sequence[str],
) -> str:
    backbones = [model.merhan.audio_backbone, model.merhan.text_backbone]
    families = [backbone.config.model_type for backbone in backbones if backbone is not None]
    return (
        f"{path}: {recipe.run_name} builds and trains, tiny {' and '.join(families)} with {model.num_parameters():,} "
        f"parameters, {len(labels)} labels; stages {', '.join(stages)}"
    )


@contextmanager
def _cache_in(folder: str) -> Iterator[None]:
    """Tiny backbones and cached features go into a folder that is deleted afterwards."""
    before = os.environ.get("MERHAN_CACHE")
    os.environ["MERHAN_CACHE"] = str(Path(folder, "cache"))
    try:
        yield
    finally:
        os.environ.pop("MERHAN_CACHE")
        if before is not None:
            os.environ["MERHAN_CACHE"] = before
