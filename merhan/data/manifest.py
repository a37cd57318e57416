"""The manifest: the table that every corpus is converted to, one row per utterance, as Parquet, CSV or JSONL.

Required columns: `utterance_id`, `corpus`, `audio` (path relative to the manifest's folder; empty = none), `text`
(empty = none), `label` (one of `merhan.names.VOCABULARY`, or a label of one's own that `data.own_labels` or the
`corpus.json` beside the manifest declares). The optional ones are listed in `OPTIONAL`.

A row of a dialogue may have an empty label: a turn that was annotated with no emotion, but is part of the context of
later turns. Such rows are only read as context; they are neither trained nor evaluated on.
"""

import datetime
import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merhan.data.labels import relabel, unknown_labels_sentence
from merhan.data.table_files import read_table
from merhan.errors import InputError
from merhan.files import atomic_path, home_path
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

# Other names of splits, those that `datasets` knows too.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_EVALUATION_NAMES = ("eval", "evaluation")

SPLIT_WORDS = (*_SPLIT_NAMES, *_EVALUATION_NAMES)

# What exports write for empty cells. Spoken words have other capitals or a full stop, as in `None.`.
NULL_WORDS = ("nan", "NaN", "NAN", "<NA>", "NaT", "None", "null", "NULL", "#N/A", "N/A")
NULL_WORD_COLUMNS = ("text", "speaker", "audio")

# What spreadsheets and programs write for a duration: `0 days 00:00:01.5`, `00:00:01,500`.
_CLOCK = re.compile(r"(?:\d+ days? )?\d+:[0-5]?\d:[0-5]?\d(?:[.,]\d+)?")

_PART = 50_000  # rows that are looked at together

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
    path = home_path(path)
    rows = normalise_columns(read_table(path), str(path))
    own_labels = declared_labels(path)
    rows["label"] = relabel(rows["label"], {}, own_labels)
    return validate(with_absolute_paths(rows, root or path.parent), str(path), own_labels)


def declared_labels(path: Path) -> list[str]:
    """The labels outside of the vocabulary that the `corpus.json` beside a manifest declares.

    Raises:
        InputError: that file is not JSON.
    """
    file = path.parent / "corpus.json"
    if not file.is_file():
        return []
    try:
        return list(json.loads(file.read_text(encoding="utf-8")).get("own_labels", []))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{file}: is not the JSON that `merhan prepare` writes ({error}); prepare again.") from None


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
    folder = Path(folder)
    return map_paths(rows, lambda path: str(folder / path))


