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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedConfig

from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.files import atomic_path, cache_folder
from merhan.logs import get_logger, progress
from merhan.models.inference import weights_digest
from modeling_merhan import PADDING, MerhanModel
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

    Args:
        precision: of autocast; None = that of the weights.
        workers: processes that load audio.
    """
    backbone = getattr(model, f"{modality}_backbone")

    def compute(values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded = model.encode(modality, values, mask)
        return encoded.states.half(), encoded.mask

    key = feature_cache_key(backbone, backbone.config, dataset.processor, precision)
    model.eval().to(device)
    _use_cache(dataset, modality, key, compute, device, precision, workers)


def use_cached_convolutions(
    model: MerhanModel,
    dataset: EmotionDataset,
    device: torch.device,
    precision: torch.dtype | None = None,
    workers: int = 0,
):
    """Compute what the frozen convolutional encoder of a speech backbone gives for each recording, and make the data
    set read it. The model must then read it as well, see [`read_convolutions`].

    Args:
        precision, workers: as of [`use_cached_features`]. Without half precision the entries are float32, so that they
            equal what the encoder computes.
    """
    backbone: Any = model.audio_backbone
    dtype = torch.float32 if precision is None else torch.float16

    def compute(values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if model.marks_padding:
            values = values.masked_fill(mask == 0, PADDING)
        states = backbone.feature_extractor(values).transpose(1, 2)
        return states.to(dtype), backbone._get_feature_vector_attention_mask(states.shape[1], mask)

    key = feature_cache_key(backbone.feature_extractor, backbone.config, dataset.processor, precision)
    model.eval().to(device)
    _use_cache(dataset, "audio", key, compute, device, precision, workers)


def read_convolutions(model: MerhanModel):
    """Make a model take the output of its convolutional encoder as `audio_features`, in place of the backbone's."""
    backbone: Any = model.audio_backbone
    backbone.feature_extractor.forward = _channels_first
    backbone._get_feature_vector_attention_mask = _same_mask
    model.marks_padding = False
    model.register_forward_pre_hook(_into_backbone, with_kwargs=True)


def _channels_first(states: torch.Tensor) -> torch.Tensor:
    """In place of the convolutions: `(batch, frames, channels)` as they give it, `(batch, channels, frames)`."""
    return states.transpose(1, 2)


def _same_mask(frames: int, mask: torch.Tensor, **options: Any) -> torch.Tensor:
    """In place of the conversion from samples to frames: the mask is one over frames already."""
    return mask.bool()


def _into_backbone(model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Pass the features to the backbone, as its sound."""
    for old, new in (("audio_features", "input_values"), ("audio_features_mask", "audio_attention_mask")):
        inputs[new] = inputs.pop(old, None)
    return args, inputs


def _use_cache(
    dataset: EmotionDataset,
    modality: str,
    key: str,
    compute: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    precision: torch.dtype | None,
    workers: int,
):
    """Compute what is missing in a folder of the cache, and make the data set read it.

    Which rows share a batch depends on the rows alone, and not on what is missing: so a run that was interrupted here
    is resumed to the same numbers.

    Args:
        key: name of the folder.
        compute: values and mask of a batch -> features `(batch, length, width)` and their mask.
    """
    folder = cache_folder() / "features" / key
    files = [_file(folder, content) for content in _content_keys(dataset, modality)]
    intact = _intact({file for file in files if file is not None})
    batches = _batches(files, _lengths(dataset, modality), _LARGEST_BATCH[modality])
    batches = [rows for rows in batches if not all(files[row] in intact for row in rows)]

    def save(row: int, states: np.ndarray):
        if not np.isfinite(states).all():
            raise InputError(_too_large(dataset.rows["utterance_id"].iloc[row], modality))
        if files[row] not in intact:
            _save(cast(Path, files[row]), states)

    PartialState().wait_for_everyone()  # no process writes before all have listed what is missing
    # Threads write a batch while the next one is computed.
    with PartialState().split_between_processes(batches) as own, ThreadPoolExecutor() as pool, torch.no_grad():
        inputs = DataLoader(
            _Inputs(dataset, modality, own),
            batch_size=None,
            num_workers=min(workers, len(own)),
            pin_memory=device.type == "cuda",
        )
        bar = progress(inputs, desc=f"{modality} features", total=len(own), unit="batch", disable=not own)
        written: Iterator[None] = iter(())
        for rows, (values, mask) in zip(own, bar, strict=True):
            with torch.autocast(device.type, precision, enabled=precision is not None):
                outputs = compute(values.to(device, non_blocking=True), mask.to(device, non_blocking=True))
            list(written)  # waits, and raises what went wrong
            written = pool.map(save, rows, _arrays(*outputs))
        list(written)
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
    batches, start = [], 0
    while start < len(rows):
        longest = int(lengths[rows[start]]) or limit // 16  # of unknown length
        size = max(min(limit // longest, _MOST_ROWS), 1)
        batches.append(rows[start : start + size])
        start += size
    return batches


def _arrays(states: torch.Tensor, real: torch.Tensor) -> list[np.ndarray]:
    """The features of each row, `(length, width)`, without padding (as Whisper's to 30 s)."""
    return [row[seen].numpy() for row, seen in zip(states.cpu(), real.cpu(), strict=True)]


def _too_large(name: str, modality: str) -> str:
    return (
        f"{name!r}: its {modality} features exceed the range of half precision; set `cache_features: false` (or "
        f"`cache_feature_encoder: false`) in this stage of the recipe."
    )


def _save(file: Path, states: np.ndarray):
    """Write an entry of the cache: an .npy file with the hash of its content behind it, which NumPy ignores."""
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
    module: nn.Module, config: PreTrainedConfig, processor: MerhanProcessor, precision: torch.dtype | None = None
) -> str:
    """Hash of a backbone's weights (or a part of them), config and precision, and of the preprocessing of its input."""
    digest = weights_digest(module)
    bounds = [processor.min_seconds, processor.max_seconds, processor.trim_silence]
    preparation = [processor.feature_extractor.to_dict(), *bounds]
    if precision is not None:
        preparation.append(str(precision))
    digest.update(config.to_json_string().encode() + json.dumps(preparation, default=str).encode())
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
    paths = list({audio for audio, *_ in dataset.segments if audio})
    with ThreadPoolExecutor() as pool:
        recordings = dict(zip(paths, pool.map(_hash_of_file, paths), strict=True))
    return [
        _hash(f"{recordings[audio]} {start} {end}".encode()) if audio else None
        for audio, start, end in dataset.segments
    ]


def _hash_of_file(path: str) -> str:
    return _hash(Path(path).read_bytes())


def _hash(content: bytes) -> str:
    return _digest(content).hex()
