"""The record of how a run was made: code, package versions, data, hardware and initial weights."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.utils import cached_file

from merhan.content_hashes import require_intact
from merhan.errors import InputError
from merhan.files import read_json
from merhan.hub_ids import data_set_commit, pinned, split_revision
from merhan.recipe.schema import BUILT_IN_BACKBONES, DataRecipe, ModelRecipe, Recipe


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
    """The content of `provenance.json`. It has no local path, because it is published with the model.

    Args:
        recipe: the recipe of the run.
        rows: its rows, with splits.
        protocol: the identity of its protocol, and the leaks that were accepted.
    """
    records = initial_weight_records(recipe.model)
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": _hardware(),
        "seed": recipe.seed,
        "protocol": protocol,
        "data": _data(rows) | _data_set(recipe.data),
        "initial_weights": {
            "audio": records.get("model.audio_backbone") or _public_name(recipe.model.audio_backbone),
            "text": records.get("model.text_backbone") or _public_name(recipe.model.text_backbone),
            "fusion": records.get("model.checkpoint") or _public_name(recipe.model.checkpoint),
        },
    }


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores"


def _data(rows: pd.DataFrame) -> dict[str, Any]:
    nameless = pd.Series(True, rows.index)
    speakers = {}
    if "speaker" in rows:
        nameless = rows["speaker"] == ""
        speakers = {name: sorted(part["speaker"].unique()) for name, part in rows.groupby("split")}
    return {
        "corpora": sorted(rows["corpus"].unique()),
        "corpora_without_speakers": sorted(rows["corpus"][nameless].unique()),
        "fingerprint": rows_hash(rows),
        "splits": {name: len(part) for name, part in rows.groupby("split")},
        "speakers": speakers,
    }


def _data_set(recipe: DataRecipe) -> dict[str, str]:
    """The data set of the Hub that was read, with its commit; empty for other data."""
    if recipe.corpus != "datasets":
        return {}
    commit = data_set_commit(str(recipe.source))
    return {"data_set": f"{split_revision(str(recipe.source)).name}@{commit}"} if commit else {}


def hidden_speaker(name: str) -> str:
    """What stands for the name of a speaker in a published record, so that a later test can still be compared."""
    return f"speaker-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def rows_hash(rows: pd.DataFrame) -> str:
    """Hash of the data of a run: utterance ids, texts, labels and splits, in any order of the rows."""
    columns = ["utterance_id", "text", "label", "split"]
    content = rows[columns].sort_values("utterance_id").to_csv(index=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_provenance(checkpoint: str) -> dict[str, Any]:
    """The `provenance.json` of a run folder, a model folder or a Hub repository; empty if there is none.

    Raises:
        InputError: it is damaged; leaks would go unnoticed without it.
    """
    try:
        repository, revision = split_revision(pinned(checkpoint))
        file = Path(str(cached_file(repository, "provenance.json", revision=revision)))
    except (OSError, ValueError):
        return {}
    remedy = "restore it, because it names the data that the weights have seen, or train again"
    require_intact(file.parent, remedy, (file.name,))
    record = read_json(file, remedy)
    if not record:
        raise InputError(f"{file}: is damaged, it is empty; {remedy}.")
    return record


def initial_weight_records(recipe: ModelRecipe) -> dict[str, Any]:
    """Recipe key (as `model.audio_backbone`) -> provenance of those initial weights, where they have a record.

    Models that were trained with this package have one; backbones from elsewhere do not.
    """
    records = {}
    for key in ("audio_backbone", "text_backbone", "checkpoint"):
        name = getattr(recipe, key)
        if name not in (None, *BUILT_IN_BACKBONES):
            record = read_provenance(name)
            if record:
                records[f"model.{key}"] = {**record, "checkpoint": _public_name(name)}
    return records


def _public_name(checkpoint: str | None) -> str | None:
    """A Hub id with its commit; only the last part of the path of a local folder."""
    if checkpoint in (None, *BUILT_IN_BACKBONES):
        return checkpoint
    if Path(checkpoint).is_dir():
        return Path(checkpoint).name
    return pinned(checkpoint)


def _commit() -> str | None:
    """The commit of the checkout that this package is in, with `-dirty` for local changes."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # git is not installed
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
