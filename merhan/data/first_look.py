"""Guesses about data that nobody has described yet: which column, folder or part of a file name means what.

`merhan init` writes them into a recipe, each marked as a guess. Nothing else relies on them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from merhan.data.corpora.folder_corpus import list_recordings, read_text
from merhan.data.corpora.table_corpus import find_root
from merhan.data.embedded_files import is_blank
from merhan.data.labels import exact_label, nearest_label
from merhan.data.manifest import SPLIT_WORDS
from merhan.data.table_files import SUFFIXES, guess_encoding, load_table
from merhan.errors import InputError


# Manifest column -> names that tables give it.
_COLUMN_NAMES = {
    "audio": "audio file path filename file_name wav clip recording sound datei audio_path wav_path audio_file",
    "text": "text transcript transcription sentence words utterance transkript",
    "label": "label emotion feeling gefühl class category target mood affect emotion_label",
    "speaker": "speaker speaker_id who actor actor_id subject sprecher spk client_id participant person speakerid",
    "split": "split part partition subset set",
    "start": "start begin start_time onset starttime",
    "end": "end stop end_time offset endtime",
}
_SOUND_SUFFIXES = re.compile(r"\.(wav|flac|mp3|ogg|opus|m4a|aac|aiff?|wma|mp4|webm|mkv)$", re.IGNORECASE)
_MOST = 0.8  # share of the cells that must look like a thing to be taken for it
_MAX_LABELS = 30


class FirstLook(NamedTuple):
    """What a source seems to hold."""

    path: Path | None  # the file of the table, None for one that lists the recordings of a folder
    table: pd.DataFrame
    columns: dict[str, str]  # manifest column -> column of the table
    root: Path | None  # the folder of the table's paths, None if they are not relative to one that exists
    encoding: str | None  # of a table that is not Unicode
    notes: list[str]

    @property
    def labels(self) -> dict[str, str | None]:
        """Each label of the table, with the label of the vocabulary that it seems to mean."""
        return {word: nearest_label(word) for word in sorted(set(self.words("label")) - {""})}

    def words(self, field: str) -> pd.Series:
        """The cells of a manifest column as stripped strings, empty where there are none."""
        column = self.columns.get(field)
        if column is None:
            return pd.Series("", self.table.index)
        cells = ["" if is_blank(cell) else str(cell).strip() for cell in self.table[column]]
        return pd.Series(cells, self.table.index, dtype=object)


def look(source: Path) -> FirstLook:
    """Look at a folder of recordings, or at a table.

    Raises:
        InputError: there is nothing to read, or nothing that could be a label.
    """
    tables = [file for file in sorted(source.glob("*")) if file.suffix.lower() in SUFFIXES] if source.is_dir() else []
    if len(tables) == 1:
        source = tables[0]
    if any((source / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise InputError(
            f"{source}: is a data set of `datasets`; read it with `corpus: datasets`, see docs/corpora.md."
        )
    if source.is_dir():
        return look_at_folder(source)
    return look_at_table(source)


# --- a table ---


def look_at_table(path: Path) -> FirstLook:
    """Guess the columns of a table, by their content and else by their names.

    Raises:
        InputError: the table cannot be read, or no column could be the label.
    """
    encoding = None
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        encoding = guess_encoding(path)
    table, notes = load_table(path, encoding)
    columns = guess_columns(table)
    if "label" not in columns or not {"audio", "text"} & set(columns):
        raise InputError(
            f"{path}: no column seems to hold {'the recordings or words' if 'label' in columns else 'labels'}; it has "
            f"{', '.join(map(repr, table.columns))}. Name the columns as in docs/tutorial-own-data.md."
        )
    root = None
    if "audio" in columns:
        folders = [path.parent, path.parent.parent, Path()]
        root = find_root(table[columns["audio"]], folders)
        if root is None and isinstance(table[columns["audio"]].iloc[0], str):
            names = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
            notes.append(
                f"the recordings of column {columns['audio']!r} are in none of {names}: set data.options.root in the "
                f"recipe"
            )
    return FirstLook(path, table, columns, root, encoding, notes)


def guess_columns(table: pd.DataFrame) -> dict[str, str]:
    """Manifest column -> the column of the table that seems to hold it."""
    columns: dict[str, str] = {}
    for field, looks_right in _CONTENTS.items():
        free = [name for name in table.columns if name not in columns.values()]
        likely = [name for name in free if looks_right(table[name])]
        named = [name for name in likely if _is_named(name, field)]
        if field not in ("audio", "label", "split", "text"):
            likely = []  # the content of the others is not telling enough
        if named or likely:
            columns[field] = (named or likely)[0]
    return columns


def _is_named(name: str, field: str) -> bool:
    return name.strip().lower() in _COLUMN_NAMES[field].split()


def _share(cells: pd.Series, matches: Callable[[Any], Any]) -> float:
    """The share of the cells that are not empty for which a function is true."""
    words = [cell for cell in cells if not is_blank(cell)]
    if not words:
        return 0.0
    return sum(bool(matches(cell)) for cell in words) / len(words)


def _is_sound(cells: pd.Series) -> bool:
    return _share(cells, _is_sound_cell) > _MOST


def _is_sound_cell(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(_SOUND_SUFFIXES.search(cell.strip()))
    return isinstance(cell, bytes | Mapping)


def _is_split(cells: pd.Series) -> bool:
    return _share(cells, lambda cell: str(cell).strip().lower() in SPLIT_WORDS) == 1.0


def _is_label(cells: pd.Series) -> bool:
    if _is_sound(cells):
        return False
    words = pd.Series([str(cell) for cell in cells if not is_blank(cell)])
    distinct = words.nunique()
    is_known = _share(words, lambda cell: nearest_label(cell) is not None) > 0.5
    is_named = _is_named(str(cells.name), "label")
    return 2 <= distinct <= _MAX_LABELS and distinct < len(words) and (is_known or is_named)


def _is_text(cells: pd.Series) -> bool:
    return not _is_sound(cells) and _share(cells, lambda cell: isinstance(cell, str) and " " in cell.strip()) > 0.5


def _is_number(cells: pd.Series) -> bool:
    return pd.api.types.is_timedelta64_dtype(cells) or _share(cells, _is_number_cell) > _MOST


def _is_number_cell(cell: Any) -> bool:
    return bool(re.fullmatch(r"[\d:.,]+", str(cell).strip()))


def _is_speaker(cells: pd.Series) -> bool:
    return not _is_sound(cells) and len({str(cell) for cell in cells}) < len(cells)


_CONTENTS = {
    "audio": _is_sound,
    "split": _is_split,
    "label": _is_label,
    "text": _is_text,
    "speaker": _is_speaker,
    "start": _is_number,
    "end": _is_number,
}


# --- a folder ---


def look_at_folder(folder: Path) -> FirstLook:
    """List the recordings of a folder, with labels, speakers and splits from the names of folders and files.

    Raises:
        InputError: there are no recordings, or no name holds a label.
    """
    recordings = list_recordings(folder)
    parts = [_name_parts(path) for path in recordings]
    labels = [_label_part(words) for words in parts]
    named = sum(bool(label) for label in labels)
    if not named:
        raise InputError(
            f"{folder}: no folder or file name holds a label, as joy/0001.wav or anna_joy_0001.wav; list the "
            f"recordings in a table as in docs/tutorial-own-data.md."
        )
    table = pd.DataFrame({"file": [path.as_posix() for path in recordings], "label": labels})
    table["speaker"] = guess_speakers(parts, labels)
    table["split"] = [_split_part(path) for path in recordings]
    table["text"] = [read_text((folder / path).with_suffix(".txt")) for path in recordings]
    table = table.loc[:, ["file", "label", *(name for name in table.columns[2:] if (table[name] != "").any())]]
    notes = []
    if named < len(table):
        first = table.loc[table["label"] == "", "file"].iloc[0]
        notes.append(f"{len(table) - named} of {len(table)} recordings have no label in their name, as {first}")
    fields = {"audio": "file", **{name: name for name in table.columns[1:]}}
    return FirstLook(None, table, fields, folder, None, notes)


def guess_speakers(parts: Sequence[Sequence[str]], labels: Sequence[str]) -> list[str]:
    """The part of each name that seems to be the speaker, empty where none does.

    It is the position whose values repeat, and of which most occur with several labels, as speakers do. Numbers may
    count takes, so that a position of words comes first, and then the one with more values.
    """
    named = [(words, label) for words, label in zip(parts, labels, strict=True) if label]
    width = min((len(words) for words, _ in named), default=0)
    scores = {
        position: _speaker_score([(words[position], label) for words, label in named]) for position in range(width)
    }
    likely = [position for position, score in scores.items() if score > (False, 0)]
    if not likely:
        return [""] * len(parts)
    best = max(likely, key=scores.__getitem__)
    return [words[best] if label else "" for words, label in zip(parts, labels, strict=True)]


def _speaker_score(pairs: Sequence[tuple[str, str]]) -> tuple[bool, int]:
    """Whether values are words, and how many they are; zero if they cannot be speakers.

    Args:
        pairs: value and label of each recording.
    """
    labels_of: dict[str, set[str]] = {}
    for value, label in pairs:
        labels_of.setdefault(value, set()).add(label)
    foreign = sum(bool(exact_label(value)) or value.lower() in SPLIT_WORDS for value in labels_of)
    with_several = sum(len(labels) > 1 for labels in labels_of.values())
    count = len(labels_of)
    if max(foreign, count - with_several) > count / 2 or not 2 <= count <= len(pairs) / 2:
        return False, 0
    return not all(value.isdecimal() for value in labels_of), count


def _name_parts(path: Path) -> list[str]:
    """The folders of a recording and the parts of its name, as `[train, anna, joy, 0001]`."""
    return [*path.parts[:-1], *re.split(r"[_\-. ]+", path.stem)]


def _label_part(words: Sequence[str]) -> str:
    """The part that is a label, as it is written; empty if none is, or several different ones are."""
    labels = {word for word in words if exact_label(word)}
    return labels.pop() if len({exact_label(word) for word in labels}) == 1 else ""


def _split_part(path: Path) -> str:
    return next((part for part in path.parts[:-1] if part.lower() in SPLIT_WORDS), "")
