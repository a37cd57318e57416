"""Cached features: frozen backbones run once per utterance instead of once per epoch.

A frozen backbone in eval mode always gives the same features for an utterance, so the warm-up of the head reads them
from disk. There is one `.npy` file per utterance, named by a hash of everything that the features depend on: weights
and config of the backbone, preprocessing, and the bytes of the recording or the token ids. An interrupted computation
keeps its finished files, and folds of one corpus share them.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.files import atomic_path, cache_folder
from merhan.logs import get_logger, progress
from merhan.models.inference import weights_digest
from modeling_merhan import MerhanModel
from processing_merhan import SAMPLING_RATE, MerhanProcessor


logger = get_logger(__name__)

# What is computed together at most: samples of sound or tokens, padding included, and rows.
_LARGEST_BATCH = {"audio": 192 * SAMPLING_RATE, "text": 8192}
_MOST_ROWS = 64


def use_cached_features(
    model: MerhanModel,
    dataset: EmotionDataset,
    modality: str,
    device: torch.device,
    precision: torch.dtype | None = None,
    workers: int = 0,
):
    """Compute the missing features of a frozen backbone, and make the data set read them.

    Which rows share a batch depends on the rows alone, and not on what is missing: so a run that was interrupted here
    is resumed to the same numbers.

    Args:
        precision: of autocast; None = that of the weights.
        workers: processes that load audio.
    """
    backbone = getattr(model, f"{modality}_backbone")
    folder = cache_folder() / "features" / feature_cache_key(backbone, dataset.processor, precision)
    files = [_file(folder, key) for key in _content_keys(dataset, modality)]
    intact = _intact({file for file in files if file is not None})
    batches = _batches(files, _lengths(dataset, modality), _LARGEST_BATCH[modality])
    batches = [rows for rows in batches if not all(files[row] in intact for row in rows)]
    model.eval().to(device)
    PartialState().wait_for_everyone()  # no process writes before all have listed what is missing
    with PartialState().split_between_processes(batches) as own, ThreadPoolExecutor() as pool:
        inputs = DataLoader(_Inputs(dataset, modality, own), batch_size=None, num_workers=min(workers, len(own)))
        bar = progress(inputs, desc=f"{modality} features", total=len(own), unit="batch", disable=not own)
        for rows, (values, mask) in zip(own, bar, strict=True):
            with torch.autocast(device.type, precision, enabled=precision is not None):
                features = _compute(model, modality, values.to(device), mask.to(device))
            for row, states in zip(rows, features, strict=True):
                _require_finite(states, dataset.rows["utterance_id"].iloc[row], modality)
            new = [(cast(Path, files[row]), states) for row, states in zip(rows, features, strict=True) if files[row] not in intact]
            list(pool.map(_save, new))  # the list raises what a thread raised
    PartialState().wait_for_everyone()
    dataset.features[modality] = files


class _Inputs(Dataset):
    """The raw input of batches of rows, padded: values and mask."""

    def __init__(self, dataset: EmotionDataset, modality: str, batches: Sequence[Sequence[int]]):
        self.dataset = dataset
        self.modality = modality
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.batches[number]
        waveforms: list[Any] = [None] * len(rows)
        tokens: list[Any] = [None] * len(rows)
        if self.modality == "audio":
            waveforms = [self.dataset.waveform(row) for row in rows]
        else:
            tokens = [self.dataset.tokens[row] for row in rows]
        values, mask = self.dataset.processor.pad(waveforms, tokens, padding="grid").values()
        return values, mask


def _lengths(dataset: EmotionDataset, modality: str) -> np.ndarray:
    """How many samples or tokens each row has, `(rows,)`: what it costs to compute its features."""
    if modality == "text":
        return np.array([len(ids or ()) for ids in dataset.tokens])
    fixed = getattr(dataset.processor.feature_extractor, "n_samples", 0)  # Whisper pads every row to 30 s
    return np.maximum(dataset.shapes[:, 0], fixed)


def _batches(files: Sequence[Path | None], lengths: np.ndarray, limit: int) -> list[list[int]]:
    """The rows that have the modality, each input once, in batches of similar length, the longest first.

    Short rows come in large batches, so that a GPU does not wait for its many small kernels to be launched.
    """
    order = np.argsort(-lengths, kind="stable").tolist()
    distinct = {files[row]: row for row in reversed(order) if files[row] is not None}
    rows = [row for row in order if distinct.get(files[row]) == row]
    batches = []
    while rows:
        longest = int(lengths[rows[0]]) or limit // 16  # of unknown length
        size = max(min(limit // longest, _MOST_ROWS), 1)
        batches.append(rows[:size])
        rows = rows[size:]
    return batches


def _save(entry: tuple[Path, np.ndarray]):
    """Write an entry of the cache: an .npy file with the hash of its content behind it, which NumPy ignores."""
    file, states = entry
    content = io.BytesIO()
    np.save(content, states)
    with atomic_path(file) as temporary:
        temporary.write_bytes(content.getvalue() + _digest(content.getvalue()))


def _intact(files: Iterable[Path]) -> set[Path]:
    """The files of the cache that are there and undamaged, read by several threads; a note tells the damaged."""
    there = [file for file in files if file.is_file()]
    with ThreadPoolExecutor() as pool:
        verdicts = list(pool.map(_is_intact, there))
    if not all(verdicts):
        logger.warning(f"note: {verdicts.count(False)} damaged entries of the feature cache are computed again")
    return {file for file, is_intact in zip(there, verdicts, strict=True) if is_intact}


def _is_intact(file: Path) -> bool:
    """Whether an entry is what was written. Earlier versions wrote no hash; then its size must be right."""
    status = file.stat()
    return _is_intact_once(file, status.st_size, status.st_mtime_ns)


@cache
def _is_intact_once(file: Path, size: int, changed: int) -> bool:
    """The verdict on a file, found once per process as long as its size and time of change stay the same."""
    content = file.read_bytes()
    stream = io.BytesIO(content)
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError:
        return False
    end = stream.tell() + math.prod(shape) * dtype.itemsize
    return len(content) == end or content[end:] == _digest(content[:end])


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def feature_cache_key(
    backbone: PreTrainedModel, processor: MerhanProcessor, precision: torch.dtype | None = None
) -> str:
    """Hash of a backbone's weights, config and precision, and of the preprocessing of its input."""
    digest = weights_digest(backbone)
    bounds = [processor.min_seconds, processor.max_seconds, processor.trim_silence]
    preparation = [processor.feature_extractor.to_dict(), *bounds]
    if precision is not None:
        preparation.append(str(precision))
    digest.update(backbone.config.to_json_string().encode() + json.dumps(preparation, default=str).encode())
    return digest.hexdigest()


