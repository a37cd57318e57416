"""The user's own recordings, listed in a CSV, TSV, JSONL or Parquet file with columns of any name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import Corpus
from merhan.data.manifest import FEATURES, OPTIONAL, PATHS, REQUIRED
from merhan.data.table_files import read_table
from merhan.errors import InputError, did_you_mean


def read(source: str | Path | None, columns: Mapping[str, str] | None = None, root: str | Path | None = None) -> Corpus:
    """Read a table whose `label` column holds labels of the vocabulary, or ones that `label_map` maps to them.

    Args:
        source: the file.
        columns: manifest column -> column of the table, as `{"audio": "path", "text": "transcript"}`; columns that are
            not listed keep their names.
        root: the folder that paths are relative to, by default the folder of the table.

    Raises:
        InputError: the table cannot be read or lacks a column.
    """
    if source is None:
        raise InputError("data.source: give the path of the table.")
    folder = Path(root or Path(source).parent)
    return Corpus(rename_columns(read_table(source), columns or {}, Path(source).stem, folder), [])


def rename_columns(rows: pd.DataFrame, columns: Mapping[str, str], corpus: str, root: Path) -> pd.DataFrame:
    """Give a table the column names of a manifest, default values for missing columns, and full paths.

    Args:
        rows: the table.
        columns: manifest column -> column of the table.
        corpus: name of the corpus, used for the columns `corpus` and `utterance_id` if the table lacks them.
        root: the folder that paths are relative to.

    Raises:
        InputError: `columns` has an unknown column of either kind.
    """
    for name, source in columns.items():
        if name not in REQUIRED + OPTIONAL:
            suggestion = did_you_mean(name, REQUIRED + OPTIONAL)
            raise InputError(f"data.options.columns (`--column {name}=...`): unknown column {name!r}{suggestion}")
        if source not in rows:
            raise InputError(
                f"data.options.columns.{name} (`--column {name}=...`): the table has no column "
                f"{source!r}{did_you_mean(source, rows)}"
            )
    rows = rows.rename(columns={source: name for name, source in columns.items()})
    defaults = {column: value for column, value in _defaults(rows, corpus).items() if column not in rows}
    rows = rows.assign(**defaults)
    for column in PATHS:
        if column in rows:
            rows[column] = [str(root / path) if path else "" for path in rows[column].fillna("")]
    return rows


def _defaults(rows: pd.DataFrame, corpus: str) -> dict[str, Any]:
    """Values for the required columns that a table may lack: numbered ids, the corpus, one of the modalities."""
    defaults: dict[str, Any] = {
        "utterance_id": [f"{corpus}-{number:06d}" for number in range(1, len(rows) + 1)],
        "corpus": corpus,
    }
    if {"audio", "text", *FEATURES} & set(rows):
        defaults |= {"audio": "", "text": ""}
    return defaults
