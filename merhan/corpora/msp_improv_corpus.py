"""MSP-IMPROV: English, 8438 turns of 12 actors in six sessions of two; 20 sentences, each in four emotions.

`Evalution.txt` (so spelled; elsewhere `Evaluation.txt`) rates `UTD-IMPROV-S01A-F01-S-FM01.avi`, whose sound is
`Audio/session1/S01A/S/MSP-IMPROV-S01A-F01-S-FM01.wav`: sentence and intended emotion, actor, scenario, pair, turn.
Scenarios: R the sentence as read, T the sentence within an improvisation, S other turns of improvisations, P natural
talk between recordings. Words are read where files named `MSP-IMPROV-S01A-F01-S-FM01.txt` lie below the folder.

The labels are the raters' consensus, not the intended emotion of the name. An actor and an actress share a session:
make folds of `session`, not of `speaker`. Only R and T say a sentence that recurs; what is said in S and P is free.
The pair's letters are not read: no public description says what they add to the actor named before. Turns are counted
anew for each of their two orders, so that the order of the turns of a scene is unknown: there is no `dialogue`.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.emotions import map_label
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
_RATED = {"Angry": "anger", "Happy": "joy", "Sad": "sadness", "Neutral": "neutral", "Other": None}
_NAME = re.compile(r"(?P<sentence>S\d\d)[AHSN]-(?P<sex>[FM])(?P<session>\d\d)-(?P<scenario>[PRST])-[FM]{2}\d+")
# A blank may stand before a semicolon, a number may be NaN; what follows, N, is naturalness.
_CONSENSUS = re.compile(r"UTD-IMPROV-(\S+)\.avi; *(\w) *; *A:([\d.]+|NaN) *; *V:([\d.]+|NaN) *; *D:([\d.]+|NaN) *;.*")


def read(source: str | Path | None) -> Corpus:
    """`source`: the folder of Evalution.txt and of the recordings, in it or below it. Rows are in order of ids."""
    folder = require_folder(source, "MSP-IMPROV")
    files = sorted([*folder.rglob("Evalution.txt"), *folder.rglob("Evaluation.txt")])
    if len(files) != 1:
        raise InputError(f"{folder}: holds {len(files)} files Evalution.txt or Evaluation.txt; give one release.")
    turns, repeated = _evaluations(files[0])
    sounds, words = (
        {path.stem.removeprefix("MSP-IMPROV-"): path for path in sorted(folder.rglob(f"MSP-IMPROV-*.{kind}"))}
        for kind in ("wav", "txt")
    )
    rows, skipped = [], []
    for turn in sorted(turns, key=lambda turn: turn["name"]):
        name = turn["name"]
        if name in sounds or name in words:
            rows.append(_row(turn, str(sounds.get(name, "")), _text(words.get(name))))
        else:
            skipped.append(Skipped(name, "neither recording nor transcript"))
    unrated = sorted(set(sounds) - {turn["name"] for turn in turns})
    skipped += [Skipped(name, "recording that nobody evaluated") for name in unrated]
    if not rows:
        raise InputError(f"{folder}: no evaluated turn with a recording or words in it; complete the release.")
    table = pd.DataFrame(rows)
    return Corpus(table, skipped, _remarks(table, repeated))


def _row(turn: Mapping[str, Any], audio: str, text: str) -> dict:
    match = _NAME.fullmatch(turn["name"])
    return {
        "utterance_id": f"msp_improv-{turn['name']}",
        "corpus": "msp_improv",
        "audio": audio,
        "text": text,
        "source_label": turn["label"],
        "speaker": f"msp_improv-{match['sex']}{match['session']}",
        "session": f"msp_improv-{match['session']}",
        "sentence": f"msp_improv-{match['sentence']}" if match["scenario"] in "RT" else "",
        "language": "en",
        "gender": "male" if match["sex"] == "M" else "female",
        "valence": turn["valence"],
        "arousal": turn["arousal"],
        "dominance": turn["dominance"],
        "votes": json.dumps(turn["votes"], sort_keys=True),
    }


def _evaluations(file: Path) -> tuple[list[dict], int]:
    """Turns with the votes of their raters, and how many ratings stand twice: those are copies, and count once."""
    turns, raters, repeated = [], set(), 0
    # Any byte is a character of latin-1; only raters' free words are not ASCII, and those are not read.
    for number, line in enumerate(file.read_text(encoding="latin-1").split("\n"), start=1):
        where, line = f"{file}, line {number}", line.strip()
        if line.startswith("UTD-IMPROV-"):
            turns.append(_evaluation(line, where))
            raters = set()
        elif line and (not turns or ";" not in line):
            raise InputError(f"{where}: {line!r} is neither a turn's consensus nor a rater's line; restore the file.")
        elif line:
            rater, word = (field.strip() for field in line.split(";")[:2])
            label = map_label(word, _RATED, where) or word
            repeated += rater in raters
            turns[-1]["votes"].update([label] if rater not in raters else [])
            raters.add(rater)
    return turns, repeated


def _evaluation(line: str, where: str) -> dict:
    match = _CONSENSUS.fullmatch(line)
    if not match or not _NAME.fullmatch(match[1]):
        raise InputError(f"{where}: {line!r} is not UTD-IMPROV-<turn>.avi; label; A:; V:; D:; restore the file.")
    name, label, *numbers = match.groups()
    map_label(label, LABELS, where)
    arousal, valence, dominance = (float(number) for number in numbers)
    return {
        "name": name,
        "label": label,
        "valence": valence,
        "arousal": arousal,
        "dominance": dominance,
        "votes": Counter(),
    }


def _text(file: Path | None) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8").split()) if file else ""
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not UTF-8; save it as such.") from None


def _remarks(rows: pd.DataFrame, repeated: int) -> list[str]:
    silent, wordless = ((rows[column] == "").sum() for column in ("audio", "text"))
    remarks = [f"{silent} of {len(rows)} turns have text alone: no recording found"] if silent else []
    remarks += [f"{wordless} of {len(rows)} turns have no transcript"] if wordless else []
    remarks += [f"ratings that stand twice and count once: {repeated}"] if repeated else []
    # Readers of the release disagree on whether its activation runs up or down: anger and sadness tell.
    angry, sad = (rows.loc[rows["source_label"] == word, "arousal"].mean() for word in "AS")
    if angry < sad:
        remarks.append(
            f"arousal is {angry:.2f} for anger, {sad:.2f} for sadness, so 1 is very active; take 6 - arousal"
        )
    return remarks
