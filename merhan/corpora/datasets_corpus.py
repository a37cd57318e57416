"""Any data set of the `datasets` library, from the Hub or from disk, by a column map."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from merhan.corpora import Corpus
from merhan.corpora.table_corpus import rename
from merhan.errors import InputError, nearest
from merhan.feature_cache import cache_folder
from merhan.manifest import FEATURES


_SPLITS = {"train": "train", "validation": "validation", "dev": "validation", "valid": "validation", "test": "test"}


def read(source: str | Path | None, columns: Mapping[str, str] | None = None, config: str | None = None) -> Corpus:
    """`source`: a name on the Hub, or a folder; `columns`: our column -> theirs; `config`: the data set's own.

    Sound and features (`columns: {audio_features: emotion2vec_features}`) that are embedded in the data set are
    unpacked once into the cache, because a manifest speaks of files.
    """
    if source is None:
        raise InputError("data.source: give the data set's name or folder.")
    columns = dict(columns or {})
    parts = [_rows(split, name, columns, str(source)) for name, split in _load(str(source), config).items()]
    rows = pd.concat(parts, ignore_index=True)
    return Corpus(rename(rows, columns, Path(str(source)).name, Path()), [])


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
    audio, label = columns.get("audio", "audio"), columns.get("label", "label")
    if label not in split.column_names:
        raise InputError(
            f"data.options.columns.label: {source} has no column {label!r}{nearest(label, split.column_names)}"
        )
    if isinstance(split.features.get(audio), datasets.Audio):
        split = split.cast_column(audio, datasets.Audio(decode=False))
    vectors = {columns.get(column, column) for column in FEATURES} & set(split.column_names)
    rows = pd.DataFrame({column: split[column][:] for column in split.column_names if column not in vectors})
    for column in vectors:
        arrays = split.select_columns([column]).with_format("numpy")
        rows[column] = ["" if row[column] is None else _unpack(_npy(row[column]), ".npy") for row in arrays]
    if isinstance(split.features[label], datasets.ClassLabel):
        rows[label] = [split.features[label].int2str(number) for number in rows[label]]
    if audio in rows:
        rows[audio] = [_file(one) for one in rows[audio]]
    return rows.assign(split=_SPLITS.get(name, name)) if "split" not in rows else rows


def _file(audio: str | Mapping | None) -> str:
    """The path of a recording, unpacked first where the data set holds its bytes."""
    if not isinstance(audio, Mapping):
        return audio or ""
    if not audio.get("bytes"):
        return audio.get("path") or ""
    return _unpack(audio["bytes"], Path(audio.get("path") or "").suffix)


def _npy(vectors: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, vectors.astype(np.float32))
    return file.getvalue()


def _unpack(content: bytes, suffix: str) -> str:
    """The path of a file in the cache that holds just this."""
    path = cache_folder() / "datasets" / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}{suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_bytes(content)
        temporary.replace(path)
    return str(path)
