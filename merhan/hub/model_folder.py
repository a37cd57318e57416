"""The complete model folder of a finished run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from merhan.content_hashes import write_hashes
from merhan.files import atomic_path, remove_folder, resource, write_json
from merhan.hub.local_paths import map_strings, public_recipe, without_paths
from merhan.hub.model_card import build_model_card
from merhan.hub.people import may_quote, metrics_without_people, without_people
from merhan.logs import get_logger
from merhan.recipe.schema import Recipe
from merhan.training.stage_history import read_history
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


logger = get_logger(__name__)


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
    with atomic_path(folder) as part:
        model.save_pretrained(part)
        processor.save_pretrained(part)
        shutil.copy(resource("hub_card/handler.py"), part)
        OmegaConf.save(OmegaConf.create(public_recipe(recipe)), part / "recipe.yaml")
        provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
        quotes = may_quote(recipe.hub.quote_people, provenance["data"]["corpora"])
        provenance = _public_provenance(recipe, provenance, quotes)
        results = {name: _public_metrics(metrics, quotes) for name, metrics in results.items()}
        write_json(part / "provenance.json", provenance)
        _copy_evaluations(run / "evaluation", part / "evaluation", quotes)
        build_model_card(recipe, provenance, model, results, read_history(run)).save(part / "README.md")
        write_hashes(part)
        remove_folder(folder)
    return folder


def _public_provenance(recipe: Recipe, provenance: Mapping[str, Any], quotes: bool) -> dict[str, Any]:
    """The provenance without local paths, with names of initial weights as the published recipe has them."""
    public = dict(provenance)
    if not quotes:
        public = without_people(provenance)
        logger.info("note: speakers and utterances are not quoted in the model folder (hub.quote_people)")
    model = public_recipe(recipe)["model"]
    keys = {"audio": "audio_backbone", "text": "text_backbone", "fusion": "checkpoint"}
    weights = dict(public["initial_weights"])
    for name, key in keys.items():
        if isinstance(weights[name], str) and model[key] != getattr(recipe.model, key):
            weights[name] = model[key]
    return map_strings({**public, "initial_weights": weights}, without_paths)


def _public_metrics(metrics: Mapping[str, Any], quotes: bool) -> dict[str, Any]:
    """Metrics without local paths, and without people unless they may be quoted."""
    if not quotes:
        metrics = metrics_without_people(metrics)
    return map_strings(dict(metrics), without_paths)


def _copy_evaluations(source: Path, target: Path, quotes: bool):
    """Copy the metrics and plots of every evaluation."""
    for file in source.glob("*/*"):
        if file.name == "metrics.json":
            metrics = json.loads(file.read_text(encoding="utf-8"))
            write_json(target / file.parent.name / file.name, _public_metrics(metrics, quotes))
        elif file.suffix == ".png":
            (target / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / file.parent.name)
