"""Small stand-ins for the data and the backbones of a recipe, for a dry run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from transformers import PreTrainedConfig

from merhan.data.corpora.base import corpus_reader
from merhan.data.corpora.demo_corpus import EMOTIONS, say, speak
from merhan.data.protocols import is_computed, named_protocol, protocol_labels, require_fold
from merhan.errors import InputError
from merhan.hub_ids import split_revision
from merhan.logs import get_logger
from merhan.models.tiny_backbones import AUDIO_FAMILIES, TEXT_FAMILIES, tiny_audio, tiny_text
from merhan.names import DIMENSIONS
from merhan.recipe.schema import BUILT_IN_BACKBONES, DataRecipe, ModelRecipe, Recipe
from processing_merhan import SAMPLING_RATE


logger = get_logger(__name__)

# A backbone belongs to the longest family name that its own name contains; the first one stands for any other.
FAMILIES = {"audio": tuple(AUDIO_FAMILIES), "text": tuple(TEXT_FAMILIES)}
# What the names of checkpoints call a family, where it is not its `model_type`.
_ALIASES = {
    "w2v-bert": "wav2vec2-bert",
    "data2vec": "data2vec-audio",
    "deberta-v3": "deberta-v2",
    "gemma": "gemma3_text",
}
_ALIASES |= {"qwen": "qwen3", "mms": "wav2vec2", "xlsr": "wav2vec2", "xls-r": "wav2vec2", "minilm": "bert"}
SPEAKERS = 4  # per split


def stand_in_model(recipe: ModelRecipe, texts: Sequence[str]) -> ModelRecipe:
    """The same model over tiny random backbones of the same families."""
    audio, text = recipe.audio_backbone, recipe.text_backbone
    if audio is not None and audio not in BUILT_IN_BACKBONES:
        audio = str(tiny_audio(_family(audio, "audio")))
    if text is not None and text not in BUILT_IN_BACKBONES:
        text = str(tiny_text(texts, _family(text, "text")))
    return replace(recipe, audio_backbone=audio, text_backbone=text, checkpoint=None)


def stand_in_rows(labels: Sequence[str], splits: Sequence[str], folder: Path) -> pd.DataFrame:
    """A manifest with every column and one or two utterances per label and split; recordings go to `folder`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for split in dict.fromkeys(splits):
        size = len(labels)
        if split == "train":
            size = 2 * max(len(labels), SPEAKERS)
        rows += [_utterance(folder, rng, split, turn, labels) for turn in range(size)]
    return pd.DataFrame(rows)


def add_recipe_columns(rows: pd.DataFrame, recipe: Recipe, vectors: Path) -> pd.DataFrame:
    """Add the columns that the recipe names: feature files, and those of a curriculum or an adversary.

    Args:
        vectors: the .npy file to write; all feature columns point to it.
    """
    np.save(vectors, np.random.default_rng(0).standard_normal((5, 8), np.float32))
    stored = set(recipe.model.modalities) - set(recipe.model.backbones)
    rows = rows.assign(**{f"{modality}_features": str(vectors) for modality in stored})
    sections = [recipe.sampling.curriculum, recipe.adversary]
    named = [section.column for section in sections if section is not None and section.column]
    values = (rows["turn"] % SPEAKERS).astype(str)  # words for an adversary, and numbers for a curriculum
    return rows.assign(**{name: values for name in named if name not in rows})


def expected_labels(data: DataRecipe) -> list[str]:
    """The labels of the protocol if it names them, else those of the corpus, else four of the vocabulary."""
    if data.protocol and not is_computed(data.protocol):
        protocol = named_protocol(data.protocol)
        require_fold(protocol, data.fold)
        return protocol_labels(protocol)
    own = set(getattr(corpus_reader(data.corpus), "LABELS", {}).values()) - {None}
    mapped = {data.label_map.get(label, label) for label in own} - {None}
    return sorted(mapped or EMOTIONS)


def _utterance(folder: Path, rng: np.random.Generator, split: str, turn: int, labels: Sequence[str]) -> dict[str, Any]:
    label, speaker = labels[turn % len(labels)], f"{split}-{turn % SPEAKERS}"
    voice, words = EMOTIONS[list(EMOTIONS)[turn % len(EMOTIONS)]]
    waveform = speak(rng, 150.0, 1.0, voice)[:SAMPLING_RATE]
    path = folder / f"{split}-{turn}.wav"
    soundfile.write(path, waveform, SAMPLING_RATE)
    return {
        "utterance_id": path.stem,
        "corpus": f"demo-{turn % 2}",
        "audio": str(path),
        "text": say(rng, words),
        "label": label,
        "source_label": label,
        "split": split,
        "speaker": speaker,
        "session": speaker,
        "dialogue": split,
        "turn": turn,
        "duration": len(waveform) / SAMPLING_RATE,
        "language": "en",
        "gender": ("female", "male")[turn % 2],
        "votes": _votes(label, labels[0]),
        **dict(zip(DIMENSIONS, rng.uniform(1, 5, 3), strict=True)),
    }


def _votes(label: str, other: str) -> str:
    """Three votes, two of them for the label; all of them where the other label is the same."""
    counts = {label: 2}
    counts[other] = counts.get(other, 0) + 1
    return json.dumps(counts)


def _family(name: str, modality: str) -> str:
    """The family of a backbone: the `model_type` of its config where that can be read, else what its name says."""
    known = FAMILIES[modality]
    model_type = _model_type(name)
    if model_type in known:
        return model_type
    if model_type not in (None, "merhan"):
        raise InputError(
            f"model.{modality}_backbone: {name!r} is of the family {model_type}, of which a dry run has no stand-in; "
            f"train a few steps on your data instead (trainer.max_steps)."
        )
    words = {**{family: family for family in known}, **_ALIASES}
    matching = [word for word, family in words.items() if word in name.lower() and family in known]
    if not matching:
        logger.warning(f"{name!r} is not on this machine, and its name tells no family; {known[0]} stands in for it")
        return known[0]
    return words[max(matching, key=len)]


def _model_type(name: str) -> str | None:
    """What the config of a folder or of a downloaded checkpoint says; None for what is not on this machine."""
    try:
        repository, revision = split_revision(name)
        config, _ = PreTrainedConfig.get_config_dict(repository, revision=revision, local_files_only=True)
        return config.get("model_type")
    except (OSError, ValueError):
        return None
