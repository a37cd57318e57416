"""Sound and feature vectors that a table holds in its cells, written to the cache as files.

A manifest names files. Data sets also hold sound as the bytes of a file, or as samples with their rate, as most public
ones are saved.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from merhan.errors import InputError
from merhan.files import atomic_path, cache_folder


_FORMS = "a path, the bytes of a file, {bytes, path}, {array, sampling_rate} or {raw, sampling_rate}"
_SAMPLE_KEYS = ("array", "raw")

# Type of the samples -> subtype of the wav file that holds them exactly; other floats are stored as float32.
_SUBTYPES = {"int16": "PCM_16", "int32": "PCM_32", "float16": "FLOAT", "float32": "FLOAT", "float64": "FLOAT"}

# Samples beyond this are not floats in [-1, 1] with some overshoot, but integers that were saved as floats.
_LARGEST_SAMPLE = 2.0


def sound_files(cells: Iterable[Any], where: str) -> list[str]:
    """The path of each cell's sound, empty for an empty cell.

    Args:
        cells: each a path, the bytes of a file (wav, FLAC, ...), `{bytes, path}`, `{array, sampling_rate}` or
            `{raw, sampling_rate}`, or nothing (None, NaN, an empty string).
        where: name of the data and the column, for messages.

    Raises:
        InputError: names the row and the type of a cell that holds something else.
    """
    return [_sound_file(cell, f"{where}, row {number}") for number, cell in enumerate(cells, start=1)]


def vector_file(vectors: np.ndarray | None) -> str:
    """The path of an .npy file of feature vectors; empty for None."""
    if vectors is None:
        return ""
    file = io.BytesIO()
    np.save(file, vectors.astype(np.float32))
    return _write_to_cache(file.getvalue(), ".npy")


def is_empty(cell: Any) -> bool:
    """Whether a cell of a table is None, NaN, NaT, NA or an empty string."""
    if isinstance(cell, str | bytes | Mapping | list | np.ndarray):
        return isinstance(cell, str | bytes) and not cell
    return cell is None or bool(pd.isna(cell))


def is_blank(cell: Any) -> bool:
    """Whether a cell is empty or a string of blanks."""
    return is_empty(cell) or (isinstance(cell, str) and not cell.strip())


def _sound_file(cell: Any, where: str) -> str:
    if is_empty(cell):
        return ""
    if isinstance(cell, str | Path):
        return str(cell)
    if isinstance(cell, bytes | bytearray):
        return _write_to_cache(bytes(cell), "")
    if isinstance(cell, Mapping):
        return _file_of_mapping(cell, where)
    raise InputError(f"{where}: holds {type(cell).__name__}, which is no sound; give {_FORMS}.")


def _file_of_mapping(cell: Mapping[str, Any], where: str) -> str:
    samples = next((cell[key] for key in _SAMPLE_KEYS if cell.get(key) is not None), None)
    if samples is not None:
        return _write_to_cache(_wav(samples, cell.get("sampling_rate"), where), ".wav")
    if cell.get("bytes"):
        return _write_to_cache(bytes(cell["bytes"]), Path(cell.get("path") or "").suffix)
    if not {"bytes", "path", *_SAMPLE_KEYS} & set(cell):
        raise InputError(f"{where}: holds the keys {', '.join(map(repr, cell))}, which are no sound; give {_FORMS}.")
    return str(cell.get("path") or "")


def _wav(samples: Any, rate: Any, where: str) -> bytes:
    """A wav file of samples `(samples,)`, `(samples, channels)` or `(channels, samples)`."""
    waveform = _waveform(samples, where)
    if is_empty(rate) or int(rate) <= 0:
        raise InputError(f"{where}: sampling_rate is {rate!r}; give the samples per second.")
    if waveform.dtype.name not in _SUBTYPES:
        raise InputError(
            f"{where}: holds samples of type {waveform.dtype}, which has no defined full scale; give floats in "
            f"[-1, 1], or int16."
        )
    largest = np.abs(waveform).max(initial=0)
    if waveform.dtype.kind == "f" and largest > _LARGEST_SAMPLE:
        raise InputError(f"{where}: holds samples up to {largest:g}; scale them to [-1, 1], or save them as int16.")
    file = io.BytesIO()
    soundfile.write(file, waveform, int(rate), format="WAV", subtype=_SUBTYPES[waveform.dtype.name])
    return file.getvalue()


def _waveform(samples: Any, where: str) -> np.ndarray:
    """`(samples,)` or `(samples, channels)`, as soundfile writes it."""
    waveform = np.asarray(samples)
    if waveform.dtype == object:  # channels as lists within a list
        waveform = np.stack([np.asarray(channel) for channel in samples])
    if waveform.ndim not in (1, 2):
        raise InputError(f"{where}: has samples of {waveform.ndim} dimensions; give (samples,) or (samples, channels).")
    if waveform.dtype == np.float16:
        waveform = waveform.astype(np.float32)
    if waveform.ndim == 2 and waveform.shape[0] < waveform.shape[1]:
        return waveform.T
    return waveform


def _write_to_cache(content: bytes, suffix: str) -> str:
    """The path of a file with this content, named by its hash."""
    path = cache_folder() / "datasets" / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}{suffix}"
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return str(path)
