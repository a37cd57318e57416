"""What is to be scored: recordings, folders and tables, read a part at a time."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet

from merhan.data.corpora.datasets_corpus import load_splits
from merhan.data.corpora.folder_corpus import RECORDING_SUFFIXES, read_text
from merhan.data.corpora.table_corpus import column_name, rename_columns
from merhan.data.dataset import dialogue_context
from merhan.data.embedded_files import is_blank
from merhan.data.manifest import FEATURES, normalise_columns
from merhan.data.table_files import SUFFIXES, read_table
from merhan.errors import InputError
from merhan.files import home_path


_PART = 256  # rows of a table that are in memory at a time

# Columns of a manifest that scores depend on.
_COLUMNS = ("utterance_id", "audio", "text", "speaker", "dialogue", "turn", "start", "end", *FEATURES)
_CONTEXT_COLUMNS = ("utterance_id", "text", "speaker", "dialogue", "turn")


class Utterance(NamedTuple):
    """One row to score."""

    utterance_id: str
    audio: Any = None  # what `processing_merhan.load_audio` decodes
    text: str = ""
    speaker: str | None = None
    context: Sequence[Mapping[str, str]] = ()  # earlier turns, oldest first
    start: float | None = None  # seconds
    end: float | None = None
    features: Mapping[str, str] = {}  # modality -> .npy file of features
    transcript: str | None = None  # what a recogniser heard, where there was no text
    error: str | None = None  # why it cannot be read


class Source:
    """One input: a sequence of utterances that is read anew in each iteration."""

    name: str

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Utterance]:
        raise NotImplementedError

    def state(self) -> Iterable[Any]:
        """What changes when the input does."""
        raise NotImplementedError


class Recordings(Source):
    """A recording, or all in a folder and below it; with its words, where a `.txt` file of its name is beside it."""

    def __init__(self, path: Path):
        self.name = str(path)
        self.path = path
        self.count = sum(1 for _ in self._files())
        if not self.count:
            raise InputError(f"{path}: no recording in it or below it; give a folder of recordings, or its tables.")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Utterance]:
        for file in self._files():
            name = file.relative_to(self.path).as_posix() if file != self.path else str(file)
            try:
                yield Utterance(name, str(file), read_text(file.with_suffix(".txt")))
            except InputError as error:
                yield Utterance(name, error=str(error))

    def state(self) -> Iterator[Any]:
        for file in self._files():
            yield [str(file), *_file_state(file), *_file_state(file.with_suffix(".txt"))]

    def _files(self) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if Path(name).suffix.lower() in RECORDING_SUFFIXES and not name.startswith("."):
                    yield Path(folder, name)


class Table(Source):
    """A data frame, or a CSV, TSV, JSONL or .xlsx file, which is read as a whole."""

    def __init__(self, table: pd.DataFrame | Path, columns: Mapping[str, str | None], turns: int):
        self.name, self.path, self.folder = "rows", None, Path()
        if isinstance(table, Path):
            self.name, self.path, self.folder = str(table), table, table.parent
        self.columns, self.turns = columns, turns
        self._open(table)
        self._normalised(self._first_rows(), 0)  # raises where columns are missing

    def _open(self, table: Any):
        self.table: pd.DataFrame = table
        if self.path is not None:
            self.table = read_table(self.path)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Utterance]:
        contexts = self._contexts()
        first = 0
        for part in self._parts():
            for utterance in self._utterances(part, first):
                yield utterance._replace(context=contexts.get(utterance.utterance_id, ()))
            first += len(part)

    def state(self) -> Iterator[Any]:
        yield [self.name, sorted(self.columns.items())]
        if self.path is not None:
            yield _file_state(self.path)
        else:
            yield pd.util.hash_pandas_object(self.table.astype(str)).tolist()  # a list, because the order matters

    def _first_rows(self) -> pd.DataFrame:
        """A table of no rows with the columns of this one."""
        return self.table.iloc[:0]

    def _parts(self) -> Iterator[pd.DataFrame]:
        for first in range(0, len(self.table), _PART):
            yield self.table.iloc[first : first + _PART]

    def _some_columns(self, names: Sequence[str]) -> pd.DataFrame:
        return self.table[list(names)]

    def _contexts(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Utterance id -> the earlier turns of its dialogue, for a model that reads them."""
        columns = [self._column(name) for name in _CONTEXT_COLUMNS]
        present = [name for name in columns if name is not None and name in self._first_rows()]
        if not self.turns or not {self._column("dialogue"), self._column("turn")} <= set(present):
            return {}
        table = self._some_columns(present)
        return dialogue_context(self._normalised(table, 0), self.turns)

    def _utterances(self, part: pd.DataFrame, first: int) -> Iterator[Utterance]:
        """The rows of a part; one with an invalid cell is an utterance with an error."""
        try:
            rows = self._normalised(part, first)
        except InputError as error:
            if len(part) == 1:
                yield Utterance(self._ids(part, first)[0], error=str(error))
                return
            for number in range(len(part)):
                yield from self._utterances(part.iloc[number : number + 1], first + number)
            return
        sounds = self._sounds(part)
        for number, row in enumerate(rows.to_dict("records")):
            sound = sounds[number]
            yield _utterance(row, row["audio"] if isinstance(sound, str) else sound)

    def _normalised(self, part: pd.DataFrame, first: int) -> pd.DataFrame:
        """Rows of a manifest; sound that is in the cells is left out."""
        columns = dict(self.columns)
        part = part.assign(utterance_id=self._ids(part, first))
        columns["utterance_id"] = "utterance_id"
        audio = self._column("audio")
        if audio is not None and audio in part:
            part = part.assign(**{audio: [cell if isinstance(cell, str) else "" for cell in self._sounds(part)]})
        rows = rename_columns(part, columns, Path(self.name).stem, self.folder, self.name).assign(label="")
        known = [name for name in rows if name in (*_COLUMNS, "corpus", "label")]
        return normalise_columns(rows[known], self.name)

    def _sounds(self, part: pd.DataFrame) -> list[Any]:
        """The cells of the audio column: paths, empty strings, or sound itself."""
        audio = self._column("audio")
        return [_sound(cell) for cell in part[audio]] if audio in part else [""] * len(part)

    def _ids(self, part: pd.DataFrame, first: int) -> list[str]:
        column = self._column("utterance_id")
        if column in part:
            return part[column].astype(str).tolist()
        return [f"{Path(self.name).stem}-{number:06d}" for number in range(first + 1, first + len(part) + 1)]

    def _column(self, field: str) -> str | None:
        return column_name(field, self.columns)