def _file(folder: Path, key: str | None) -> Path | None:
    """Where the features of an utterance are cached; a folder per first two digits keeps folders small."""
    if key is None:
        return None
    return folder / key[:2] / f"{key}.npy"


def _content_keys(dataset: EmotionDataset, modality: str) -> list[str | None]:
    """Hash of the recording or the token ids of each row; None where it lacks the modality."""
    if modality == "text":
        return [None if ids is None else _hash(json.dumps(ids).encode()) for ids in dataset.tokens]
    # Several rows may be segments of one recording.
    recordings = {audio: _hash(Path(audio).read_bytes()) for audio, *_ in dataset.segments if audio}
    return [
        _hash(f"{recordings[audio]} {start} {end}".encode()) if audio else None
        for audio, start, end in dataset.segments
    ]


def _hash(content: bytes) -> str:
    return _digest(content).hex()


@torch.no_grad()
def _compute(model: MerhanModel, modality: str, values: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
    """The features of each row, `(length, width)` float16, without padding (as Whisper's to 30 s)."""
    encoded = model.encode(modality, values, mask)
    states, real = encoded.states.half().cpu(), encoded.mask.cpu()
    return [row[seen].numpy() for row, seen in zip(states, real, strict=True)]


def _require_finite(states: np.ndarray, name: str, modality: str):
    """Raise InputError if a feature is too large for half precision."""
    if not np.isfinite(states).all():
        raise InputError(
            f"{name!r}: its {modality} features exceed the range of half precision; set `cache_features: false` in "
            f"this stage of the recipe."
        )
