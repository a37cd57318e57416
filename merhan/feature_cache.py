"""Frozen backbones run once per utterance, not once per epoch.

What a frozen backbone in eval mode makes of an utterance never changes, so the warm-up of the head reads it from disk.
One `.npy` file per utterance, under a name made of everything that the features depend on: the backbone's weights and
config, how sound and text are prepared, and the recording's bytes or the token ids. Change any of these and the name is
another; interrupt the work and what is there is kept; folds of one corpus share their files.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from merhan.dataset import EmotionDataset
from merhan.errors import InputError
from modeling_merhan import MerhanModel


def cache_folder() -> Path:
    """Where what can be made again is kept: `$MERHAN_CACHE`, by default `~/.cache/merhan`."""
    return Path(os.environ.get("MERHAN_CACHE", "~/.cache/merhan")).expanduser()


def use_cached_features(model: MerhanModel, dataset: EmotionDataset, modality: str, device: torch.device):
    """Compute what is missing of one frozen backbone's features, and make the data set read them.

    A row at a time: then its features are the row's own, whatever batch it would have stood in, and a run that was
    interrupted here goes on to the very same numbers.
    """
    backbone = getattr(model, f"{modality}_backbone")
    folder = cache_folder() / "features" / fingerprint(backbone, dataset.processor)
    keys = [_key(dataset, modality, row) for row in range(len(dataset))]
    files = [None if key is None else folder / key[:2] / f"{key}.npy" for key in keys]
    missing = [row for row, file in enumerate(files) if file is not None and not file.is_file()]
    model.eval().to(device)
    PartialState().wait_for_everyone()  # nobody writes before everybody has listed what is missing
    with PartialState().split_between_processes(missing) as mine:
        for row in tqdm(mine, desc=f"{modality} features", disable=not mine):
            _write(files[row], _compute(model, dataset, modality, row, device))
    PartialState().wait_for_everyone()
    dataset.features[modality] = files


def fingerprint(backbone: PreTrainedModel, processor) -> str:
    """Hash of a backbone's weights and config, and of how its input is prepared."""
    digest = digest_of_weights(backbone)
    bounds = [processor.min_seconds, processor.max_seconds, processor.trim_silence]
    preparation = [processor.feature_extractor.to_dict(), *bounds]
    digest.update(backbone.config.to_json_string().encode() + json.dumps(preparation, default=str).encode())
    return digest.hexdigest()


def digest_of_weights(model: torch.nn.Module) -> hashlib.blake2b:
    """Of every tensor that the model would save, with its name and type."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + str(tensor.dtype).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest


def _key(dataset: EmotionDataset, modality: str, row: int) -> str | None:
    """Hash of one utterance's content, or None where it lacks the modality."""
    if modality == "text":
        ids = dataset.tokens[row]
        return None if ids is None else _hash(json.dumps(ids).encode())
    audio, start, end = dataset.segments[row]
    return _hash(f"{_hash(Path(audio).read_bytes())} {start} {end}".encode()) if audio else None


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _compute(model: MerhanModel, dataset: EmotionDataset, modality: str, row: int, device: torch.device) -> np.ndarray:
    """`(length, width)` float16 of one utterance."""
    audio, text = ([dataset.waveform(row)], [None]) if modality == "audio" else ([None], [dataset.tokens[row]])
    values, mask = list(dataset.processor.pad(audio, text).to(device).values())
    with torch.no_grad():
        states = model.encode(modality, values, mask).states[0].half().cpu().numpy()
    if not np.isfinite(states).all():
        raise InputError(
            f"{dataset.rows['utterance_id'].iloc[row]!r}: its {modality} features do not fit into half precision; set "
            f"`cache_features: false` in this stage of the recipe."
        )
    return states


def _write(path: Path, array: np.ndarray):
    """Whole or not at all, also when the process dies or another one writes the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
