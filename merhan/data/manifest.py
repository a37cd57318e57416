"""The manifest: the table that every corpus is converted to, one row per utterance, as Parquet, CSV or JSONL.

Required columns: `utterance_id`, `corpus`, `audio` (path relative to the manifest's folder; empty = none), `text`
(empty = none), `label` (one of `merhan.names.VOCABULARY`). The optional ones are listed in `OPTIONAL`.

A row of a dialogue may have an empty label: a turn that was annotated with no emotion, but is part of the context of
later turns. Such rows are only read as context; they are neither trained nor evaluated on.
"""

import json
import os
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.table_files import read_table
from merhan.errors import InputError, did_you_mean
from merhan.files import atomic_path
from merhan.names import DIMENSIONS, VOCABULARY


REQUIRED = ("utterance_id", "corpus", "audio", "text", "label")

OPTIONAL = (
    "split",  # train, validation or test
    "speaker",
    "session",
    "dialogue",
    "turn",  # position within the dialogue
    "sentence",  # id of the sentence, for corpora in which several utterances share a scripted sentence
    "start",  # seconds within the recording
    "end",
    "duration",  # seconds
    "language",
    "gender",
    "valence",  # on the corpus's own scale, see About.scale of its reader
    "arousal",
    "dominance",
    "sentiment",  # negative, neutral or positive, for corpora that annotate it beside the emotion
    "votes",  # JSON object: label (the corpus's own for non-emotions) -> number of raters
    "source_label",  # the corpus's own label
    "audio_features",  # path of an .npy file of features for the audio, (length, width) or (width,) float
    "text_features",  # the same for the text
)

FEATURES = ("audio_features", "text_features")

PATHS = ("audio", *FEATURES)  # columns of paths, relative to the manifest's folder; empty = none

SPLITS = ("train", "validation", "test")  # test-<name> where there are several test sets

_TEXT_COLUMNS = (
    *REQUIRED,
    "split",
    "speaker",
    "session",
    "dialogue",
    "sentence",
    "language",
    "gender",
    "sentiment",
    "votes",
    "source_label",
    *FEATURES,
)

_NUMBER_COLUMNS = ("turn", "start", "end", "duration", *DIMENSIONS)


