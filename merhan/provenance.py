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

from merhan.recipe import ModelRecipe, Recipe


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
        },
    }


def write_json(path: Path, content: Any):
    """Readable, whole or not at all."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)


def _data(rows: pd.DataFrame) -> dict[str, Any]:
    columns = ["utterance_id", "text", "label", "split"]
    content = rows[columns].sort_values("utterance_id").to_csv(index=False)
    nameless = rows["speaker"] == "" if "speaker" in rows else pd.Series(True, rows.index)
    return {
        "corpora": sorted(rows["corpus"].unique()),
        "corpora_without_speakers": sorted(rows["corpus"][nameless].unique()),
        "fingerprint": hashlib.sha256(content.encode()).hexdigest()[:16],
        "splits": {name: len(part) for name, part in rows.groupby("split")},
        "speakers": {name: sorted(part["speaker"].unique()) for name, part in rows.groupby("split")}
        if "speaker" in rows
        else {},
    }


def histories(recipe: ModelRecipe) -> dict[str, Any]:
    """What is known of the initial weights' own training: a local checkpoint of ours brings its record along."""
    known = {}
    for key, name in (("model.audio_backbone", recipe.audio_backbone), ("model.text_backbone", recipe.text_backbone)):
        record = Path(name or "") / "provenance.json"
        if name and record.is_file():
            known[key] = json.loads(record.read_text())
    return known


def _origin(key: str, backbone: str | None, recipe: ModelRecipe) -> Any:
    return histories(recipe).get(key) or (Path(backbone).name if backbone and Path(backbone).is_dir() else backbone)


def _commit() -> str | None:
    here = Path(__file__).parent
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
