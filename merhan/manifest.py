"""The one table that every corpus becomes: one row per utterance, as Parquet, CSV or JSONL.

Required columns: `utterance_id`, `corpus`, `audio` (path, relative to the manifest's folder; empty = none), `text`
(empty = none), `label` (of `merhan.emotions.VOCABULARY`). The optional ones are in `OPTIONAL`.

A row of a dialogue may have an empty label: it is a turn that names no emotion, and what is said after it is said in
its context. Such rows are read as context, and neither trained nor tested on.
"""

import json
import os
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path

import pandas as pd

from merhan.emotions import VOCABULARY
from merhan.errors import InputError, nearest


REQUIRED = ("utterance_id", "corpus", "audio", "text", "label")
OPTIONAL = (
    "split",  # train, validation or test
    "speaker",
    "session",
    "dialogue",
    "turn",  # order within the dialogue
    "sentence",  # id of a sentence that several utterances share, where the corpus is read from a script
    "start",  # seconds within the recording
    "end",
    "duration",  # seconds
    "language",
    "gender",
    "valence",  # as the corpus gives it; the scale is the corpus's (ABOUT.scale)
    "arousal",
    "dominance",
    "sentiment",  # negative, neutral or positive, where the corpus names it beside the emotion
    "votes",  # JSON object: our label, or the corpus's own word where it names no emotion -> number of raters
    "source_label",  # the corpus's own word
    "audio_features",  # path of an .npy: vectors that stand for the sound, (length, width) or (width,) float
    "text_features",  # the same for the words
)
FEATURES = ("audio_features", "text_features")
PATHS = ("audio", *FEATURES)  # relative to the manifest's folder; empty = none
SPLITS = ("train", "validation", "test")  # and test-<name>, where there are several test sets
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
DIMENSIONS = ("valence", "arousal", "dominance")
_NUMBERS = ("turn", "start", "end", "duration", *DIMENSIONS)


def read_table(path: str | Path) -> pd.DataFrame:
    """Any Parquet, CSV, TSV or JSONL file, every cell as it stands.

    Raises:
        InputError: no such file, or not a table.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; check the path, or make one with `merhan prepare`.")
    readers = {
        ".parquet": pd.read_parquet,
        ".csv": lambda file: pd.read_csv(file, dtype=str, keep_default_na=False),
        ".tsv": lambda file: pd.read_csv(file, dtype=str, keep_default_na=False, sep="\t"),
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, convert_dates=False),
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: a manifest is {', '.join(readers)}, not {path.suffix or 'a file without a suffix'}.")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({error}).") from None


def read_manifest(path: str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """Read and validate a manifest; `audio` and features come back as full paths.

    Args:
        path: the file.
        root: folder that they are relative to, by default the manifest's own.
    """
    path = Path(path)
    return validate(located(tidy(read_table(path), str(path)), root or path.parent), str(path))


def write_manifest(rows: pd.DataFrame, path: str | Path):
    """Write validated rows, `audio` and features relative to the manifest's folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = with_paths(rows, lambda one: os.path.relpath(one, path.parent))
    writers = {
        ".parquet": rows.to_parquet,
        ".csv": lambda file: rows.to_csv(file, index=False),
        ".jsonl": lambda file: rows.to_json(file, orient="records", lines=True),
    }
    if path.suffix not in writers:
        raise InputError(f"{path}: a manifest is written as {', '.join(writers)}, not {path.suffix or 'no suffix'}.")
    temporary = path.with_name(f".{path.name}")
    writers[path.suffix](temporary)
    temporary.replace(path)