def read_manifest(path: str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """Read and validate a manifest. The paths in it are returned as full paths.

    Args:
        path: the file.
        root: the folder that its paths are relative to, by default the folder of the manifest.

    Raises:
        InputError: the file cannot be read, see [`read_table`], or is not a valid manifest, see [`validate`].
    """
    path = Path(path)
    rows = normalise_columns(read_table(path), str(path))
    return validate(with_absolute_paths(rows, root or path.parent), str(path))


def write_manifest(rows: pd.DataFrame, path: str | Path):
    """Write valid rows; their paths are stored relative to the manifest's folder.

    Raises:
        InputError: the suffix is not .parquet, .csv or .jsonl.
    """
    path = Path(path)
    rows = map_paths(rows, lambda target: os.path.relpath(target, path.parent))
    writers = {
        ".parquet": rows.to_parquet,
        ".csv": lambda file: rows.to_csv(file, index=False),
        ".jsonl": lambda file: rows.to_json(file, orient="records", lines=True),
    }
    if path.suffix not in writers:
        raise InputError(f"{path}: a manifest is written as {', '.join(writers)}, not {path.suffix or 'no suffix'}.")
    with atomic_path(path) as temporary:
        writers[path.suffix](temporary)


def with_absolute_paths(rows: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The rows with their relative paths joined to a folder."""
    return map_paths(rows, lambda path: str(Path(folder) / path))


def map_paths(rows: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The rows with a function applied to every path that is not empty."""
    columns = {}
    for column in PATHS:
        if column in rows:
            columns[column] = [change(path) if path else "" for path in rows[column]]
    return rows.assign(**columns)


def normalise_columns(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Give every known column one type: stripped strings without nulls, or floats for times, turns and dimensions.

    Args:
        rows: a table with the columns of a manifest.
        where: name of the data, for messages.

    Raises:
        InputError: a required column is missing, a number or a cell of `votes` is invalid.
    """
    _require_columns(rows, where)
    rows = rows.reset_index(drop=True).copy()
    for column in _TEXT_COLUMNS:
        if column in rows:
            rows[column] = rows[column].fillna("").astype(str).str.strip()
    for column in _NUMBER_COLUMNS:
        if column in rows:
            rows[column] = _numbers(rows, column, where)
    if "votes" in rows:
        invalid = ~rows["votes"].map(_are_votes).astype(bool)
        remedy = 'write one, as {"joy": 2, "neutral": 1}, or leave it empty'
        _refuse(rows, invalid, where, "votes is no JSON object of numbers of raters", remedy)
    return rows


def _require_columns(rows: pd.DataFrame, where: str):
    missing = [column for column in REQUIRED if column not in rows]
    if missing:
        raise InputError(
            f"{where}: lacks the column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, rows.columns))}. "
            f"Rename a column, or read the file with the `table` reader and map it with data.options.columns "
            f"(`--column {missing[0]}=...` on the command line)."
        )


def _numbers(rows: pd.DataFrame, column: str, where: str) -> pd.Series:
    """A column as floats, NaN where it is empty."""
    numbers = pd.to_numeric(rows[column], errors="coerce")
    filled = ~rows[column].isin(["", None]) & rows[column].notna()
    problem, remedy = f"{column} is not a number", "write a number, or leave it empty"
    _refuse(rows, numbers.isna() & filled, where, problem, remedy)
    return numbers


def validate(rows: pd.DataFrame, where: str, extra_labels: Iterable[str] = ()) -> pd.DataFrame:
    """Check that rows are a valid manifest, and return them.

    Args:
        rows: rows with normalised columns.
        where: name of the data, for messages.
        extra_labels: labels that are valid in addition to the vocabulary.

    Raises:
        InputError: names the file, the row (counted from 1, without the header) and the remedy.
    """
    if rows.empty:
        raise InputError(f"{where}: holds no row.")
    names = rows["utterance_id"]
    _refuse(rows, names == "", where, "utterance_id is empty", "give every row its own")
    _refuse(rows, names.duplicated(), where, "utterance_id is not unique", "give every row its own")
    empty = ~(has_modality(rows, "audio") | has_modality(rows, "text"))
    _refuse(rows, empty, where, "neither audio nor text", "give either, or remove the row")
    _require_known_labels(rows, where, {*VOCABULARY, *extra_labels})
    if "split" in rows:
        known = rows["split"].isin(["", *SPLITS]) | rows["split"].str.match(r"test-[\w-]+$")
        _refuse(rows, ~known, where, "unknown split", f"write {', '.join(SPLITS)} (or test-<name>)")
    return rows


def _require_known_labels(rows: pd.DataFrame, where: str, known: set[str]):
    unknown = ~rows["label"].isin(known) & ~is_context_only(rows)
    if unknown.any():
        label = rows.loc[unknown, "label"].iloc[0]
        problem = f"label {label!r} is not in the vocabulary"
        remedy = f"map it with data.label_map (`--label {label}=...` on the command line){did_you_mean(label, known)}"
        _refuse(rows, unknown, where, problem, remedy)


def has_modality(rows: pd.DataFrame, modality: str) -> pd.Series:
    """`(rows,)` bool: which rows have `audio` or `text`, raw or as features."""
    features = rows.get(f"{modality}_features", pd.Series("", rows.index))
    return (rows[modality] != "") | (features != "")


def is_context_only(rows: pd.DataFrame) -> pd.Series:
    """`(rows,)` bool: which rows are turns of a dialogue without a label, kept as context of later turns."""
    dialogues = rows.get("dialogue", pd.Series("", rows.index))
    return (rows["label"] == "") & (dialogues != "")


def in_split(rows: pd.DataFrame, name: str) -> pd.Series:
    """`(rows,)` bool: which rows belong to a split; `test` includes every `test-<name>`."""
    return (rows["split"] == name) | rows["split"].str.startswith(f"{name}-")


def _are_votes(cell: str) -> bool:
    try:
        votes = json.loads(cell or "{}")
    except ValueError:
        return False
    return isinstance(votes, dict) and all(_is_count(count) for count in votes.values())


def _is_count(value: Any) -> bool:
    # type() instead of isinstance(), because a bool is an int. The comparison is false for NaN.
    return type(value) in (int, float) and 0 <= value < inf


def _refuse(rows: pd.DataFrame, invalid: pd.Series, where: str, problem: str, remedy: str):
    """Raise an error that names the first invalid row and counts the others, if there are any.

    Args:
        invalid: `(rows,)` bool.
    """
    if not invalid.any():
        return
    first = int(invalid.to_numpy().argmax())
    others = int(invalid.sum()) - 1
    more = ""
    if others:
        more = f" (and {others} more rows)"
    name = rows["utterance_id"].iloc[first]
    raise InputError(f"{where}, row {first + 1} ({name!r}): {problem}{more}; {remedy.rstrip('.')}.")
