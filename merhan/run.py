"""A run's folder: what is in it, and how a run begins, goes on and ends."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState
from omegaconf import OmegaConf

from merhan.dataset import Data
from merhan.errors import InputError, nearest
from merhan.evaluation import evaluate_split
from merhan.manifest import DIMENSIONS, write_manifest
from merhan.provenance import fingerprint, provenance, record_of, write_json
from merhan.recipe import Recipe, save_recipe
from merhan.report import scores_table
from merhan.trainer import training_arguments
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


def open_run(recipe: Recipe, data: Data, resume: bool = False, overwrite: bool = False) -> Path:
    """Make the run's folder with its recipe, manifest and provenance, or enter the one to resume.

    Every process must have passed `check_run` before.
    """
    folder = run_folder(recipe)
    goes_on = resume and (folder / "recipe.yaml").is_file()
    if goes_on:
        require_same_data(folder, data)  # in every process: one that stopped alone would leave the others waiting
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        if goes_on:
            save_recipe(recipe, folder / "recipe.yaml")  # what is evaluated and where it goes may differ
        else:
            _begin(folder, recipe, data, overwrite)
    PartialState().wait_for_everyone()
    return folder


def _begin(folder: Path, recipe: Recipe, data: Data, overwrite: bool):
    """The folder is there whole or not at all, wherever the process is killed."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if overwrite and folder.is_dir():
        folder.rename(part)
        shutil.rmtree(part)
    part.mkdir(parents=True)
    write_manifest(data.rows, part / "manifest.parquet")
    write_json(part / "provenance.json", provenance(recipe, data.rows, data.protocol))
    (part / "command.txt").write_text(shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]) + "\n")
    save_recipe(recipe, part / "recipe.yaml")
    part.rename(folder)


def check_run(recipe: Recipe, resume: bool, overwrite: bool):
    """Refuse, before any work is done, to write into another run's folder."""
    folder = run_folder(recipe)
    for stage in recipe.stages:
        try:
            training_arguments(folder / stage.name, {**recipe.trainer, **stage.trainer}, stage.epochs, recipe.metric, 0)
        except (ValueError, TypeError, ImportError) as error:
            raise InputError(f"trainer, in stage {stage.name}: {' '.join(str(error).split())}") from None
    saved = folder / "recipe.yaml"
    if not saved.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds something that is no run of ours; choose another --run_name.")
    if not saved.is_file() or overwrite:
        return
    if not resume:
        raise InputError(
            f"{saved.parent}: holds a run already; go on with --resume, or choose another --run_name, or "
            f"lose it with --overwrite."
        )
    changed = sorted(_differences(OmegaConf.load(saved), OmegaConf.structured(recipe)))
    if changed := [key for key in changed if not key.startswith(("evaluation", "hub"))]:
        raise InputError(
            f"--resume: the recipe differs from the one that {saved.parent} was begun with, in "
            f"{', '.join(changed)}; give the same recipe, or another --run_name."
        )


def check_evaluation(recipe: Recipe, data: Data):
    """Refuse, before any training, what could not be learnt or evaluated after it."""
    train = data.rows[data.rows["split"] == "train"]
    for dimension in recipe.model.config.get("dimensions") or ():
        if dimension not in train or train[dimension].isna().all():
            raise InputError(f"model.config.dimensions: no row of train is annotated with {dimension}; leave it out.")
    known = set(train["label"])
    for split in recipe.evaluation.splits:
        part = data.rows[data.rows["split"] == split]
        if part.empty:
            there = sorted(data.rows["split"].unique())
            raise InputError(f"evaluation.splits: the {split} split is empty{nearest(split, there)}")
        if unseen := sorted(set(part["label"]) - known):
            raise InputError(
                f"evaluation.splits: {split} has labels that are absent from train: {', '.join(unseen)}; map or drop "
                f"them with data.label_map."
            )


