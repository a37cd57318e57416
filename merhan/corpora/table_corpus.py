"""One's own recordings, listed in a CSV, TSV, JSONL or Parquet file with columns of any name."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from merhan.corpora import Corpus
from merhan.errors import InputError, nearest
from merhan.manifest import FEATURES, OPTIONAL, PATHS, REQUIRED, read_table


def read(source: str | Path | None, columns: Mapping[str, str] | None = None, root: str | Path | None = None) -> Corpus:
    """`columns`: our column -> theirs, as `{audio: path, text: transcript, label: emotion}`; the others as they are."""
    if source is None:
        raise InputError("data.source: give the table's path.")
    return Corpus(rename(read_table(source), columns or {}, Path(source).stem, Path(root or Path(source).parent)), [])


def rename(rows: pd.DataFrame, columns: Mapping[str, str], corpus: str, root: Path) -> pd.DataFrame:
    """Columns under our names, and what a table of one's own may leave out: ids, the corpus's name, a modality."""
    for ours, theirs in columns.items():
        if ours not in REQUIRED + OPTIONAL:
            raise InputError(f"data.options.columns: unknown column {ours!r}{nearest(ours, REQUIRED + OPTIONAL)}")
        if theirs not in rows:
            raise InputError(f"data.options.columns.{ours}: the table has no column {theirs!r}{nearest(theirs, rows)}")
    rows = rows.rename(columns={theirs: ours for ours, theirs in columns.items()})
    defaults = {
        "utterance_id": [f"{corpus}-{number:06d}" for number in range(1, len(rows) + 1)],
        "corpus": corpus,
    }
    if {"audio", "text", *FEATURES} & set(rows):
        defaults |= {"audio": "", "text": ""}
    rows = rows.assign(**{column: value for column, value in defaults.items() if column not in rows})
    for column in set(PATHS) & set(rows):
        rows[column] = [str(root / path) if path else "" for path in rows[column].fillna("")]
    return rows
