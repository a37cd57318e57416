"""Results in parts that are written as they come, and merged at the end."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from merhan.errors import InputError
from merhan.files import atomic_path, write_json


_STATE = "state.json"

SUFFIXES = (".parquet", ".csv", ".jsonl")


def result_schema(labels: Sequence[str]) -> pa.Schema:
    """The columns of a result."""
    scores = [pa.field(f"score_{label}", pa.float64()) for label in labels]
    fields = [pa.field("utterance_id", pa.string()), pa.field("prediction", pa.string()), *scores]
    fields += [
        pa.field("given", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("seconds_used", pa.float64()),
    ]
    fields += [pa.field("transcript", pa.string()), pa.field("abstained", pa.bool_()), pa.field("error", pa.string())]
    return pa.schema(fields)


def result_table(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> pa.Table:
    """Rows as a table; `abstained` is left open."""
    return pa.Table.from_pylist(list(rows), result_schema(labels))


def with_abstentions(table: pa.Table, labels: Sequence[str], min_score: float) -> pd.DataFrame:
    """The table with `abstained`: whether the highest score is below `min_score`; empty where there is an error."""
    frame = table.to_pandas()
    best = frame[[f"score_{label}" for label in labels]].max(axis=1)
    frame["abstained"] = (best < min_score).astype("boolean").mask(frame["prediction"].isna())
    return frame


def require_suffix(out: Path):
    """Raise InputError unless a file of this name can be written."""
    if out.suffix not in SUFFIXES:
        raise InputError(f"{out}: results are written as {', '.join(SUFFIXES)}, not {out.suffix or 'no suffix'}.")


class Parts:
    """The folder of the parts of a result, `<out>.parts`, each written atomically."""

    def __init__(self, out: Path):
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")

    def state(self) -> dict[str, Any]:
        """What the parts are of; empty if there are none, or only what a removal left."""
        path = self.folder / _STATE
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def begin(self, state: Mapping[str, Any]):
        """Remove all parts, and say what the next ones are of."""
        self.remove()
        write_json(self.folder / _STATE, state)

    def finished(self) -> set[int]:
        """The numbers of the parts that are there."""
        return {int(path.stem) for path in self.folder.glob("[0-9]*.parquet")}

    def write(self, number: int, table: pa.Table):
        """Write a part."""
        with atomic_path(self._path(number)) as temporary:
            pyarrow.parquet.write_table(table, temporary)

    def read(self, number: int) -> pa.Table:
        """Read a part."""
        return pyarrow.parquet.read_table(self._path(number))

    def merge(self, tables: Iterable[pd.DataFrame], labels: Sequence[str]):
        """Write the result from the tables of its parts, and remove the parts."""
        with atomic_path(self.out) as temporary, _writer(temporary, result_schema(labels)) as write:
            for table in tables:
                write(table)
        self.remove()

    def remove(self):
        """Remove all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends rows to a file."""
    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            yield lambda rows: writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            pd.DataFrame(columns=schema.names).to_csv(file, index=False, lineterminator="\n")
            yield lambda rows: rows.to_csv(file, index=False, header=False, lineterminator="\n")
        else:
            yield lambda rows: file.writelines(_json_lines(rows))


def _json_lines(rows: pd.DataFrame) -> Iterator[str]:
    """A line per row, with null for what is empty."""
    for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        yield json.dumps(row, ensure_ascii=False) + "\n"
