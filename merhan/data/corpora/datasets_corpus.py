"""Any data set of the `datasets` library, from the Hub or from disk, with a mapping of its columns."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from datasets.packaged_modules.cache.cache import Cache
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

from merhan.data.corpora.base import Corpus
from merhan.data.corpora.table_corpus import (
    column_name,
    hidden_splits,
    leave_out_unlabelled,
    remarks_on,
    rename_columns,
    require_content,
)
from merhan.data.embedded_files import is_empty, sound_files, vector_file
from merhan.data.manifest import FEATURES
from merhan.errors import InputError, did_you_mean
from merhan.files import home_path
from merhan.hub_ids import HTTP_ERROR, data_set_commit, split_revision


_FAILURES = (OSError, ValueError, ConnectionError, HTTP_ERROR, ImportError, datasets.exceptions.DatasetsError)


class _AudioPath(datasets.Audio):
    """Audio of a folder of recordings. Storing its path does not need torchcodec, which `datasets` asks for."""

    def encode_example(self, value: str) -> dict[str, Any]:
        return {"bytes": None, "path": value}


def read(
    source: str | Path | None,
    columns: Mapping[str, str | None] | None = None,
    config: str | None = None,
    root: str | Path | None = None,
    streaming: bool = False,
) -> Corpus:
    """Read every split. Sound and features that the data set contains are written to the cache once as files.

    Sound may be an `Audio` column, a path, the bytes of a file, or samples with their rate, see
    [`merhan.data.embedded_files.sound_files`]. Rows whose label is hidden (None, or -1 of a ClassLabel) are left out.

    Args:
        source: a name on the Hub, which may pin a revision (`me/data@v1.0`), a folder (of `save_to_disk`, of Parquet
            files, or of recordings, an `audiofolder`), or a Parquet file.
        columns: manifest column -> column of the data set, as `{"audio_features": "emotion2vec_features"}`; null: the
            data set has no such column, whatever is named so.
        config: the configuration of the data set.
        root: the folder that paths are relative to, by default the working folder.
        streaming: read the data set of the Hub once, row by row, in place of storing all of it beside the cache.

    Raises:
        InputError: the data set cannot be loaded, lacks a column, or holds no sound where it should.
    """
    if source is None:
        raise InputError("data.source: give the name or the folder of the data set.")
    name, columns = str(source), dict(columns or {})
    splits = load_splits(name, config, streaming)
    _require_labels(splits, columns, name)
    rows_of = _streamed_rows if streaming else _rows
    parts = [rows_of(split, str(part), columns, name) for part, split in splits.items()]
    table = pd.concat(parts, ignore_index=True)
    require_content(table, columns, name)
    rows = rename_columns(table, columns, Path(split_revision(name).name).stem, home_path(root or ""), name)
    labelled, skipped = leave_out_unlabelled(rows)
    return Corpus(labelled, skipped, [*remarks_on(table, columns), *hidden_splits(rows, labelled)])


@contextmanager
def _uncounted() -> Iterator[None]:
    """Within it, `datasets` does not report each load, even of local files, to a server that counts them."""
    counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts


@_uncounted()
def load_splits(source: str, config: str | None = None, streaming: bool = False) -> Any:
    """The splits of a data set, see [`read`]: a `DatasetDict`, or an `IterableDatasetDict`.

    Raises:
        InputError: it cannot be loaded.
    """
    path = home_path(source)
    if streaming and path.exists():
        raise InputError(f"data.options.streaming: {source!r} is on this machine; streaming is for names on the Hub.")
    try:
        if streaming:
            name, revision = split_revision(source).name, data_set_commit(source)
            return datasets.load_dataset(name, config, streaming=True, revision=revision)
        if (path / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)
        if (path / "state.json").is_file():
            return datasets.DatasetDict(train=datasets.load_from_disk(path))
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(path))
        return _build(str(path) if path.is_dir() else source, config)
    except _FAILURES as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise InputError(f"data.source: {source!r} cannot be loaded as a data set ({reason}).") from None


def _build(source: str, config: str | None) -> datasets.DatasetDict:
    name, revision = split_revision(source).name, data_set_commit(source)
    builder = datasets.load_dataset_builder(name, config, revision=revision)
    if isinstance(builder, Cache) and revision is not None:
        return _cached_builder(name, revision, config).as_dataset()
    if not isinstance(builder, FolderBasedBuilder):
        return datasets.load_dataset(name, config, revision=revision)
    builder.BASE_FEATURE = _AudioPath
    builder.download_and_prepare()
    return builder.as_dataset()


def _cached_builder(name: str, commit: str, config: str | None) -> datasets.DatasetBuilder:
    """A commit in the cache of `datasets`, which itself would take the newest there is when the Hub is out of reach."""
    folders = list(Path(datasets.config.HF_DATASETS_CACHE).glob(f"*/{config or '*'}/*/{commit}"))
    if len(folders) != 1:
        raise FileNotFoundError(f"the Hub does not give it, and the cache holds {len(folders)} configurations of it")
    _, configuration, version, _ = folders[0].parts[-4:]
    place = {"config_name": configuration, "version": version, "hash": commit}
    return Cache(repo_id=name, dataset_name=name.split("/")[-1], **place)


def _require_labels(splits: Mapping[str, Any], columns: Mapping[str, str | None], source: str):
    """Refuse a data set without the label column; a split may lack it, as a test whose labels are hidden."""
    label = column_name("label", columns)
    known = {column for split in splits.values() for column in split.column_names or split._resolve_features().features}
    if label not in known:
        raise InputError(
            f"data.options.columns.label (`--column label=...`): {source} has no column "
            f"{label!r}{did_you_mean(str(label), known)}"
        )


def _rows(split: datasets.Dataset, name: str, columns: Mapping[str, str | None], source: str) -> pd.DataFrame:
    """The rows of one split under the column names of the data set."""
    audio, label = column_name("audio", columns), column_name("label", columns)
    vectors = {column_name(column, columns) for column in FEATURES} & set(split.column_names)
    plain = [column for column in split.column_names if column not in vectors and column != audio]
    rows = pd.DataFrame({column: split[column][:] for column in plain})
    for column in vectors:
        arrays = split.select_columns([column]).with_format("numpy")
        rows[column] = [vector_file(row[column]) for row in arrays]
    if isinstance(split.features.get(label), datasets.ClassLabel):
        rows[label] = [_class_name(split.features[label], number) for number in rows[label]]
    if audio is not None and audio in split.column_names:
        where = f"{source}, split {name}, column {audio!r} ({_type_name(split.features[audio])})"
        rows[audio] = sound_files(_sound_cells(split, audio), where)
    if "split" not in rows:
        rows["split"] = name
    return rows


def _streamed_rows(split: Any, name: str, columns: Mapping[str, str | None], source: str) -> pd.DataFrame:
    """The same of a split that is read once: its sound and vectors go to the cache as they come."""
    audio, label = column_name("audio", columns), column_name("label", columns)
    features = split._resolve_features().features
    if isinstance(features.get(audio), datasets.Audio):
        split = split.cast_column(audio, datasets.Audio(decode=False))
    others: list[dict[str, Any]] = []

    def sounds() -> Iterator[Any]:
        for row in split:
            cell = row.pop(audio, None)
            others.append(_without_vectors(row, columns))
            yield _with_own_types(cell, features[audio]) if isinstance(cell, dict) else cell

    try:
        files = sound_files(sounds(), f"{source}, split {name}, column {audio!r}")
    except InputError:
        raise
    except _FAILURES as error:
        raise InputError(f"{source}, split {name}: ended after {len(others)} rows ({error}); start again.") from None
    rows = pd.DataFrame(others)
    if audio in features:
        rows[audio] = files
    if isinstance(features.get(label), datasets.ClassLabel):
        rows[label] = [_class_name(features[label], number) for number in rows[label]]
    return rows if "split" in rows else rows.assign(split=name)


def _without_vectors(row: dict[str, Any], columns: Mapping[str, str | None]) -> dict[str, Any]:
    """A row with the path of a file in place of each feature vector."""
    names = {str(column_name(column, columns)) for column in FEATURES} & set(row)
    vectors = {name: None if row[name] is None else np.asarray(row[name]) for name in names}
    return row | {name: vector_file(array) for name, array in vectors.items()}


def _class_name(labels: datasets.ClassLabel, number: Any) -> str:
    """The name of a class id; empty for None and -1, by which data sets hide the labels of a test."""
    if is_empty(number) or int(number) == -1:
        return ""
    return labels.int2str(int(number))


def _sound_cells(split: datasets.Dataset, column: str) -> Iterator[Any]:
    """The cells of a sound column, not decoded; one row is in memory at a time."""
    feature = split.features[column]
    if isinstance(feature, datasets.Audio):
        split = split.cast_column(column, datasets.Audio(decode=False))
    split = split.select_columns([column])
    if isinstance(feature, dict) and {"array", "raw"} & set(feature):
        yield from (_with_own_types(row[column], feature) for row in split.with_format("numpy"))
    else:
        yield from (row[column] for row in split)


def _with_own_types(cell: dict[str, Any] | None, feature: Mapping[str, Any]) -> dict[str, Any] | None:
    """Samples in the type that the data set declares; `datasets` makes int64 of every integer."""
    if cell is None:
        return None
    for key in ("array", "raw"):
        if cell.get(key) is not None:
            cell[key] = np.asarray(cell[key]).astype(_sample_type(feature[key]))
    return cell


def _sample_type(feature: Any) -> str:
    while isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    return feature.dtype


def _type_name(feature: Any) -> str:
    if isinstance(feature, dict):
        return "{" + ", ".join(f"{name}: {_type_name(item)}" for name, item in feature.items()) + "}"
    if isinstance(feature, datasets.Value):
        return feature.dtype
    return type(feature).__name__
