"""What the header of a report says: which model was evaluated, on which data, and when."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from merhan.data.provenance import read_provenance
from merhan.hub_ids import split_revision
from modeling_merhan import MerhanForSequenceClassification


class ModelSource(NamedTuple):
    """Where a model comes from."""

    run: Path  # folder of the run that trained it, for its training curves and its command
    name: str  # of the run, else the Hub id or the name of the folder
    provenance: dict[str, Any]  # content of `provenance.json`, empty if unknown


def model_source(model: MerhanForSequenceClassification, default_run: Path) -> ModelSource:
    """Find the run that trained a model.

    Args:
        model: a model that was loaded from a checkpoint, or that a run holds in memory.
        default_run: the folder of the run if the model was not loaded from one.
    """
    checkpoint = model.name_or_path or ""
    run = _find_run(checkpoint, default_run)
    return ModelSource(run, _model_name(checkpoint, run), _read_provenance(checkpoint, run))


def _find_run(checkpoint: str, default: Path) -> Path:
    folder = Path(checkpoint)
    for candidate in (folder.parent, folder):
        if checkpoint and (candidate / "recipe.yaml").is_file():
            return candidate
    return default


def _model_name(checkpoint: str, run: Path) -> str:
    recipe = run / "recipe.yaml"
    if recipe.is_file():
        content = OmegaConf.load(recipe)
        if isinstance(content, DictConfig) and content.get("run_name"):
            return str(content.run_name)
    if Path(checkpoint).is_dir():
        return Path(checkpoint).resolve().name
    return checkpoint


def _read_provenance(checkpoint: str, run: Path) -> dict[str, Any]:
    if (run / "provenance.json").is_file():
        return read_provenance(str(run))
    if checkpoint:
        return read_provenance(checkpoint)
    return {}


def describe_model(model: MerhanForSequenceClassification, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Backbones, fusion and size of a model, without paths of this machine.

    Args:
        provenance: of the run that trained the model; empty if unknown.

    Returns:
        `audio_backbone` and `text_backbone` (None if the model does not read that modality), `fusion`,
        `parameters`, their number, and `checkpoint`, Hub id and commit (None for a local folder).
    """
    config, origins = model.config, provenance.get("initial_weights", {})
    fusion = config.fusion
    if fusion == "hybrid":
        fusion = f"hybrid ({', '.join(config.fusion_parts) or 'pooling only'})"
    checkpoint = model.name_or_path or ""
    return {
        "checkpoint": checkpoint if split_revision(checkpoint).revision else None,
        "audio_backbone": _backbone(config.audio_config, origins.get("audio")),
        "text_backbone": _backbone(config.text_config, origins.get("text")),
        "fusion": fusion,
        "parameters": model.num_parameters(),
    }


def _backbone(config: Any, origin: Any) -> str | None:
    """Name and type of a backbone, as `microsoft/wavlm-base (wavlm)`."""
    if config is None:
        return None
    if isinstance(origin, str):
        return f"{origin} ({config.model_type})"
    return config.model_type


def report_title(name: str, metrics: Mapping[str, Any]) -> str:
    """Title of the report of one evaluation."""
    title = f"{metrics['split']} split, {input_note(metrics)}"
    if name:
        title = f"{name}: {title}"
    return title


def input_note(metrics: Mapping[str, Any]) -> str:
    """What the model was given, as `audio and text`, `audio only` or `audio and text, word errors 0.1`."""
    modalities, condition = metrics["modalities"], metrics["condition"]
    note = " and ".join(modalities)
    if len(modalities) == 1:
        note += " only"
    if condition not in ("+".join(modalities), *modalities):
        note += f", {condition}"
    return note


def header_facts(name: str, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The header of a report, as title -> value; values that are unknown are empty."""
    model = metrics["model"]
    return {
        "Model": name,
        "Audio backbone": model["audio_backbone"] or "",
        "Text backbone": model["text_backbone"] or "",
        "Fusion": model["fusion"],
        "Parameters": f"{model['parameters']:,}",
        "Input": input_note(metrics),
        "Data": ", ".join(metrics["corpora"]),
        "Split": f"{metrics['split']}, {metrics['n']} utterances",
        "Protocol": protocol_text(metrics["protocol"]),
        "Date of the evaluation": format_date(metrics["date"]),
    }


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """Name, version and hash of a protocol, and the fold if it has folds."""
    text = f"{protocol['name']}, version {protocol['version']}, hash {protocol.get('hash') or 'none'}"
    if "fold" in protocol and "folds" in protocol:
        text += f", fold {protocol['fold']} of {protocol['folds']}"
    return text


def format_date(date: str) -> str:
    """An ISO date in UTC for a reader, as `2026-11-27 04:19 UTC`."""
    return f"{date[:10]} {date[11:16]} UTC"