def moved_paths(rows: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The rows with their files looked for below another folder, as after a corpus was moved: the longest end of the
    first path that exists there tells which part of all paths the folder replaces.

    Raises:
        InputError: no end of the first path exists there, or the paths have different beginnings.
    """
    paths = [Path(path) for column in PATHS if column in rows for path in rows[column] if path]
    if not paths:
        return rows
    parts = paths[0].parts
    for number in range(len(parts)):
        if Path(folder, *parts[number:]).is_file():
            beginning = Path(*parts[:number])
            break
    else:
        raise InputError(f"--source {folder}: holds neither {paths[0].name} nor any longer end of {paths[0]}.")
    elsewhere = next((path for path in paths if beginning not in path.parents), None)
    if elsewhere is not None:
        raise InputError(f"--source {folder}: stands for {beginning}, and {elsewhere} is not in it; restore that file.")
    return map_paths(rows, lambda path: str(Path(folder, Path(path).relative_to(beginning))))


def map_paths(rows: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The rows with a function applied to every path that is not empty."""
    columns = [column for column in PATHS if column in rows]
    return rows.assign(**{name: map_strings(rows[name], lambda path: change(path) if path else "") for name in columns})


def map_strings(cells: pd.Series, change: Callable[[str], str]) -> pd.Series:
    """A column of strings with a function applied to every cell, in parts: a million Python strings take 100 MB."""
    parts = []
    for first in range(0, max(len(cells), 1), _PART):
        parts.append(pd.Series([change(cell) for cell in cells.iloc[first : first + _PART]], dtype="str"))
    return pd.concat(parts).set_axis(cells.index)


def normalise_columns(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Give every known column one type: stripped strings without nulls, or floats for times, turns and dimensions.

    Times may also be durations: of pandas, `0 days 00:00:01.5`, or `00:00:01.5`. Other names of splits, as `dev`,
    become train, validation and test.

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
            rows[column] = _as_text(rows[column])
    for column in _NUMBER_COLUMNS:
        if column in rows:
            rows[column] = _numbers(rows, column, where)
    if "split" in rows:
        rows["split"] = usual_split_names(rows["split"])
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


def _as_text(cells: pd.Series) -> pd.Series:
    """A column as stripped strings, empty where it is null. Whole numbers have no decimals, as in `3.0` of a column
    that is a float only because some of its cells are empty.
    """
    if isinstance(cells.dtype, pd.StringDtype):
        return cells.astype("str").fillna("").str.strip()  # a million Python strings take longer, and more memory
    if pd.api.types.is_float_dtype(cells) and (cells.dropna() % 1 == 0).all():
        cells = cells.astype("Int64")
    return cells.astype(object).where(cells.notna(), "").astype(str).str.strip()


def usual_split_names(names: pd.Series) -> pd.Series:
    """Splits as train, validation and test, from other usual names of them; unknown names stay as they are.

    `eval` is the test, as in `datasets`, unless there is a test beside it: then it is for validation.
    """
    simplified = names.str.lower()
    has_test = simplified.isin(["test", "testing"]).any()
    usual = _SPLIT_NAMES | dict.fromkeys(_EVALUATION_NAMES, "validation" if has_test else "test")
    return simplified.map(usual).where(simplified.isin(list(usual)), names)


def _numbers(rows: pd.DataFrame, column: str, where: str) -> pd.Series:
    """A column as floats, NaN where it is empty; durations in seconds."""
    cells = rows[column]
    if pd.api.types.is_timedelta64_dtype(cells):
        return cells.dt.total_seconds()
    if cells.dtype in (np.int64, np.float64):
        return cells
    cells = cells.astype(object).where(cells.notna(), None).map(_without_clock)
    numbers = pd.to_numeric(cells, errors="coerce")
    invalid = numbers.isna() & cells.notna() & (cells.astype(str).str.strip() != "")
    if invalid.any():
        first = str(cells[invalid].iloc[0])
        remedy = "write seconds as a number, or leave it empty"
        if re.fullmatch(r"-?\d+,\d+", first.strip()):
            remedy = "write a point in place of the decimal comma"
        _refuse(rows, invalid, where, f"{column} is not a number but {first!r}", remedy)
    return numbers


def _without_clock(cell: Any) -> Any:
    """Seconds of a duration; anything else unchanged."""
    if isinstance(cell, datetime.time):
        cell = cell.isoformat()
    if isinstance(cell, str) and _CLOCK.fullmatch(cell.strip()):
        cell = pd.to_timedelta(cell.strip().replace(",", ".")).to_pytimedelta()
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    return cell


def validate(rows: pd.DataFrame, where: str, own_labels: Iterable[str] = ()) -> pd.DataFrame:
    """Check that rows are a valid manifest, and return them.

    Args:
        rows: rows with normalised columns.
        where: name of the data, for messages.
        own_labels: labels that are valid in addition to the vocabulary.

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
    _require_known_labels(rows, where, {*VOCABULARY, *own_labels})
    _require_times(rows, where)
    if "split" in rows:
        known = rows["split"].isin(["", *SPLITS]) | rows["split"].str.match(r"test-[\w-]+$")
        _refuse(rows, ~known, where, "unknown split", f"write {', '.join(SPLITS)} (or test-<name>)")
    return rows


def _require_times(rows: pd.DataFrame, where: str):
    """Refuse segments that no recording can have."""
    nothing = pd.Series(float("nan"), rows.index)
    start, end, duration = (rows.get(column, nothing) for column in ("start", "end", "duration"))
    for column, seconds in (("start", start), ("end", end)):
        invalid = (seconds < 0) | (seconds == inf)
        _refuse(rows, invalid, where, f"{column} is {_first(seconds, invalid)} s", "write seconds from 0 on")
    invalid = end <= start.fillna(0)
    problem = f"end is {_first(end, invalid)} s, and start {_first(start.fillna(0), invalid)} s"
    _refuse(rows, invalid, where, problem, "an utterance ends after its start")
    # Whether the duration is that of the segment or of the whole recording, no segment is longer.
    length = end - start.fillna(0)
    invalid = (duration > 0) & (length > duration * 1.1 + 0.5)
    problem = f"start and end are {_first(length, invalid)} s apart, in a recording of {_first(duration, invalid)} s"
    remedy = "correct them"
    if (length / duration)[invalid].between(900, 1100).all():
        remedy = "they are in seconds, these seem to be milliseconds"
    _refuse(rows, invalid, where, problem, remedy)


def _first(values: pd.Series, chosen: pd.Series) -> str:
    """The first chosen value, for a message; empty if none is."""
    return next((f"{value:g}" for value in values[chosen]), "")


def _require_known_labels(rows: pd.DataFrame, where: str, known: Collection[str]):
    unknown = ~rows["label"].isin(known) & ~is_context_only(rows)
    if not unknown.any():
        return
    number = int(unknown.to_numpy().argmax())
    name = rows["utterance_id"].iloc[number]
    sentence = unknown_labels_sentence(rows.loc[unknown, "label"], known)
    raise InputError(f"{where}, row {number + 1} ({name!r}): {sentence}")


def has_modality(rows: pd.DataFrame, modality: str) -> pd.Series:
    """`(rows,)` bool: which rows have `audio` or `text`, raw or as features."""
    features = rows.get(f"{modality}_features", pd.Series("", rows.index))
    return (rows[modality] != "") | (features != "")


def null_words(rows: pd.DataFrame, where: str) -> list[str]:
    """Sentences about cells such as "nan", which a broken export wrote for empty ones; they are read as words.

    Args:
        rows: rows with normalised columns.
        where: name of the data.
    """
    sentences = []
    for column in NULL_WORD_COLUMNS:
        cells = rows.get(column, pd.Series(dtype=str))
        affected = has_null_word(cells)
        if affected.any():
            number = int(affected.to_numpy().argmax())
            sentences.append(
                f"{affected.sum()} of {len(rows)} cells of {column!r} are {cells.iloc[number]!r} or the like, which "
                f"exports write for empty ones, and are read as words: {where}, row {number + 1}; clear them if so"
            )
    return sentences


def unknown_speakers(rows: pd.DataFrame) -> str:
    """A sentence where rows have no speaker, so that splits may share voices without a sign of it; else empty."""
    missing = int((rows.get("speaker", pd.Series("", rows.index)) == "").sum())
    if not missing:
        return ""
    return (
        f"speakers unknown: {missing} of {len(rows)} rows name none, so it cannot be checked whether the splits share "
        f"voices; fill the column `speaker`"
    )


def has_null_word(cells: pd.Series) -> pd.Series:
    """`(rows,)` bool: which cells are a word that programs write for an empty cell."""
    return cells.isin(NULL_WORDS)


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
