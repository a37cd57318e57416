"""CREMA-D: English, 7442 recordings, 91 actors, 6 emotions, twelve sentences, and the votes of raters.

`AudioWAV/1001_DFA_ANG_XX.wav` = actor_sentence_emotion_level. A recording has two labels: the emotion that its actor
was asked for, in its name, and the majority of the raters who had the voice alone. They agree in 41.6 % of them (3897
sound neutral to those raters, 644 are tied), so which one is read is an option, and a remark says it.
Git LFS pointers in place of recordings are listed like them; whoever decodes them reports it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.emotions import map_label
from merhan.errors import InputError, nearest


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
KNOWN_BAD = {"1076_MTI_SAD_XX": ("its recording holds no sound", "README of CheyneyComputerScience/CREMA-D")}
WHOSE = {"intended": "the emotion that the actor was asked for", "voice": "the majority of the voice-only raters"}
_ID = "Unnamed: 0"  # what pandas calls the column that has no name
_NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?:LO|MD|HI|XX)")
_MISNAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # in older copies (CheyneyComputerScience/CREMA-D#6)


def read(source: str | Path | None, labels: str = "intended") -> Corpus:
    """`source`: the folder of the release; `labels`: `intended`, or `voice` for the voice-only majority (no ties)."""
    folder = require_folder(source, "CREMA-D")
    if labels not in WHOSE:
        raise InputError(f"data.options.labels: unknown {labels!r}{nearest(labels, WHOSE)}")
    votes = read_votes(folder)
    if labels == "voice" and not votes:
        raise InputError(f"{folder}: tabulatedVotes.csv is not below it, but data.options.labels is voice.")
    actors = _table(folder, "VideoDemographics.csv", ["ActorID", "Sex"])
    genders = {actor["ActorID"]: actor["Sex"].lower() for actor in actors}
    files = {file: _NAME.fullmatch(_MISNAMED.get(file.stem, file.stem)) for file in sorted(folder.rglob("*.wav"))}
    faults = {file: _fault(match, votes, labels) for file, match in files.items()}
    rows = [_row(file, match, votes, genders, labels) for file, match in files.items() if not faults[file]]
    if not rows:
        raise InputError(f"{folder}: no CREMA-D recording (like 1001_DFA_ANG_XX.wav) in it or below it.")
    skipped = [Skipped(file.name, fault) for file, fault in faults.items() if fault]
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, len(votes), labels))


def read_votes(folder: Path) -> dict[str, dict[str, int]]:
    """File name without suffix -> letter -> number of raters who had the voice alone; nothing without the table."""
    votes = {}
    for line, row in enumerate(_table(folder, "tabulatedVotes.csv", [_ID, *_VOTED, "fileName"]), start=2):
        if not all(row[letter].isdecimal() for letter in _VOTED):
            raise InputError(f"{folder}, tabulatedVotes.csv, line {line}: a count of votes is no number; mend it.")
        # The first digit of a row's id says what its raters had: 1 the voice, 2 the face, 3 both.
        if row[_ID].startswith("1"):
            votes[row["fileName"]] = {letter: int(row[letter]) for letter in _VOTED if row[letter] != "0"}
    return votes


def majority(votes: Mapping[str, int]) -> str | None:
    """The letter that most raters chose; None for a tie."""
    most = [letter for letter, count in votes.items() if count == max(votes.values())]
    return most[0] if len(most) == 1 else None


def _table(folder: Path, name: str, columns: list[str]) -> list[dict[str, str]]:
    """The lines of a table of the release; none where it is not there."""
    for file in sorted(folder.rglob(name))[:1]:
        try:
            return pd.read_csv(file, dtype=str, keep_default_na=False)[columns].to_dict("records")
        except KeyError as error:
            raise InputError(f"{file}: lacks columns ({error.args[0]}); take it from the release again.") from None
    return []


def _fault(match: re.Match | None, votes: Mapping[str, Mapping[str, int]], labels: str) -> str | None:
    """Why a recording is left out."""
    if match is None:
        return "its name is not CREMA-D's"
    if match[0] in KNOWN_BAD:
        return KNOWN_BAD[match[0]][0]
    if labels == "voice" and majority(votes.get(match[0], {})) is None:
        return "its voice-only raters are tied" if match[0] in votes else "nobody rated its voice"
    return None


def _row(file: Path, match: re.Match, votes: Mapping, genders: Mapping[str, str], labels: str) -> dict:
    cast = votes.get(match[0], {})
    counts = {_VOTED[letter]: count for letter, count in cast.items()}
    return {
        "utterance_id": f"cremad-{match[0]}",
        "corpus": "cremad",
        "audio": str(file),
        "text": map_label(match["sentence"], SENTENCES, str(file)),
        "source_label": match["emotion"] if labels == "intended" else majority(cast),
        "speaker": f"cremad-{match['actor']}",
        "gender": genders.get(match["actor"], ""),
        "sentence": f"cremad-{match['sentence']}",
        "language": "en",
        "votes": json.dumps(counts, sort_keys=True) if counts else "",
    }


def _remarks(rows: list[dict], rated: int, labels: str) -> list[str]:
    tables = {"votes": "tabulatedVotes.csv", "gender": "VideoDemographics.csv"}
    lacking = {column: sum(not row[column] for row in rows) for column in tables}
    here = len(rows) - lacking["votes"]
    remarks = [f"{count} rows have no {name}: {tables[name]} lacks them" for name, count in lacking.items() if count]
    remarks += [f"{rated} recordings were rated, {here} of them are here"] if here < rated else []
    return [f"the label is {WHOSE[labels]}", *remarks]