class ParquetTable(Table):
    """A Parquet file, of which 256 rows are in memory at a time."""

    def _open(self, table: Any):
        try:
            self.file = pyarrow.parquet.ParquetFile(table)
        except (OSError, ValueError) as error:
            raise InputError(f"{table}: cannot be read as parquet ({error}).") from None

    def __len__(self) -> int:
        return self.file.metadata.num_rows

    def _first_rows(self) -> pd.DataFrame:
        return self.file.schema_arrow.empty_table().to_pandas()

    def _parts(self) -> Iterator[pd.DataFrame]:
        for batch in self.file.iter_batches(_PART):
            yield batch.to_pandas()

    def _some_columns(self, names: Sequence[str]) -> pd.DataFrame:
        return self.file.read(list(names)).to_pandas()


class DataSet(Table):
    """A split of a folder of `datasets`."""

    def __init__(self, path: Path, split: str, rows: Any, columns: Mapping[str, str | None], turns: int):
        self.data, self.split = rows, split
        super().__init__(path, columns, turns)
        self.name = f"{path}/{split}"

    def _open(self, table: Any):
        import datasets

        for name, feature in self.data.features.items():
            if isinstance(feature, datasets.Audio):
                self.data = self.data.cast_column(name, datasets.Audio(decode=False))

    def __len__(self) -> int:
        return len(self.data)

    def state(self) -> Iterator[Any]:
        yield [self.name, sorted(self.columns.items()), self.data._fingerprint, len(self.data)]

    def _first_rows(self) -> pd.DataFrame:
        return pd.DataFrame(columns=self.data.column_names)

    def _parts(self) -> Iterator[pd.DataFrame]:
        for first in range(0, len(self.data), _PART):
            part = self.data.select(range(first, min(first + _PART, len(self.data))))
            yield pd.DataFrame({name: part[name][:] for name in part.column_names})

    def _some_columns(self, names: Sequence[str]) -> pd.DataFrame:
        return self.data.select_columns(list(names)).to_pandas()


def open_sources(inputs: Any, columns: Mapping[str, str | None], turns: int) -> list[Source]:
    """The sources of what a user gives.

    Args:
        inputs: a data frame; or one or several of: a recording, a folder of recordings, a table (Parquet, CSV, TSV,
            JSONL, .xlsx), a folder of `datasets`, a pattern with `*`.
        columns: manifest column -> column of the tables, as `{"audio": "path"}`; others keep their names.
        turns: earlier turns of a dialogue that the model reads.

    Raises:
        InputError: no such file, nothing to score in it, or a table without `audio` and `text`.
    """
    if isinstance(inputs, pd.DataFrame):
        return [Table(inputs, columns, turns)]
    names = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    paths = [path for name in names for path in _paths(str(name))]
    return [source for path in paths for source in _sources(path, columns, turns)]


def fingerprint(sources: Iterable[Source]) -> str:
    """A hash of names, sizes and times of change of everything that is read."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        for entry in source.state():
            digest.update(repr(entry).encode() + b"\n")
    return digest.hexdigest()


def _paths(name: str) -> list[Path]:
    path = home_path(name)
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise InputError(f"{name}: no such file or folder, and no file of this pattern; check the path.")
    return [Path(match) for match in matches]


def _sources(path: Path, columns: Mapping[str, str | None], turns: int) -> list[Source]:
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        splits = load_splits(str(path)).items()
        return [DataSet(path, str(split), rows, columns, turns) for split, rows in splits]
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in SUFFIXES:
        return [Recordings(path)]
    if suffix == ".parquet":
        return [ParquetTable(path, columns, turns)]
    return [Table(path, columns, turns)]


def _file_state(path: Path) -> list[int]:
    """Size and time of change; empty if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _sound(cell: Any) -> Any:
    """A cell as a path, an empty string, or sound as it is."""
    if is_blank(cell):
        return ""
    if isinstance(cell, Mapping) and not any(cell.get(key) is not None for key in ("bytes", "array", "raw")):
        return cell.get("path") or cell
    return str(cell) if isinstance(cell, Path) else cell


def _utterance(row: Mapping[str, Any], sound: Any) -> Utterance:
    """A normalised row of a manifest."""
    start, end = (_seconds(row.get(name)) for name in ("start", "end"))
    features = {name.removesuffix("_features"): row[name] for name in FEATURES if row.get(name)}
    audio = None if isinstance(sound, str) and not sound else sound
    return Utterance(row["utterance_id"], audio, row["text"], row.get("speaker") or None, (), start, end, features)


def _seconds(cell: float | None) -> float | None:
    """A number, None where a cell is empty."""
    return None if cell is None or np.isnan(cell) else float(cell)
