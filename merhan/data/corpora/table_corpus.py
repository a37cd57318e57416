"""The user's own recordings, listed in a CSV, TSV, JSONL, Parquet or .xlsx file with columns of any name."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd

from merhan.data.corpora.base import Corpus, Skipped
from merhan.data.embedded_files import is_blank, sound_files
from merhan.data.manifest import FEATURES, OPTIONAL, PATHS, REQUIRED
from merhan.data.table_files import load_table
from merhan.errors import InputError, did_you_mean
from merhan.files import home_path


_MODALITIES = ("audio", "text", *FEATURES)
_SAMPLE = 20  # files that are looked for to find the folder of a table's paths


def read(
    source: str | Path | None,
    columns: Mapping[str, str | None] | None = None,
    root: str | Path | None = None,
    encoding: str | None = None,
) -> Corpus:
    """Read a table whose `label` column holds labels of the vocabulary, or ones that `label_map` maps to them.

    Rows with an empty label are left out, unless they are turns of a dialogue. In a Parquet file sound may be in the
    cells, see [`merhan.data.embedded_files.sound_files`].

    Args:
        source: the file.
        columns: manifest column -> column of the table, as `{"audio": "path", "text": "transcript"}`; columns that are
            not listed keep their names. `{"text": None}`: the table has no text, whatever is named so.
        root: the folder that paths are relative to, by default the folder of the table. It is itself relative to the
            working folder, or to that of the table if the recordings are there.
        encoding: of a CSV or TSV file that is not Unicode, as `cp1252`.

    Raises:
        InputError: the table cannot be read or lacks a column.
    """
    if source is None:
        raise InputError("data.source: give the path of the table.")
    columns = columns or {}
    path = home_path(source)
    table, notes = load_table(path, encoding)
    require_content(table, columns, str(source))
    folder = path.parent
    if root is not None:
        cells = table.get(column_name("audio", columns), [])
        candidates = [home_path(root), path.parent / home_path(root)]
        folder = find_root(cells, candidates) or candidates[0]
    rows = rename_columns(table, columns, path.stem, folder, str(source))
    every_row = rows
    rows, skipped = leave_out_unlabelled(rows)
    return Corpus(rows, skipped, [*notes, *remarks_on(table, columns), *hidden_splits(every_row, rows)])


def column_name(field: str, columns: Mapping[str, str | None]) -> str | None:
    """The column of the table that holds a manifest column; None if the mapping says that there is none."""
    return columns.get(field, field) or None


def rename_columns(
    table: pd.DataFrame, columns: Mapping[str, str | None], corpus: str, root: Path, where: str = "rows"
) -> pd.DataFrame:
    """Give a table the column names of a manifest, default values for missing columns, and full paths.

    Args:
        table: the table.
        columns: manifest column -> column of the table, or None.
        corpus: name of the corpus, used for the columns `corpus` and `utterance_id` if the table lacks them.
        root: the folder that paths are relative to.
        where: name of the data, for messages.

    Raises:
        InputError: `columns` has an unknown column of either kind, or a cell holds no sound.
    """
    _check_columns(table, columns)
    sources = set(columns.values())
    renamed = {name: table[source] for name, source in columns.items() if source}
    others = [name for name in table.columns if name not in sources and name not in columns]
    rows = pd.DataFrame({**renamed, **{name: table[name] for name in others}}, index=table.index)
    rows = rows.assign(**{column: value for column, value in _defaults(rows, corpus).items() if column not in rows})
    for column in PATHS:
        if column in rows:
            paths = sound_files(rows[column], f"{where}, column {column_name(column, columns)!r}")
            rows[column] = [_full_path(root, path) for path in paths]
    return rows


def leave_out_unlabelled(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Skipped]]:
    """The rows that have a label or are turns of a dialogue, and the others."""
    if "label" not in rows:
        return rows, []
    dialogues = rows.get("dialogue", pd.Series("", rows.index))
    hidden = rows["label"].map(is_blank).astype(bool) & dialogues.map(is_blank).astype(bool)
    if hidden.all():
        raise InputError(f"{rows['corpus'].iloc[0]}: no row has a label; check the label column (`--column label=`).")
    skipped = [Skipped(str(name), "the label is empty or hidden") for name in rows["utterance_id"][hidden]]
    return rows[~hidden].reset_index(drop=True), skipped


HIDDEN = "its labels are hidden"


def hidden_splits(rows: pd.DataFrame, labelled: pd.DataFrame) -> list[str]:
    """Sentences about splits of which every label is hidden, as the test of a competition.

    Args:
        rows: all rows.
        labelled: those with a label.
    """
    if "split" not in rows:
        return []
    counts = rows["split"].value_counts(sort=False)
    return [
        f"split {split}: {HIDDEN} (all {counts[split]} rows); `merhan predict` scores it"
        for split in counts.index
        if split not in set(labelled["split"])
    ]


def remarks_on(table: pd.DataFrame, columns: Mapping[str, str | None]) -> list[str]:
    """Sentences about columns of the table that are not read because another one is mapped to their name."""
    return [
        f"column {name!r} of the table is not read, because data.options.columns maps {source!r} to {name}"
        for name, source in columns.items()
        if source and source != name and name in table and name not in columns.values()
    ]


def _check_columns(table: pd.DataFrame, columns: Mapping[str, str | None]):
    for name, source in columns.items():
        if name not in REQUIRED + OPTIONAL:
            suggestion = did_you_mean(name, REQUIRED + OPTIONAL)
            raise InputError(f"data.options.columns (`--column {name}=...`): unknown column {name!r}{suggestion}")
        if source and source not in table:
            raise InputError(
                f"data.options.columns.{name} (`--column {name}=...`): the table has no column "
                f"{source!r}{did_you_mean(source, table)}"
            )


def require_content(table: pd.DataFrame, columns: Mapping[str, str | None], where: str):
    """Check the columns of the modalities.

    Raises:
        InputError: one of them yields nothing, or a text column holds something else than text.
    """
    for field in _MODALITIES:
        column = column_name(field, columns)
        if column in table:
            _require_content(table[column], field, column, where)


def _require_content(cells: pd.Series, field: str, column: str | None, where: str):
    kinds = sorted({type(cell).__name__ for cell in cells if not is_blank(cell)})
    if not kinds:
        raise InputError(
            f"{where}: column {column!r} ({cells.dtype}) is read as {field}, and all of its {len(cells)} cells are "
            f"empty; map another column, or none with data.options.columns.{field}=null (`--column {field}=`)."
        )
    if field == "text" and {"bytes", "dict", "list", "ndarray"} & set(kinds):
        raise InputError(
            f"{where}: column {column!r} is read as text and holds {' and '.join(kinds)}; map a column of strings."
        )


def find_root(cells: Iterable[Any], folders: Sequence[Path]) -> Path | None:
    """The first folder that holds most of the first recordings; None if none does, or if the cells are no paths."""
    words = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    paths = [PureWindowsPath(word).as_posix() for word in words[:_SAMPLE]]
    for folder in folders:
        existing = sum((folder / path).is_file() for path in paths)
        if existing and existing >= len(paths) / 2:
            return folder
    return None


def _full_path(root: Path, cell: str) -> str:
    """The path of a cell, which may begin with `~` or have the separators of Windows."""
    cell = cell.strip()
    if not cell:
        return ""
    path = root / home_path(cell)
    if "\\" in cell and not path.exists():
        path = root / PureWindowsPath(cell).as_posix()
    return str(path)


def _defaults(rows: pd.DataFrame, corpus: str) -> dict[str, Any]:
    """Values for the required columns that a table may lack: numbered ids, the corpus, one of the modalities."""
    defaults: dict[str, Any] = {
        "utterance_id": [f"{corpus}-{number:06d}" for number in range(1, len(rows) + 1)],
        "corpus": corpus,
    }
    if {"audio", "text", *FEATURES} & set(rows):
        defaults |= {"audio": "", "text": ""}
    return defaults
