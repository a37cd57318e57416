"""The model card, filled in from the files of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from merhan.data.corpora import CORPORA
from merhan.data.corpora.base import About, corpus_reader
from merhan.evaluation.prediction_table import FEWEST_ROWS
from merhan.files import resource
from merhan.hub.local_paths import public_recipe
from merhan.models.inference import label_ids
from merhan.names import SCORE_TITLES, SCORES
from merhan.recipe.schema import BUILT_IN_BACKBONES, ModelRecipe, Recipe, selects_best_epoch
from merhan.reporting.markdown_tables import (
    code_span,
    escape_markdown,
    faultless_note,
    interval_note,
    protocol_note,
    scores_table,
    temperatures_note,
)
from merhan.training.stage_history import StageHistory
from modeling_merhan import MerhanForSequenceClassification


UNPUBLISHED = "<this folder>"  # in place of the repository's name until the model is published

MODALITY_NAMES = {"audio": "speech", "text": "text"}

_ARGUMENTS = {"audio": '"a.wav"', "text": 'text="I cannot believe it!"'}
_ENTRIES = {"audio": '"audio": "a.wav"', "text": '"text": "I cannot believe it!"'}


def build_model_card(
    recipe: Recipe,
    provenance: Mapping[str, Any],
    model: MerhanForSequenceClassification,
    results: Mapping[str, Mapping[str, Any]],
    history: Sequence[StageHistory] = (),
) -> ModelCard:
    """Fill in `hub_card/README.md.jinja`.

    Args:
        recipe: the recipe of the run.
        provenance: content of its `provenance.json`.
        model: the trained model.
        results: name -> metrics of each evaluation; the first is described in detail.
        history: the stages of the run.
    """
    public = public_recipe(recipe)
    modalities = model.config.modalities
    return ModelCard.from_template(
        _card_data(recipe, public, provenance, modalities, results),
        template_path=str(resource("hub_card/README.md.jinja")),
        model_name=escape_markdown(public["run_name"]),
        modalities=[MODALITY_NAMES[name] for name in modalities],
        usage=usage_example(recipe.hub.repo_id or UNPUBLISHED, recipe.model),
        widths={
            f"{name}_features": getattr(model.config, f"{name}_config").hidden_size for name in recipe.model.stored
        },
        labels=[escape_markdown(label) for label in label_ids(model)],
        fusion=_fusion(model),
        backbones=_backbones(recipe.model, public, provenance),
        stages=[{**vars(stage), "name": code_span(stage.name)} for stage in recipe.stages],
        metric=_selection_metric(recipe),
        hardware=provenance["hardware"],
        minutes=sum(stage.seconds for stage in history) / 60,
        peak_memory=max((stage.peak_memory for stage in history), default=0.0),
        **_data_context(provenance),
        **_results_context(results),
    )


def usage_example(name: str, recipe: ModelRecipe) -> str:
    """Python that loads a model, a folder or a Hub id, and gives it what it reads."""
    imports = ["from transformers import pipeline", ""]
    call = ", ".join(_ARGUMENTS[modality] for modality in recipe.modalities)
    if recipe.stored:
        imports.insert(0, "import numpy as np")
        entries = {modality: _ENTRIES[modality] for modality in recipe.modalities}
        entries |= {modality: f'"{modality}_features": np.load("{modality}.npy")' for modality in recipe.stored}
        call = "{" + ", ".join(entries.values()) + "}"
    load = f'recogniser = pipeline("emotion-recognition", model="{name}", trust_remote_code=True)'
    return "\n".join([*imports, load, f"print(recogniser({call}))"])


def _fusion(model: MerhanForSequenceClassification) -> str:
    """The fusion, as `hybrid attention: local, cross and global`."""
    config = model.config
    if config.fusion != "hybrid":
        return f"fusion: {config.fusion.replace('_', ' ')}"
    *most, last = config.fusion_parts or ("pooling only",)
    if not most:
        return f"hybrid attention: {last}"
    return f"hybrid attention: {', '.join(most)} and {last}"


def _backbones(recipe: ModelRecipe, public: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """What the fusion reads, as `a light speech encoder` or the name of a checkpoint, with its commit if known."""
    backbones = []
    for modality in recipe.modalities:
        name, kind = public["model"][f"{modality}_backbone"], MODALITY_NAMES[modality]
        recorded = provenance["initial_weights"].get(modality)
        if isinstance(recorded, str):
            name = recorded
        built_in = {
            "light": f"a light {kind} encoder",
            "tiny": f"a tiny random {kind} encoder",
            "features": f"stored {kind} features",
        }
        backbones.append(built_in.get(name, code_span(name)))
    return backbones


def _selection_metric(recipe: Recipe) -> str | None:
    """The validation score that the epoch was selected by; None if the last epoch is used."""
    if not selects_best_epoch(recipe, recipe.stages[-1]):
        return None
    return SCORE_TITLES[recipe.metric]


def _data_context(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the data."""
    data = provenance["data"]
    return {
        "leaks": [escape_markdown(leak) for leak in provenance["protocol"].get("leaks", [])],
        "protocol_note": protocol_note(provenance["protocol"]),
        "corpora": [escape_markdown(name) for name in data["corpora"]],
        "sources": _sources(data["corpora"]),
        "splits": data["splits"],
        "speakers": len(data["speakers"].get("train", ())),
    }