def check_strategies(recipe: Recipe, train: pd.DataFrame):
    """Refuse, before any model is built, a strategy of training that the training rows do not serve."""
    sampling = recipe.sampling
    curriculum = sampling.curriculum
    if sampling.balance:
        _require_filled(train, sampling.balance, "sampling.balance")
    if sampling.speakers_per_batch:
        _require_filled(train, "speaker", "sampling.speakers_per_batch")
    if curriculum and curriculum.column:
        _require_filled(train, curriculum.column, "sampling.curriculum.column")
        numbers = pd.to_numeric(train[curriculum.column], errors="coerce")
        if numbers.isna().any() or (recipe.difficulty_weight and numbers.min() < 0):
            wanted = "numbers of 0 or more" if recipe.difficulty_weight else "numbers"
            raise InputError(
                f"sampling.curriculum.column: {curriculum.column!r} must hold {wanted} in every training row."
            )
    if (
        curriculum
        and curriculum.order == "prototypes"
        and train.reindex(columns=list(DIMENSIONS)).isna().all(axis=None)
    ):
        raise InputError(
            "sampling.curriculum.order: no training row has a valence, arousal or dominance for `prototypes` to go by; "
            "choose another order."
        )
    if recipe.data.soft_labels and ("votes" not in train or (train["votes"] == "").all()):
        raise InputError("data.soft_labels: no training row has votes; leave the key out, or fill that column.")
    if recipe.adversary:
        column = recipe.adversary.column
        if column not in train or train.loc[train[column] != "", column].nunique() < 2:
            raise InputError(
                f"adversary.column: the training rows have no two different {column!r}; choose another one."
            )


def _require_filled(train: pd.DataFrame, column: str, key: str):
    empty = train[column].isin(["", None]) | train[column].isna() if column in train else pd.Series(True, train.index)
    if empty.any():
        raise InputError(
            f"{key}: {empty.sum()} of {len(train)} training rows have no {column!r}; fill that column of the manifest, "
            f"or leave the key out."
        )


def require_same_data(folder: Path, data: Data):
    """Refuse to go on with other rows, words, labels or splits than the run began with."""
    if record_of(str(folder)).get("data", {}).get("fingerprint") != fingerprint(data.rows):
        raise InputError(
            f"--resume: the data differs from what {folder} was begun with (see its manifest.parquet); restore it, or "
            f"give another --run_name."
        )


def run_folder(recipe: Recipe) -> Path:
    return Path(recipe.output_dir) / recipe.run_name


def _differences(one: Any, other: Any, prefix: str = "") -> set[str]:
    """Keys at which two recipes differ."""
    if not (OmegaConf.is_dict(one) and OmegaConf.is_dict(other)):
        return set() if one == other else {prefix}
    keys = {*one, *other}
    return {found for key in keys for found in _differences(one.get(key), other.get(key), f"{prefix}.{key}".strip("."))}


def evaluate_run(
    recipe: Recipe,
    folder: Path,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    data: Data,
) -> dict[str, dict[str, Any]]:
    """Every split and condition of the recipe; returns the figures by name, and prints them as a table."""
    batch_size = recipe.trainer.get("per_device_eval_batch_size", 16)
    found = {}
    for split in recipe.evaluation.splits:
        for condition in (None, *recipe.evaluation.conditions):
            metrics = evaluate_split(model, processor, data, split, folder / "evaluation", condition, batch_size)
            found[f"{split}, {metrics['condition']}"] = metrics
    if PartialState().is_main_process:
        print("\n" + scores_table(found) + "\n")
    return found


def farewell(folder: Path, modalities: list[str], split: str) -> str:
    """Where the results are, and the three lines that load the model."""
    example = ", ".join(
        ['"a.wav"'] * ("audio" in modalities) + ['text="I cannot believe it!"'] * ("text" in modalities)
    )
    return (
        f"report:       {folder / 'evaluation' / split / 'report.html'}\n"
        f"model folder: {folder / 'model'}\n\n"
        f"from transformers import pipeline\n"
        f'recogniser = pipeline("emotion-recognition", model="{folder / "model"}", trust_remote_code=True)\n'
        f"print(recogniser({example}))"
    )
