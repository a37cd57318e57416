"""The complete model folder of a finished run."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merhan.hub.local_paths import remove_local_paths
from merhan.hub.model_card import build_model_card
from merhan.recipe.loading import save_recipe
from merhan.recipe.schema import Recipe
from merhan.training.stage_history import read_history
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


def export_model_folder(
    run: Path,
    recipe: Recipe,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    results: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write `run/model`, the complete folder that can be loaded and published, and return it.

    Args:
        run: the run folder, with `provenance.json` and `evaluation/`.
        recipe: the recipe of the run.
        model, processor: what the run trained.
        results: name -> metrics of each evaluation, the most important first.
    """
    folder = run / "model"
    with tempfile.TemporaryDirectory(dir=run, prefix="model.") as temporary:
        part = Path(temporary) / "model"
        model.save_pretrained(part)
        processor.save_pretrained(part)
        save_recipe(remove_local_paths(recipe), part / "recipe.yaml")
        shutil.copy(run / "provenance.json", part)
        _copy_evaluations(run / "evaluation", part / "evaluation")
        provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
        build_model_card(recipe, provenance, model, results, read_history(run)).save(part / "README.md")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def _copy_evaluations(source: Path, target: Path):
    """Copy the metrics and plots of every evaluation."""
    for file in source.glob("*/*"):
        if file.name == "metrics.json" or file.suffix == ".png":
            (target / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / file.parent.name)
