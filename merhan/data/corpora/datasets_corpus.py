"""Any data set of the `datasets` library, from the Hub or from disk, with a mapping of its columns."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from merhan.data.corpora.base import Corpus
from merhan.data.corpora.table_corpus import rename_columns
from merhan.data.manifest import FEATURES
from merhan.errors import InputError, did_you_mean
from merhan.files import atomic_path, cache_folder


_SPLITS = {"train": "train", "validation": "validation", "dev": "validation", "valid": "validation", "test": "test"}


def read(source: str | Path | None, columns: Mapping[str, str] | None = None, config: str | None = None) -> Corpus:
    """Read every split. Audio and features that the data set contains are written to the cache once as files.

    Args:
        source: a name on the Hub, or a folder.
        columns: manifest column -> column of the data set, as `{"audio_features": "emotion2vec_features"}`.
        config: the configuration of the data set.

    Raises:
        InputError: the data set cannot be loaded, or lacks a column.
    """
    if source is None:
        raise InputError("data.source: give the name or the folder of the data set.")
    columns = dict(columns or {})
    parts = [_rows(split, name, columns, str(source)) for name, split in _load(str(source), config).items()]
    rows = pd.concat(parts, ignore_index=True)
    return Corpus(rename_columns(rows, columns, Path(str(source)).name, Path()), [])


def _load(source: str, config: str | None) -> datasets.DatasetDict:
    try:
        if (Path(source) / "dataset_dict.json").is_file():
            return datasets.load_from_disk(source)
        if (Path(source) / "state.json").is_file():
            return datasets.DatasetDict(train=datasets.load_from_disk(source))
        return datasets.load_dataset(source, config)
    except (OSError, ValueError, ConnectionError) as error:
        raise InputError(f"data.source: {source!r} cannot be loaded as a data set ({error}).") from None


def _rows(split: datasets.Dataset, name: str, columns: Mapping[str, str], source: str) -> pd.DataFrame:
    """The rows of one split under the column names of the data set."""
    audio, label = columns.get("audio", "audio"), columns.get("label", "label")
    if label not in split.column_names:
        suggestion = did_you_mean(label, split.column_names)
        raise InputError(
            f"data.options.columns.label (`--column label=...`): {source} has no column {label!r}{suggestion}"
        )
    if isinstance(split.features.get(audio), datasets.Audio):
        split = split.cast_column(audio, datasets.Audio(decode=False))
    vectors = {columns.get(column, column) for column in FEATURES} & set(split.column_names)
    rows = pd.DataFrame({column: split[column][:] for column in split.column_names if column not in vectors})
    for column in vectors:
        arrays = split.select_columns([column]).with_format("numpy")
        rows[column] = [_feature_file(row[column]) for row in arrays]
    if isinstance(split.features[label], datasets.ClassLabel):
        rows[label] = [split.features[label].int2str(number) for number in rows[label]]
    if audio in rows:
        rows[audio] = [_audio_file(cell) for cell in rows[audio]]
    if "split" not in rows:
        rows["split"] = _SPLITS.get(name, name)
    return rows


def _audio_file(audio: str | Mapping[str, Any] | None) -> str:
    """The path of a recording, which is written to the cache if the data set contains its bytes."""
    if not isinstance(audio, Mapping):
        return audio or ""
    if not audio.get("bytes"):
        return audio.get("path") or ""
    return _write_to_cache(audio["bytes"], Path(audio.get("path") or "").suffix)


def _feature_file(vectors: np.ndarray | None) -> str:
    """The path of an .npy file of feature vectors, written to the cache; empty for None."""
    if vectors is None:
        return ""
    file = io.BytesIO()
    np.save(file, vectors.astype(np.float32))
    return _write_to_cache(file.getvalue(), ".npy")


def _write_to_cache(content: bytes, suffix: str) -> str:
    """The path of a file with this content, named by its hash."""
    path = cache_folder() / "datasets" / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}{suffix}"
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return str(path)
