"""The user's own recordings in folders named after their labels, like the `audiofolder` loader of `datasets`.

`<root>/<label>/...` or `<root>/<split>/<label>/...`, with any folders below. The text of `joy/anna_03.wav` is read from
`joy/anna_03.txt` (UTF-8) if that exists. The name of the root folder is the name of the corpus.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import Corpus, Skipped, missing_notes
from merhan.data.manifest import SPLIT_WORDS
from merhan.errors import InputError


# What processing_merhan.load_audio decodes; other files are left out, and counted.
RECORDING_SUFFIXES = {".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3"}  # by soundfile
RECORDING_SUFFIXES |= {".m4a", ".aac", ".wma", ".mp4", ".webm", ".mkv"}  # by PyAV


def read(source: str | Path | None, speaker_pattern: str | None = None) -> Corpus:
    """List the recordings, with the names of their folders as labels.

    Args:
        source: the folder that contains the label folders, or the split folders.
        speaker_pattern: a regular expression with a group `speaker`, as `(?P<speaker>[a-z]+)_[0-9]+`. It is searched in
            the path below `source`, with `/` as separator. By default rows have no speaker.

    Raises:
        InputError: no recording; a recording outside of the label folders; splits and labels side by side; a path in
            which the pattern does not match; a transcript that is not UTF-8.
    """
    if source is None or not Path(source).is_dir():
        raise InputError(f"data.source: {source!r} is not a folder; give the one that contains the label folders.")
    folder = Path(source).resolve()
    recordings = list_recordings(folder)
    has_splits = _has_splits(recordings, folder)
    pattern = _pattern(speaker_pattern)
    rows = [_row(path, folder, has_splits, pattern) for path in recordings]
    remarks = missing_notes(rows, {"text": "rows have no text: there is no .txt file beside them"})
    return Corpus(pd.DataFrame(rows), _skipped(_files(folder), recordings), remarks)


def list_recordings(folder: Path) -> list[Path]:
    """The sorted paths of the recordings below a folder, relative to it.

    Raises:
        InputError: there are none.
    """
    files = _files(folder)
    recordings = [path for path in files if path.suffix.lower() in RECORDING_SUFFIXES and not _is_hidden(path)]
    if not recordings:
        raise InputError(f"{folder}: no recording in it or below it; they should be at <label>/<name>.wav.")
    return recordings


def _files(folder: Path) -> list[Path]:
    return [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]


def _is_hidden(path: Path) -> bool:
    """Whether a file is metadata, as `._joy.wav` of macOS or the content of `.ipynb_checkpoints`."""
    return any(part.startswith(".") for part in path.parts)


def _has_splits(recordings: Iterable[Path], folder: Path) -> bool:
    """Whether the top folders are splits instead of labels."""
    tops = {path.parts[0] for path in recordings}
    splits = {top for top in tops if top.lower() in SPLIT_WORDS}
    if splits and splits != tops:
        raise InputError(
            f"{folder}: {min(splits)!r} is the name of a split and {min(tops - splits)!r} is not; the top folders must "
            f"be either splits or labels."
        )
    return bool(splits)


def _pattern(expression: str | None) -> re.Pattern[str] | None:
    if not expression:
        return None
    where = f"data.options.speaker_pattern (`--option speaker_pattern=...`): {expression!r}"
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(f"{where} is not a regular expression ({error}).") from None
    if "speaker" not in pattern.groupindex:
        raise InputError(f"{where} lacks the group (?P<speaker>...); add it.")
    return pattern


def _row(path: Path, folder: Path, has_splits: bool, pattern: re.Pattern[str] | None) -> dict[str, Any]:
    if len(path.parts) < 2 + has_splits:
        raise InputError(f"{folder / path}: is not in a label's folder; move it to <label>/{path.name}.")
    row = {
        "utterance_id": f"{folder.name}-{path.with_suffix('').as_posix()}",
        "corpus": folder.name,
        "audio": str(folder / path),
        "text": read_text(folder / path.with_suffix(".txt")),
        "label": path.parts[has_splits],
    }
    if has_splits:
        row["split"] = path.parts[0]  # normalise_columns makes `validation` of `dev`
    if pattern:
        row["speaker"] = f"{folder.name}-{_speaker(path, folder, pattern)}"
    return row


def read_text(transcript: Path) -> str:
    """The words of a transcript beside a recording, empty if there is none.

    Raises:
        InputError: it is not UTF-8.
    """
    if not transcript.is_file():
        return ""
    try:
        # Editors of Windows begin a UTF-8 file with a byte order mark, which utf-8-sig removes.
        return " ".join(transcript.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise InputError(f"{transcript}: is not UTF-8 ({error}); save it as UTF-8.") from None


def _speaker(path: Path, folder: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path.as_posix())
    if not match or not match["speaker"]:
        raise InputError(
            f"{folder / path}: data.options.speaker_pattern (`--option`) {pattern.pattern!r} finds no speaker in "
            f"{path.as_posix()!r}; correct the pattern or rename the file."
        )
    return match["speaker"]


def _skipped(files: Iterable[Path], recordings: list[Path]) -> list[Skipped]:
    used = {*recordings, *(path.with_suffix(".txt") for path in recordings)}
    return [Skipped(str(path), _reason(path)) for path in files if path not in used]


def _reason(path: Path) -> str:
    if _is_hidden(path):
        return "a hidden file"
    if path.suffix == ".txt":
        return "a transcript without a recording"
    return "neither a recording nor a transcript"
