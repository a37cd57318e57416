"""Cached features: frozen backbones run once per utterance instead of once per epoch.

A frozen backbone in eval mode always gives the same features for an utterance, so the warm-up of the head reads them
from disk. There is one `.npy` file per utterance, named by a hash of everything that the features depend on: weights
and config of the backbone, preprocessing, and the bytes of the recording or the token ids. An interrupted computation
keeps its finished files, and folds of one corpus share them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.files import atomic_path, cache_folder
from merhan.logs import progress
from merhan.models.inference import weights_digest
from modeling_merhan import MerhanModel
from processing_merhan import MerhanProcessor


def use_cached_features(model: MerhanModel, dataset: EmotionDataset, modality: str, device: torch.device):
    """Compute the missing features of a frozen backbone, and make the data set read them.

    Rows are computed one at a time: so features do not depend on which rows share a batch, and a run that was
    interrupted here is resumed to the same numbers.
    """
    backbone = getattr(model, f"{modality}_backbone")
    folder = cache_folder() / "features" / feature_cache_key(backbone, dataset.processor)
    files = [_file(folder, _content_key(dataset, modality, row)) for row in range(len(dataset))]
    missing = [row for row, file in enumerate(files) if file is not None and not file.is_file()]
    model.eval().to(device)
    PartialState().wait_for_everyone()  # no process writes before all have listed what is missing
    with PartialState().split_between_processes(missing) as rows:
        for row in progress(rows, desc=f"{modality} features", disable=not rows):
            with atomic_path(files[row]) as temporary:
                np.save(temporary, _compute(model, dataset, modality, row, device))
    PartialState().wait_for_everyone()
    dataset.features[modality] = files


def feature_cache_key(backbone: PreTrainedModel, processor: MerhanProcessor) -> str:
    """Hash of a backbone's weights and config, and of the preprocessing of its input."""
    digest = weights_digest(backbone)
    bounds = [processor.min_seconds, processor.max_seconds, processor.trim_silence]
    preparation = [processor.feature_extractor.to_dict(), *bounds]
    digest.update(backbone.config.to_json_string().encode() + json.dumps(preparation, default=str).encode())
    return digest.hexdigest()


def _file(folder: Path, key: str | None) -> Path | None:
    """Where the features of an utterance are cached; a folder per first two digits keeps folders small."""
    if key is None:
        return None
    return folder / key[:2] / f"{key}.npy"


def _content_key(dataset: EmotionDataset, modality: str, row: int) -> str | None:
    """Hash of an utterance's recording or token ids; None where it lacks the modality."""
    if modality == "text":
        ids = dataset.tokens[row]
        return None if ids is None else _hash(json.dumps(ids).encode())
    audio, start, end = dataset.segments[row]
    if not audio:
        return None
    return _hash(f"{_hash(Path(audio).read_bytes())} {start} {end}".encode())


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _compute(model: MerhanModel, dataset: EmotionDataset, modality: str, row: int, device: torch.device) -> np.ndarray:
    """The features of one utterance, `(length, width)` float16.

    Raises:
        InputError: a feature is too large for half precision.
    """
    waveform = dataset.waveform(row) if modality == "audio" else None
    tokens = dataset.tokens[row] if modality == "text" else None
    values, mask = list(dataset.processor.pad([waveform], [tokens]).to(device).values())
    with torch.no_grad():
        encoded = model.encode(modality, values, mask)
        states = encoded.states[0][encoded.mask[0]].half().cpu().numpy()  # without padding, as Whisper's to 30 s
    if not np.isfinite(states).all():
        raise InputError(
            f"{dataset.rows['utterance_id'].iloc[row]!r}: its {modality} features exceed the range of half precision; "
            f"set `cache_features: false` in this stage of the recipe."
        )
    return states