def _results_context(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the card says of the evaluations."""
    first = next(iter(results.values()))
    return {
        "interval_note": interval_note(first),
        "results": scores_table(results),
        "folder": first["folder"],
        "temperature": temperatures_note(first),
        "faultless": faultless_note(first),
        "calibration": first["calibration"],
        "uncalibrated": first["uncalibrated"],
        "operating_point": _operating_point(first["risk_coverage"]),
        "groups": {column: _extremes(groups) for column, groups in first["groups"].items()},
        "fewest_rows": FEWEST_ROWS,
    }


def _abouts(corpora: Sequence[str]) -> list[About]:
    """Metadata of the corpora that have a reader with metadata."""
    readers = [corpus_reader(name) for name in corpora if name in CORPORA]
    return [reader.ABOUT for reader in readers if hasattr(reader, "ABOUT")]


def _sources(corpora: Sequence[str]) -> list[str]:
    """Title, licence and citation of the corpora that have metadata."""
    return [f"{about.title} ({about.licence}). {about.citation}".rstrip(". ") + "." for about in _abouts(corpora)]


def _licence(public: Mapping[str, Any], corpora: Sequence[str]) -> dict[str, Any]:
    """Licence of the weights: the recipe's; without one, a name that says whether the data forbids commercial use."""
    licence = public["hub"]["license"]
    if licence and "${" not in licence:
        return {"license": licence}
    if all(about.commercial for about in _abouts(corpora)):
        return {"license": "other"}
    return {"license": "other", "license_name": "non-commercial-as-its-training-data"}


def _extremes(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Number of groups, and those with the lowest and highest UAR among groups of at least `FEWEST_ROWS` rows.

    All groups count if none is that large.
    """
    large = [group for group in groups if group["n"] >= FEWEST_ROWS] or groups
    ranked = sorted(large, key=lambda group: group["uar"])
    worst, best = [{**group, "name": escape_markdown(group["name"])} for group in (ranked[0], ranked[-1])]
    return {"count": len(groups), "worst": worst, "best": best}


def _operating_point(curve: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Coverage, threshold and risk at the coverage nearest to 80 %."""
    nearest = int(np.argmin(np.abs(np.array(curve["coverage"]) - 0.8)))
    return {name: curve[name][nearest] for name in ("coverage", "threshold", "risk")}


def _card_data(
    recipe: Recipe,
    public: Mapping[str, Any],
    provenance: Mapping[str, Any],
    modalities: Sequence[str],
    results: Mapping[str, Mapping[str, Any]],
) -> ModelCardData:
    """The YAML header of the card."""
    corpora = provenance["data"]["corpora"]
    hub_ids = [name for name in _backbone_names(public) if _is_hub_id(name, recipe)]
    return ModelCardData(
        **_licence(public, corpora),
        library_name="transformers",
        pipeline_tag=_task(modalities),
        tags=["emotion-recognition", "speech-emotion-recognition", "merhan", "custom_code"],
        base_model=[name.partition("@")[0] for name in hub_ids] or None,
        metrics=list(SCORES),
        model_name=public["run_name"],
        eval_results=_eval_results(provenance, modalities, results),
    )


def _backbone_names(public: Mapping[str, Any]) -> list[str]:
    names = [public["model"][f"{modality}_backbone"] for modality in MODALITY_NAMES]
    return [name for name in names if name not in (None, *BUILT_IN_BACKBONES)]


def _is_hub_id(name: str, recipe: Recipe) -> bool:
    """Whether the name of a published recipe is that of the run's own: neither shortened nor an interpolation."""
    return name in (recipe.model.audio_backbone, recipe.model.text_backbone) and not Path(name).exists()


def _task(modalities: Sequence[str]) -> str:
    """The Hub's task for a model of these modalities."""
    if "audio" in modalities:
        return "audio-classification"
    return "text-classification"


def _eval_results(
    provenance: Mapping[str, Any], modalities: Sequence[str], results: Mapping[str, Mapping[str, Any]]
) -> list[EvalResult]:
    corpora, protocol = provenance["data"]["corpora"], provenance["protocol"]["name"]
    return [
        EvalResult(
            task_type=_task(modalities),
            task_name=f"Speech emotion recognition, given {metrics['condition']}",
            dataset_type=corpora[0],
            dataset_name=f"{', '.join(corpora)} ({protocol})",
            dataset_config=f"given {metrics['condition']}",
            dataset_split=metrics["split"],
            metric_type=score,
            metric_name=SCORE_TITLES[score],
            metric_value=metrics[score],
        )
        for metrics in results.values()
        for score in SCORES
    ]