def located(rows: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The rows of a manifest whose paths are relative to a folder, with full paths."""
    return with_paths(rows, lambda one: str(Path(folder) / one))


def with_paths(rows: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The rows, each of their paths changed."""
    there = [column for column in PATHS if column in rows]
    return rows.assign(**{column: [change(one) if one else "" for one in rows[column]] for column in there})


def tidy(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """One type per column: text is stripped and never null, times, turns and dimensions are numbers.

    Raises:
        InputError: a required column is missing, a cell is no number or no votes.
    """
    missing = [column for column in REQUIRED if column not in rows]
    if missing:
        raise InputError(
            f"{where}: lacks the column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, rows.columns))}. "
            f"Rename it, or map it with `data.columns`."
        )
    rows = rows.reset_index(drop=True).copy()
    for column in set(_TEXT_COLUMNS) & set(rows):
        rows[column] = rows[column].fillna("").astype(str).str.strip()
    for column in set(_NUMBERS) & set(rows):
        numbers = pd.to_numeric(rows[column], errors="coerce")
        filled = ~rows[column].isin(["", None]) & rows[column].notna()
        _refuse(where, rows, numbers.isna() & filled, f"{column} is not a number", "write a number, or leave it empty")
        rows[column] = numbers
    if "votes" in rows:
        bad = ~rows["votes"].map(_are_votes).astype(bool)
        remedy = 'write one, as {"joy": 2, "neutral": 1}, or leave it empty'
        _refuse(where, rows, bad, "votes is no JSON object of numbers of raters", remedy)
    return rows


def validate(rows: pd.DataFrame, where: str, extra_labels: Iterable[str] = ()) -> pd.DataFrame:
    """The contract of a manifest; returns the rows.

    Raises:
        InputError: names the file, the row (counted from 1, without the header) and the remedy.
    """
    if rows.empty:
        raise InputError(f"{where}: holds no row.")
    _refuse(where, rows, rows["utterance_id"] == "", "utterance_id is empty", "give every row its own")
    _refuse(where, rows, rows["utterance_id"].duplicated(), "utterance_id stands twice", "make ids unique")
    silent = ~pd.concat([has(rows, name) for name in ("audio", "text")], axis=1).any(axis=1)
    _refuse(where, rows, silent, "neither audio nor text", "give either, or remove the row")
    known = {*VOCABULARY, *extra_labels}
    unknown = ~rows["label"].isin(known) & ~context_only(rows)
    if unknown.any():
        word = rows.loc[unknown, "label"].iloc[0]
        remedy = f"map it with `data.label_map`{nearest(word, known)}"
        _refuse(where, rows, unknown, f"label {word!r} is not in the vocabulary", remedy)
    if "split" in rows:
        known = rows["split"].isin(["", *SPLITS]) | rows["split"].str.match(r"test-[\w-]+$")
        _refuse(where, rows, ~known, "unknown split", f"write {', '.join(SPLITS)} (or test-<name>)")
    return rows


def has(rows: pd.DataFrame, modality: str) -> pd.Series:
    """Which rows have a modality, raw or as features."""
    return (rows[modality] != "") | (rows.get(f"{modality}_features", pd.Series("", rows.index)) != "")


def context_only(rows: pd.DataFrame) -> pd.Series:
    """Turns without a label, which are there for what is said after them."""
    return (rows["label"] == "") & (rows.get("dialogue", pd.Series("", rows.index)) != "")


def in_split(rows: pd.DataFrame, name: str) -> pd.Series:
    """Which rows are of a split; `test` covers every test set."""
    return (rows["split"] == name) | rows["split"].str.startswith(f"{name}-")


def _are_votes(cell: str) -> bool:
    try:
        votes = json.loads(cell or "{}")
    except ValueError:
        return False
    # type() rather than isinstance(): true is no number of raters. A NaN is not above 0 either.
    return isinstance(votes, dict) and all(type(one) in (int, float) and 0 <= one < inf for one in votes.values())


def _refuse(where: str, rows: pd.DataFrame, bad: pd.Series, problem: str, remedy: str):
    if bad.any():
        first = int(bad.to_numpy().argmax())
        more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        name = rows["utterance_id"].iloc[first]
        raise InputError(f"{where}, row {first + 1} ({name!r}): {problem}{more}; {remedy.rstrip('.')}.")
