"""Where a run comes from: code, versions, data, hardware and initial weights."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.utils import cached_file

from merhan.recipe import BUILT_IN, ModelRecipe, Recipe


PACKAGES = (
    "torch",
    "torchaudio",
    "transformers",
    "accelerate",
    "datasets",
    "evaluate",
    "peft",
    "scikit-learn",
    "numpy",
)


def provenance(recipe: Recipe, rows: pd.DataFrame, protocol: dict[str, Any]) -> dict[str, Any]:
    """What `provenance.json` holds. No path of the machine, because it travels with the model."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
        "seed": recipe.seed,
        "protocol": protocol,
        "data": _data(rows),
        "initial_weights": {
            "audio": _origin("model.audio_backbone", recipe.model.audio_backbone, recipe.model),
            "text": _origin("model.text_backbone", recipe.model.text_backbone, recipe.model),
            "fusion": _origin("model.checkpoint", recipe.model.checkpoint, recipe.model),
        },
    }


def write_json(path: Path, content: Any):
    """Readable, whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)


def _data(rows: pd.DataFrame) -> dict[str, Any]:
    nameless = rows["speaker"] == "" if "speaker" in rows else pd.Series(True, rows.index)
    return {
        "corpora": sorted(rows["corpus"].unique()),
        "corpora_without_speakers": sorted(rows["corpus"][nameless].unique()),
        "fingerprint": fingerprint(rows),
        "splits": {name: len(part) for name, part in rows.groupby("split")},
        "speakers": {name: sorted(part["speaker"].unique()) for name, part in rows.groupby("split")}
        if "speaker" in rows
        else {},
    }


def fingerprint(rows: pd.DataFrame) -> str:
    """Hash of what is learnt and measured: which rows, their words, labels and splits."""
    columns = ["utterance_id", "text", "label", "split"]
    content = rows[columns].sort_values("utterance_id").to_csv(index=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def record_of(checkpoint: str) -> dict[str, Any]:
    """What a run's folder, a model folder or a Hub repository says of its own training; empty if it says nothing."""
    try:
        return json.loads(Path(cached_file(checkpoint, "provenance.json")).read_text())
    except (OSError, ValueError):
        return {}


def histories(recipe: ModelRecipe) -> dict[str, Any]:
    """What is known of the initial weights' own training: a checkpoint of ours brings its record along."""
    keys = ("audio_backbone", "text_backbone", "checkpoint")
    names = {f"model.{key}": getattr(recipe, key) for key in keys}
    pretrained = {key: name for key, name in names.items() if name not in (None, *BUILT_IN)}
    return {key: record for key, name in pretrained.items() if (record := record_of(name))}


def _origin(key: str, backbone: str | None, recipe: ModelRecipe) -> Any:
    return histories(recipe).get(key) or (Path(backbone).name if backbone and Path(backbone).is_dir() else backbone)


def _commit() -> str | None:
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # no git on this machine
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
