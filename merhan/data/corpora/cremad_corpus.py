"""CREMA-D: English, 7442 recordings, 91 actors, 6 emotions, twelve sentences, and the votes of raters.

`AudioWAV/1001_DFA_ANG_XX.wav` = actor_sentence_emotion_level. A recording has two labels: the emotion that the actor
was asked for, which is in the file name, and the majority of the raters who heard the audio only. They agree for 41.6 %
of the recordings (3897 sound neutral to those raters, 644 are tied). The option `labels` selects one of them, and a
remark names it. Git LFS pointers in place of recordings are listed as recordings; decoding reports them.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, read_release_table, require_folder
from merhan.data.labels import map_label
from merhan.errors import InputError, did_you_mean


_INTENDED = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "joy", "NEU": "neutral", "SAD": "sadness"}

_VOTED = {word[0]: label for word, label in _INTENDED.items()}

LABELS = _INTENDED | _VOTED

ABOUT = About(
    "CREMA-D, the crowd-sourced emotional multimodal actors dataset",
    "ODbL 1.0, its contents DbCL 1.0",
    "Cao, Cooper, Keutmann, Gur, Nenkova, Verma 2014, CREMA-D: Crowd-sourced emotional multimodal actors dataset, "
    "IEEE Transactions on Affective Computing 5(4):377-390",
    dict.fromkeys(("ANG", "DIS", "FEA", "HAP", "SAD"), 1271) | {"NEU": 1087},
)

SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}

# File name without suffix -> problem, and where it is documented.
KNOWN_BAD = {"1076_MTI_SAD_XX": ("its recording is silent", "README of CheyneyComputerScience/CREMA-D")}

# Option `labels` -> its meaning.
LABEL_SOURCES = {
    "intended": "the emotion that the actor was asked for",
    "voice": "the majority of the voice-only raters",
}

_ID_COLUMN = "Unnamed: 0"  # pandas' name for a column without a heading

_NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?:LO|MD|HI|XX)")

_MISNAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # in older copies (CheyneyComputerScience/CREMA-D#6)

Votes = Mapping[str, Mapping[str, int]]  # file name without suffix -> letter of an emotion -> number of raters


def read(source: str | Path | None, labels: str = "intended") -> Corpus:
    """List the recordings.

    Args:
        source: the folder of the release.
        labels: `intended`, or `voice` for the majority of the voice-only raters, without ties.

    Raises:
        InputError: unknown `labels`; `voice` without the table of votes; no recording; a table that is incomplete.
    """
    folder = require_folder(source, "CREMA-D")
    if labels not in LABEL_SOURCES:
        suggestion = did_you_mean(labels, LABEL_SOURCES)
        raise InputError(f"data.options.labels (`--option labels=...`): unknown {labels!r}{suggestion}")
    votes = read_votes(folder)
    if labels == "voice" and not votes:
        raise InputError(
            f"{folder}: tabulatedVotes.csv is not below it, but the labels should be those of the voice-only raters "
            f"(data.options.labels, `--option labels=voice`)."
        )
    genders = _genders(folder)
    rows, skipped = [], []
    for file in sorted(folder.rglob("*.wav")):
        match = _NAME.fullmatch(_MISNAMED.get(file.stem, file.stem))
        if match is None:
            skipped.append(Skipped(file.name, "its name is not a CREMA-D name"))
            continue
        problem = _problem(match[0], votes, labels)
        if problem:
            skipped.append(Skipped(file.name, problem))
        else:
            rows.append(_row(file, match, votes.get(match[0], {}), genders, labels))
    if not rows:
        raise InputError(f"{folder}: no CREMA-D recording (like 1001_DFA_ANG_XX.wav) in it or below it.")
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, len(votes), labels))


def read_votes(folder: Path) -> dict[str, dict[str, int]]:
    """The votes of the raters who heard the audio only; empty if the release's table of votes is missing.

    Returns:
        file name without suffix -> letter of an emotion -> number of raters.
    """
    votes = {}
    lines = _table(folder, "tabulatedVotes.csv", [_ID_COLUMN, *_VOTED, "fileName"])
    for number, line in enumerate(lines, start=2):
        if not all(line[letter].isdecimal() for letter in _VOTED):
            where = f"{folder}, tabulatedVotes.csv, line {number}"
            raise InputError(f"{where}: a number of votes is not an integer; restore the file from the release.")
        # The first digit of the id is what the raters were shown: 1 the voice, 2 the face, 3 both.
        if line[_ID_COLUMN].startswith("1"):
            votes[line["fileName"]] = {letter: int(line[letter]) for letter in _VOTED if line[letter] != "0"}
    return votes


def majority(votes: Mapping[str, int]) -> str | None:
    """The letter with the most votes; None for a tie, or without votes."""
    winners = [letter for letter, count in votes.items() if count == max(votes.values())]
    if len(winners) != 1:
        return None
    return winners[0]


def _genders(folder: Path) -> dict[str, str]:
    lines = _table(folder, "VideoDemographics.csv", ["ActorID", "Sex"])
    return {line["ActorID"]: line["Sex"].lower() for line in lines}


def _table(folder: Path, name: str, columns: list[str]) -> list[dict[str, str]]:
    """The lines of a table of the release; none if the table is missing."""
    for file in sorted(folder.rglob(name))[:1]:
        return read_release_table(file, columns)[columns].to_dict("records")
    return []


def _problem(name: str, votes: Votes, labels: str) -> str | None:
    """Why a recording is left out, None if it is not."""
    if name in KNOWN_BAD:
        return KNOWN_BAD[name][0]
    if labels == "intended":
        return None
    if name not in votes:
        return "nobody rated its voice"
    if majority(votes[name]) is None:
        return "its voice-only raters are tied"
    return None


def _row(
    file: Path, match: re.Match[str], votes: Mapping[str, int], genders: Mapping[str, str], labels: str
) -> dict[str, Any]:
    counts = {_VOTED[letter]: count for letter, count in votes.items()}
    return {
        "utterance_id": f"cremad-{match[0]}",
        "corpus": "cremad",
        "audio": str(file),
        "text": map_label(match["sentence"], SENTENCES, str(file)),
        "source_label": match["emotion"] if labels == "intended" else majority(votes),
        "speaker": f"cremad-{match['actor']}",
        "gender": genders.get(match["actor"], ""),
        "sentence": f"cremad-{match['sentence']}",
        "language": "en",
        "votes": json.dumps(counts, sort_keys=True) if counts else "",
    }


def _remarks(rows: list[dict[str, Any]], rated: int, labels: str) -> list[str]:
    remarks = [f"the label is {LABEL_SOURCES[labels]}"]
    missing = {}
    for column, table in (("votes", "tabulatedVotes.csv"), ("gender", "VideoDemographics.csv")):
        missing[column] = sum(not row[column] for row in rows)
        if missing[column]:
            remarks.append(f"{missing[column]} rows have no {column}: {table} lacks them")
    available = len(rows) - missing["votes"]
    if available < rated:
        remarks.append(f"{rated} recordings were rated, {available} of them are available")
    return remarks
