"""MEAD, audio of its public part: English, 31,729 recordings, 48 speakers, 8 emotions at up to three levels.

`M003/audio/angry/level_1/001.m4a`; neutral has one level. The number is a sentence in the emotion's list: 1 to 3 are
common to all emotions, 4 to 13 are generic, and the others are specific to the emotion, so that their text determines
the label. This includes all sentences of the official test set: evaluate text models on common and generic ones.

The archive has no transcripts. The lists are in section 6 of the paper's supplement; the option `transcripts` reads
them from a table.

**Some sentence numbers are unreliable.** A list has 30 sentences, 40 for neutral. Of the 1056 sets of a speaker, an
emotion and a level, 207 have fewer recordings, and 205 of these are numbered without a gap: if a recording was lost,
the following ones may have been renumbered (as the authors say of M003, uniBruce/Mead#12). Such rows are counted, and
have no text.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, missing_notes, require_folder
from merhan.data.table_files import read_table
from merhan.errors import InputError, did_you_mean


LABELS = {
    "angry": "anger",
    "contempt": "contempt",
    "disgusted": "disgust",
    "fear": "fear",
    "happy": "joy",
    "neutral": "neutral",
    "sad": "sadness",
    "surprised": "surprise",
}

# Counted in the list of files that EmoBox publishes (emo-box/EmoBox), like the sets above.
ABOUT = About(
    "MEAD, the multi-view emotional audio-visual dataset, audio of part 0",
    "non-commercial research only, no passing on (MEAD terms of use)",
    "Wang, Wu, Song, Yang, Wu, Qian, He, Qiao, Loy 2020, MEAD: a large-scale audio-visual dataset for emotional "
    "talking-face generation, ECCV, 700-717",
    {
        "angry": 4193,
        "contempt": 4215,
        "disgusted": 4284,
        "fear": 4251,
        "happy": 4294,
        "neutral": 1916,
        "sad": 4306,
        "surprised": 4270,
    },
)

_LAST_COMMON, _LAST_GENERIC = 3, 13  # numbers of sentences

_LIST_LENGTH, _NEUTRAL_LIST_LENGTH = 30, 40

_PATH = re.compile(
    r".*/(?P<set>(?P<speaker>[MW]\d{3})/audio/(?P<emotion>\w+)/level_(?P<level>[123]))/(?P<number>\d{3})\.m4a"
)

# (emotion, number) -> text of a sentence; the emotion is empty for sentences of all emotions.
Texts = dict[tuple[str, int], str]


def read(source: str | Path | None, transcripts: str | Path | None = None) -> Corpus:
    """List the recordings.

    Args:
        source: the folder of the release.
        transcripts: a table with the columns `emotion` (name of its folder; empty = all emotions, for the sentences up
            to 13), `sentence` (number) and `text`. By default rows have no text.

    Raises:
        InputError: no recording, or a table that is not valid.
    """
    folder = require_folder(source, "MEAD")
    matches, skipped = {}, []
    for file in sorted(folder.rglob("*.m4a")):
        match = _PATH.fullmatch(file.absolute().as_posix())
        if match:
            matches[file] = match
        else:
            skipped.append(Skipped(str(file), "its path is not a MEAD path"))
    if not matches:
        raise InputError(f"{folder}: no MEAD recording (like M003/audio/angry/level_1/001.m4a) in it or below it.")
    texts = _texts(transcripts)
    incomplete = _incomplete_sets(matches.values())
    rows = []
    for file, match in matches.items():
        rows.append(_row(file, match, {} if match["set"] in incomplete else texts))
    uncertain = sum(match["set"] in incomplete for match in matches.values())
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, uncertain))


def _texts(path: str | Path | None) -> Texts:
    """The sentences of a table of transcripts; empty for None."""
    if path is None:
        return {}
    table = read_table(path)
    missing = {"emotion", "sentence", "text"} - set(table)
    if missing:
        raise InputError(f"{path}: lacks the column {', '.join(sorted(missing))}; it needs emotion, sentence, text.")
    texts: Texts = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        where = f"{path}, line {line}"
        key = _sentence_key(str(row["emotion"]).strip(), str(row["sentence"]).strip(), where)
        if key in texts:
            raise InputError(f"{where}: the sentence is listed twice; remove one of the lines.")
        texts[key] = " ".join(str(row["text"]).split())
    return texts


def _sentence_key(emotion: str, number: str, where: str) -> tuple[str, int]:
    if emotion and emotion not in LABELS:
        raise InputError(f"{where}: unknown emotion {emotion!r}{did_you_mean(emotion, LABELS)}")
    if not number.isdecimal():
        raise InputError(f"{where}: sentence {number!r} is not a number.")
    if not emotion and int(number) > _LAST_GENERIC:
        raise InputError(f"{where}: sentence {number!r} is specific to an emotion; fill the column emotion.")
    return emotion, int(number)


def _incomplete_sets(matches: Iterable[re.Match[str]]) -> set[str]:
    """The sets that end before the last sentence of their list, whose numbers may be wrong."""
    last: dict[str, int] = {}
    for match in matches:
        last[match["set"]] = max(last.get(match["set"], 0), int(match["number"]))
    return {name for name, number in last.items() if number < _list_length(name)}


def _list_length(set_name: str) -> int:
    if "/neutral/" in set_name:
        return _NEUTRAL_LIST_LENGTH
    return _LIST_LENGTH


def _row(file: Path, match: re.Match[str], texts: Texts) -> dict[str, Any]:
    speaker, emotion, number = match["speaker"], match["emotion"], int(match["number"])
    return {
        "utterance_id": f"mead-{speaker}-{emotion}-level_{match['level']}-{match['number']}",
        "corpus": "mead",
        "audio": str(file),
        "text": texts.get((emotion, number), texts.get(("", number), "")),
        "source_label": emotion,
        "speaker": f"mead-{speaker}",
        "gender": "male" if speaker.startswith("M") else "female",
        "sentence": _sentence(emotion, number),
        "language": "en",
    }


def _sentence(emotion: str, number: int) -> str:
    if number <= _LAST_COMMON:
        return f"mead-common-{number:02d}"
    if number <= _LAST_GENERIC:
        return f"mead-generic-{number:02d}"
    return f"mead-{emotion}-{number:03d}"


def _remarks(rows: list[dict[str, Any]], uncertain: int) -> list[str]:
    remarks = []
    if uncertain:
        remarks.append(
            f"{uncertain} of {len(rows)} rows are of sets that end before their list: their numbers may be wrong, so "
            f"that their sentence is uncertain and they have no text"
        )
    message = (
        "rows have no text: the archive has none; give a table with data.options.transcripts "
        "(`--option transcripts=...`)"
    )
    return remarks + missing_notes(rows, {"text": message})
