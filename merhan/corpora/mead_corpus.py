"""MEAD, audio of its public part: English, 31,729 recordings, 48 speakers, 8 emotions at up to three levels.

`M003/audio/angry/level_1/001.m4a`; neutral has one level. The number is a sentence of the emotion's list: 1 to 3 are
common to all emotions, 4 to 13 generic, and the rest are written for the emotion: their words tell the label. So do
all sentences of the release's own test set; judge a model that reads words on common and generic ones.

The archive has no transcripts. The lists are in section 6 of the paper's supplement; a CSV of them is an option.

**Its numbers are not to be trusted everywhere.** A list has 30 sentences, 40 for neutral. Of the 1056 sets of a
speaker, an emotion and a level 207 hold fewer, and 205 of these are numbered without a gap: where one was lost, those
behind it may have moved up (the authors say so of M003, uniBruce/Mead#12). Such rows are counted, and get no text.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.errors import InputError, nearest
from merhan.manifest import read_table


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
# Counted from the list of files that EmoBox publishes (emo-box/EmoBox), as are the sets above.
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
_COMMON, _GENERIC = 3, 13  # the last of each
_PATH = re.compile(
    r".*/(?P<set>(?P<speaker>[MW]\d{3})/audio/(?P<emotion>\w+)/level_(?P<level>[123]))/(?P<number>\d{3})\.m4a"
)


def read(source: str | Path | None, transcripts: str | Path | None = None) -> Corpus:
    """List the recordings; `source` is the folder of the release.

    `transcripts`: a table of emotion (the folder's word; empty = all, up to sentence 13), sentence (number), text.
    """
    folder = require_folder(source, "MEAD")
    files = {file: _PATH.fullmatch(file.absolute().as_posix()) for file in sorted(folder.rglob("*.m4a"))}
    named = {file: match for file, match in files.items() if match}
    if not named:
        raise InputError(f"{folder}: no MEAD recording (like M003/audio/angry/level_1/001.m4a) in it or below it.")
    skipped = [Skipped(str(file), "its path is not MEAD's") for file, match in files.items() if not match]
    texts = _texts(transcripts) if transcripts is not None else {}
    moved = _moved(named.values())
    rows = [_row(file, match, {} if match["set"] in moved else texts) for file, match in named.items()]
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, sum(match["set"] in moved for match in named.values())))


def _texts(path: str | Path) -> dict[tuple[str, int], str]:
    """Emotion (or nothing) and number -> words."""
    table = read_table(path)
    missing = {"emotion", "sentence", "text"} - set(table)
    if missing:
        raise InputError(f"{path}: lacks the column {', '.join(sorted(missing))}; it needs emotion, sentence, text.")
    texts = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        emotion, number = str(row["emotion"]).strip(), str(row["sentence"]).strip()
        if emotion and emotion not in LABELS:
            raise InputError(f"{path}, line {line}: unknown emotion {emotion!r}{nearest(emotion, LABELS)}")
        if not number.isdecimal() or (not emotion and int(number) > _GENERIC):
            raise InputError(f"{path}, line {line}: sentence {number!r} is no number, or is of one emotion; name it.")
        if (emotion, int(number)) in texts:
            raise InputError(f"{path}, line {line}: stands there twice; remove one.")
        texts[emotion, int(number)] = " ".join(str(row["text"]).split())
    return texts


def _moved(matches: Iterable[re.Match]) -> set[str]:
    """The sets that end before their list does: their numbers may have moved up."""
    last: dict[str, int] = {}
    for match in matches:
        last[match["set"]] = max(last.get(match["set"], 0), int(match["number"]))
    return {one for one, number in last.items() if number < (40 if "/neutral/" in one else 30)}


def _row(file: Path, match: re.Match, texts: dict[tuple[str, int], str]) -> dict:
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
    if number <= _GENERIC:
        return f"mead-{'common' if number <= _COMMON else 'generic'}-{number:02d}"
    return f"mead-{emotion}-{number:03d}"


def _remarks(rows: list[dict], moved: int) -> list[str]:
    silent = sum(not row["text"] for row in rows)
    found = {
        f"{moved} of {len(rows)} rows stand in sets that end before their list: their numbers may have moved up, so "
        "their sentence is uncertain and they get no text": moved,
        f"{silent} of {len(rows)} rows have no text: the archive has none, data.options.transcripts gives it": silent,
    }
    return [remark for remark, count in found.items() if count]
