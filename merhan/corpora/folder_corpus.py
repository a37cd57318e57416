"""One's own recordings in folders that are named for their labels, as the `audiofolder` of `datasets` has them.

`<root>/<label>/...` or `<root>/<split>/<label>/...`, with anything below. The words of `joy/anna_03.wav` are those of
`joy/anna_03.txt` (UTF-8), if it is there. The folder's name is the corpus's name.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from merhan.corpora import Corpus, Skipped
from merhan.errors import InputError


# What the audio door decodes; other files are left out, and counted.
_SUFFIXES = {".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3"}  # by soundfile
_SUFFIXES |= {".m4a", ".aac", ".wma", ".mp4", ".webm", ".mkv"}  # by PyAV
# The folder names that `audiofolder` takes for splits.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def read(source: str | Path | None, speaker_pattern: str | None = None) -> Corpus:
    """Rows with the folders' names as labels, which are mapped by `label_map`, or stop the reading.

    Args:
        source: the folder above the labels, or above the splits.
        speaker_pattern: a regular expression with a group `speaker`, searched in the path below `source` (with
            `/`), as `(?P<speaker>[a-z]+)_[0-9]+`. By default rows have no speaker.

    Raises:
        InputError: no recording; one that lies beside the label folders; splits and labels side by side; a recording
            in whose path the pattern finds no speaker; a transcript that is not UTF-8.
    """
    if source is None or not Path(source).is_dir():
        raise InputError(
            f"data.source: {source!r} is not a folder; give the one above those that are named for labels."
        )
    folder = Path(source).resolve()
    files = {file.relative_to(folder): file for file in sorted(folder.rglob("*")) if file.is_file()}
    recordings = [path for path in files if path.suffix.lower() in _SUFFIXES and not _hidden(path)]
    if not recordings:
        raise InputError(f"{folder}: no recording in it or below it; they should lie as <label>/<name>.wav.")
    has_splits = _has_splits(recordings, folder)
    speaker = _pattern(speaker_pattern) if speaker_pattern else None
    rows = pd.DataFrame([_row(path, folder, has_splits, speaker) for path in recordings])
    silent = int((rows["text"] == "").sum())
    remarks = [f"{silent} of {len(rows)} rows have sound alone: no words in a .txt beside them"] if silent else []
    return Corpus(rows, _skipped(files, recordings), remarks)


def _hidden(path: Path) -> bool:
    """macOS lays `._joy.wav` beside `joy.wav`, editors make `.ipynb_checkpoints`."""
    return any(part.startswith(".") for part in path.parts)


def _has_splits(recordings: Iterable[Path], folder: Path) -> bool:
    tops = {path.parts[0] for path in recordings}
    splits = {top for top in tops if top.lower() in _SPLITS}
    if splits and splits != tops:
        raise InputError(
            f"{folder}: {min(splits)!r} is a split's name and {min(tops - splits)!r} is not; have either splits or "
            f"labels at the top."
        )
    return bool(splits)


def _pattern(expression: str) -> re.Pattern:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(f"data.options.speaker_pattern: {expression!r} is no regular expression ({error})") from None
    if "speaker" not in pattern.groupindex:
        raise InputError(f"data.options.speaker_pattern: {expression!r} has no group; write (?P<speaker>...) in it.")
    return pattern


def _row(path: Path, folder: Path, has_splits: bool, speaker: re.Pattern | None) -> dict:
    if len(path.parts) < 2 + has_splits:
        raise InputError(f"{folder / path}: lies in no label's folder; move it into one, as <label>/{path.name}.")
    row = {
        "utterance_id": f"{folder.name}-{path.with_suffix('').as_posix()}",
        "corpus": folder.name,
        "audio": str(folder / path),
        "text": _words(folder / path.with_suffix(".txt")),
        "label": path.parts[has_splits],
    }
    if has_splits:
        row["split"] = _SPLITS[path.parts[0].lower()]
    if speaker:
        row["speaker"] = f"{folder.name}-{_speaker(path, folder, speaker)}"
    return row


def _words(transcript: Path) -> str:
    try:
        # Windows' editors begin a UTF-8 file with a mark that is no word.
        return " ".join(transcript.read_text(encoding="utf-8-sig").split()) if transcript.is_file() else ""
    except UnicodeDecodeError as error:
        raise InputError(f"{transcript}: is not UTF-8 ({error}); save it as UTF-8.") from None


def _speaker(path: Path, folder: Path, pattern: re.Pattern) -> str:
    match = pattern.search(path.as_posix())
    if not match or not match["speaker"]:
        raise InputError(
            f"{folder / path}: data.options.speaker_pattern {pattern.pattern!r} finds no speaker in "
            f"{path.as_posix()!r}; mend the pattern or rename the file."
        )
    return match["speaker"]


def _skipped(files: Iterable[Path], recordings: list[Path]) -> list[Skipped]:
    used = {*recordings, *(path.with_suffix(".txt") for path in recordings)}
    return [Skipped(str(path), _reason(path)) for path in files if path not in used]


def _reason(path: Path) -> str:
    if _hidden(path):
        return "a hidden file"
    return "a transcript without a recording" if path.suffix == ".txt" else "neither a recording nor a transcript"
