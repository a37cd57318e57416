"""A run's folder: what is in it, and how a run begins, goes on and ends."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from omegaconf import OmegaConf

from merhan.dataset import Data
from merhan.errors import InputError
from merhan.evaluation import evaluate_split
from merhan.manifest import write_manifest
from merhan.provenance import provenance, write_json
from merhan.recipe import Recipe, save_recipe
from merhan.report import scores_table
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


def open_run(recipe: Recipe, data: Data, resume: bool = False, overwrite: bool = False) -> Path:
    """Make the run's folder with its recipe, manifest and provenance, or enter the one to resume.

    Every process must have passed `check_run` before.
    """
    folder = run_folder(recipe)
    if PartialState().is_main_process:
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        if not (resume and (folder / "recipe.yaml").is_file()):
            folder.mkdir(parents=True, exist_ok=True)
            write_manifest(data.rows, folder / "manifest.parquet")
            write_json(folder / "provenance.json", provenance(recipe, data.rows, data.protocol))
            (folder / "command.txt").write_text(shlex.join(["python", *sys.argv]) + "\n")
            # Last, because its presence says that there is a run to resume.
            save_recipe(recipe, folder / "recipe.yaml")
    PartialState().wait_for_everyone()
    return folder


def check_run(recipe: Recipe, resume: bool, overwrite: bool):
    """Refuse, before any work is done, to write into another run's folder."""
    saved = run_folder(recipe) / "recipe.yaml"
    if not saved.is_file() or overwrite:
        return
    if not resume:
        raise InputError(
            f"{saved.parent}: holds a run already; go on with --resume, or choose another --run_name, or "
            f"lose it with --overwrite."
        )
    if changed := sorted(_differences(OmegaConf.load(saved), OmegaConf.structured(recipe))):
        raise InputError(
            f"--resume: the recipe differs from the one that {saved.parent} was begun with, in "
            f"{', '.join(changed)}; give the same recipe, or another --run_name."
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
        f"report:       {folder / 'evaluation' / split / 'report.md'}\n"
        f"model folder: {folder / 'model'}\n\n"
        f"from transformers import pipeline\n"
        f'recogniser = pipeline("emotion-recognition", model="{folder / "model"}", trust_remote_code=True)\n'
        f"print(recogniser({example}))"
    )
