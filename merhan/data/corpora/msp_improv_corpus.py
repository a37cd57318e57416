"""MSP-IMPROV: English, 8438 turns of 12 actors in six sessions of two; 20 sentences, each in four emotions.

`Evalution.txt` (misspelled in the release; elsewhere `Evaluation.txt`) rates `UTD-IMPROV-S01A-F01-S-FM01.avi`, whose
audio is `Audio/session1/S01A/S/MSP-IMPROV-S01A-F01-S-FM01.wav`: sentence and intended emotion, actor, scenario, pair
and turn. Scenarios: R the sentence as read, T the sentence within an improvisation, S other turns of improvisations, P
natural interaction between recordings. Texts are read from files `MSP-IMPROV-S01A-F01-S-FM01.txt` below the folder.

The labels are the raters' consensus, not the intended emotion in the name. An actor and an actress share a session: use
folds of `session`, not of `speaker`. Only turns of R and T have a scripted sentence. The letters of the pair are not
read, because no public description says what they add to the actor before them. Turns are counted separately for each
of their two orders, so that the order of the turns in a scene is unknown; therefore rows have no `dialogue`.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, missing_notes, read_text, read_transcript, require_folder
from merhan.data.labels import map_label
from merhan.errors import InputError


LABELS = {
    "A": "anger",
    "H": "joy",
    "S": "sadness",
    "N": "neutral",
    "O": None,  # another emotion
    "X": None,  # no agreement among the raters
}

ABOUT = About(
    "MSP-IMPROV",
    "licence agreement with the University of Texas at Dallas, on request; for research",
    "Busso, Parthasarathy, Burmania, AbdelWahab, Sadoughi, Mower Provost 2017, MSP-IMPROV: An acted corpus of dyadic "
    "interactions to study emotion perception, IEEE Transactions on Affective Computing 8(1):67-80",
    {"N": 3477, "H": 2644, "S": 885, "A": 792, "X": 555, "O": 85},
    (1, 5),
)

# A rater's label -> label of the vocabulary.
_RATED = {"Angry": "anger", "Happy": "joy", "Sad": "sadness", "Neutral": "neutral", "Other": None}

_NAME = re.compile(r"(?P<sentence>S\d\d)[AHSN]-(?P<sex>[FM])(?P<session>\d\d)-(?P<scenario>[PRST])-[FM]{2}\d+")

# There may be a space before a semicolon, and a number may be NaN; the last field, N, is naturalness.
_CONSENSUS = re.compile(r"UTD-IMPROV-(\S+)\.avi; *(\w) *; *A:([\d.]+|NaN) *; *V:([\d.]+|NaN) *; *D:([\d.]+|NaN) *;.*")


class _Turn(NamedTuple):
    """An evaluated turn."""

    match: re.Match[str]  # of its name
    label: str
    arousal: float
    valence: float
    dominance: float
    votes: Counter[str]  # label -> number of raters

    @property
    def name(self) -> str:
        return self.match[0]


def read(source: str | Path | None) -> Corpus:
    """List the evaluated turns, in the order of their ids.

    Args:
        source: the folder with Evalution.txt and the recordings, in it or below it.

    Raises:
        InputError: no Evalution.txt, or several; a line that cannot be parsed; no recording and no text.
    """
    folder = require_folder(source, "MSP-IMPROV")
    files = sorted([*folder.rglob("Evalution.txt"), *folder.rglob("Evaluation.txt")])
    if len(files) != 1:
        raise InputError(f"{folder}: holds {len(files)} files Evalution.txt or Evaluation.txt; give one release.")
    turns, repeated = _evaluations(files[0])
    recordings, transcripts = _files_by_turn(folder, ".wav"), _files_by_turn(folder, ".txt")
    rows, skipped = [], []
    for turn in sorted(turns, key=lambda turn: turn.name):
        if turn.name in recordings or turn.name in transcripts:
            text = read_transcript(transcripts.get(turn.name))
            rows.append(_row(turn, str(recordings.get(turn.name, "")), text))
        else:
            skipped.append(Skipped(turn.name, "neither recording nor transcript"))
    unrated = sorted(set(recordings) - {turn.name for turn in turns})
    skipped += [Skipped(name, "recording that nobody evaluated") for name in unrated]
    if not rows:
        raise InputError(f"{folder}: no evaluated turn with a recording or a text in it; complete the release.")
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, repeated))


def _files_by_turn(folder: Path, suffix: str) -> dict[str, Path]:
    """Name of a turn -> its file."""
    files = sorted(folder.rglob(f"MSP-IMPROV-*{suffix}"))
    return {file.stem.removeprefix("MSP-IMPROV-"): file for file in files}


def _row(turn: _Turn, audio: str, text: str) -> dict[str, Any]:
    match = turn.match
    return {
        "utterance_id": f"msp_improv-{turn.name}",
        "corpus": "msp_improv",
        "audio": audio,
        "text": text,
        "source_label": turn.label,
        "speaker": f"msp_improv-{match['sex']}{match['session']}",
        "session": f"msp_improv-{match['session']}",
        "sentence": f"msp_improv-{match['sentence']}" if match["scenario"] in "RT" else "",
        "language": "en",
        "gender": "male" if match["sex"] == "M" else "female",
        "valence": turn.valence,
        "arousal": turn.arousal,
        "dominance": turn.dominance,
        "votes": json.dumps(turn.votes, sort_keys=True),
    }


def _evaluations(file: Path) -> tuple[list[_Turn], int]:
    """The turns with the votes of their raters, and the number of repeated ratings.

    A repeated rating is a second line of the same rater for the same turn. Such lines are copies, and are not counted.
    """
    turns: list[_Turn] = []
    raters: set[str] = set()
    repeated = 0
    # Every byte is valid latin-1. Only the raters' free comments are not ASCII, and they are not read.
    for number, line in enumerate(read_text(file, "latin-1").split("\n"), start=1):
        where, line = f"{file}, line {number}", line.strip()
        if line.startswith("UTD-IMPROV-"):
            turns.append(_evaluation(line, where))
            raters = set()
        elif line and (not turns or ";" not in line):
            raise InputError(f"{where}: {line!r} is neither a turn's consensus nor a rater's line; restore the file.")
        elif line:
            rater, word = (field.strip() for field in line.split(";")[:2])
            label = map_label(word, _RATED, where) or word
            if rater in raters:
                repeated += 1
            else:
                turns[-1].votes[label] += 1
            raters.add(rater)
    return turns, repeated


def _evaluation(line: str, where: str) -> _Turn:
    match = _CONSENSUS.fullmatch(line)
    turn = match and _NAME.fullmatch(match[1])
    if not match or not turn:
        raise InputError(f"{where}: {line!r} is not UTD-IMPROV-<turn>.avi; label; A:; V:; D:; restore the file.")
    _, label, *numbers = match.groups()
    map_label(label, LABELS, where)
    arousal, valence, dominance = (float(number) for number in numbers)
    return _Turn(turn, label, arousal, valence, dominance, Counter())


def _remarks(rows: list[dict[str, Any]], repeated: int) -> list[str]:
    remarks = missing_notes(rows, {"audio": "turns have no recording", "text": "turns have no transcript"})
    if repeated:
        remarks.append(f"repeated ratings, which are counted once: {repeated}")
    # Readers of the release disagree on the direction of its activation scale; anger and sadness show it.
    table = pd.DataFrame(rows)
    angry, sad = (table.loc[table["source_label"] == word, "arousal"].mean() for word in "AS")
    if angry < sad:
        remarks.append(f"arousal is {angry:.2f} for anger, {sad:.2f} for sadness, so 1 is very active; use 6 - arousal")
    return remarks
