"""IEMOCAP: English, 10,039 turns of 151 dialogues, 10 actors in five sessions of two, improvised and scripted.

`Session1/dialog/EmoEvaluation/Ses01F_impro01.txt` holds the labels, `Session1/dialog/transcriptions/` the texts and
`Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav` the audio. In the id of a turn the letter of the last
field is the speaker; the letter after the session is the actor who wore the motion-capture markers.

The two actors of a session share acoustics, scripts and dialogues: use folds of `session`, not of `speaker`. All
sessions have the same scripts, so that a text model has seen the scripted turns of every fold (see `style`).
The usual four classes are those of `label_map: {excitement: joy, frustration: null, surprise: null, fear: null,
disgust: null}`. Papers on six classes count 144 happy turns in session 5: they relabel one turn without a majority.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, missing_notes, require_folder
from merhan.data.labels import map_label
from merhan.errors import InputError, did_you_mean


LABELS = {
    "neu": "neutral",
    "hap": "joy",
    "exc": "excitement",
    "sad": "sadness",
    "ang": "anger",
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": None,
    "xxx": None,  # no majority among the raters
}

ABOUT = About(
    "IEMOCAP, the interactive emotional dyadic motion capture database",
    "licence of SAIL, University of Southern California, on request; for research",
    "Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan 2008, IEMOCAP: interactive emotional dyadic "
    "motion capture database, Language Resources and Evaluation 42(4):335-359",
    {"xxx": 2507, "fru": 1849, "neu": 1708, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595}
    | {"sur": 107, "fea": 40, "oth": 3, "dis": 2},
    (1, 5),
)

# A rater's label -> label of the vocabulary.
_RATED: dict[str, str | None] = {
    "Neutral": "neutral",
    "Neutral state": "neutral",
    "Happiness": "joy",
    "Excited": "excitement",
    "Anger": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Frustration": "frustration",
    "Sadness": "sadness",
    "Surprise": "surprise",
    "Other": None,
}

_STYLES = {"improvised": "_impro", "scripted": "_script"}

# [start - end], turn, label, [valence, arousal, dominance]
_EVALUATED = re.compile(r"\[(\d+\.\d+) - \d+\.\d+\]\t(\S+)\t(\w+)\t\[([\d.]+), ([\d.]+), ([\d.]+)\]")

_TURN = re.compile(r"(?P<dialogue>(?P<session>Ses\d\d)[FM]_(?:impro|script)\w+)_(?P<actor>[FM])\d{3}")

# The first colon after the times ends the id, because the text may contain `:` and `]:`. Some lines have no times.
_TRANSCRIBED = re.compile(r"(Ses\S+?)(?:\s*\[[\d. -]+\])?:(.*)")


class _Turn(NamedTuple):
    """An evaluated turn."""

    match: re.Match[str]  # of its id
    start: float  # seconds
    label: str
    dimensions: list[float]  # valence, arousal, dominance
    votes: Counter[str]  # label -> number of raters

    @property
    def id(self) -> str:
        return self.match[0]


def read(source: str | Path | None, style: str | None = None) -> Corpus:
    """List every evaluated turn, dialogue by dialogue, in chronological order.

    Args:
        source: the folder of the release, with Session1 to Session5 in it or below it.
        style: `improvised` or `scripted` to read those dialogues only; by default both are read.

    Raises:
        InputError: an unknown style, a missing file, or a line that cannot be parsed.
    """
    folder = require_folder(source, "IEMOCAP")
    if style is not None and style not in _STYLES:
        suggestion = did_you_mean(style, _STYLES)
        raise InputError(f"data.options.style (`--option style=...`): unknown style {style!r}{suggestion}")
    # Not below EmoEvaluation: its folders Categorical, Attribute and Self-evaluation hold files of single raters.
    files = sorted(folder.glob("**/dialog/EmoEvaluation/Ses*.txt"))
    if not files:
        raise InputError(f"{folder}: no Session1/dialog/EmoEvaluation/Ses*.txt in it or below it; give the release.")
    rows, skipped = [], []
    for file in files:
        if style is not None and _STYLES[style] not in file.stem:
            skipped.append(Skipped(file.name, f"dialogue that is not {style}"))
    for file in files:
        if style is None or _STYLES[style] in file.stem:
            dialogue_rows, dialogue_skipped = _dialogue(file)
            rows += dialogue_rows
            skipped += dialogue_skipped
    if not rows:
        raise InputError(f"{folder}: no evaluated turn with a recording or a text in it; complete the release.")
    remarks = missing_notes(rows, {"audio": "turns have no recording", "text": "turns have no transcript"})
    return Corpus(pd.DataFrame(rows), skipped, remarks)


def _dialogue(file: Path) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """Join labels, texts and audio of a dialogue by the id of the turn.

    Their times cannot be used: they differ by 1e-4 between the two text files.
    """
    turns = sorted(_evaluations(file), key=lambda turn: (turn.start, turn.id))
    evaluated = {turn.id for turn in turns}
    texts, skipped = _transcript(file.parents[1] / "transcriptions" / file.name)
    folder = file.parents[2] / "sentences" / "wav" / file.stem
    recordings = {path.stem: str(path) for path in sorted(folder.glob("Ses*.wav"))}
    skipped += [Skipped(name, "transcript of a turn that nobody evaluated") for name in texts if name not in evaluated]
    skipped += [
        Skipped(name, "recording of a turn that nobody evaluated") for name in recordings if name not in evaluated
    ]
    rows = []
    for number, turn in enumerate(turns):
        row = _row(turn, number, texts.get(turn.id, ""), recordings.get(turn.id, ""))
        if row["audio"] or row["text"]:
            rows.append(row)
        else:
            skipped.append(Skipped(row["utterance_id"], "neither recording nor transcript"))
    return rows, skipped


def _row(turn: _Turn, number: int, text: str, audio: str) -> dict[str, Any]:
    match = turn.match
    valence, arousal, dominance = turn.dimensions
    return {
        "utterance_id": f"iemocap-{turn.id}",
        "corpus": "iemocap",
        "audio": audio,
        "text": text,
        "source_label": turn.label,
        "speaker": f"iemocap-{match['session']}{match['actor']}",
        "session": f"iemocap-{match['session']}",
        "dialogue": f"iemocap-{match['dialogue']}",
        "turn": number,
        "language": "en",
        "gender": "male" if match["actor"] == "M" else "female",
        "valence": valence,
        "arousal": arousal,
        "dominance": dominance,
        "votes": json.dumps(turn.votes, sort_keys=True),
    }


def _evaluations(file: Path) -> list[_Turn]:
    """The turns of a file with the votes of the raters (C-E1, ...), without the actors' self-evaluation (C-F1)."""
    turns: list[_Turn] = []
    for number, line in enumerate(_lines(file), start=1):
        where = f"{file}, line {number}"
        if line.startswith("["):
            turns.append(_evaluation(line, where))
        elif line.startswith("C-E") and turns:
            turns[-1].votes.update(_rating(line, where))
        elif line.startswith("C-E"):
            raise InputError(f"{where}: a rater's line before any turn; restore the file from the release.")
    return turns


def _evaluation(line: str, where: str) -> _Turn:
    match = _EVALUATED.fullmatch(line)
    turn = match and _TURN.fullmatch(match[2])
    if not match or not turn:
        raise InputError(
            f"{where}: {line!r} is not [start - end], turn, label, [V, A, D]; restore the file from the release."
        )
    start, _, label, *dimensions = match.groups()
    map_label(label, LABELS, where)
    return _Turn(turn, float(start), label, [float(number) for number in dimensions], Counter())


def _rating(line: str, where: str) -> set[str]:
    """The labels of one rater, as `C-E2:	Frustration; Anger;	(a comment)`; each counts as a vote."""
    words = {word.strip() for word in line.partition(":")[2].partition("(")[0].split(";")} - {""}
    return {map_label(word, _RATED, where) or word for word in words}


def _transcript(file: Path) -> tuple[dict[str, str], list[Skipped]]:
    """Id of a turn -> its text; and the lines without the id of a turn (`M: ...`)."""
    texts: dict[str, str] = {}
    skipped: list[Skipped] = []
    if not file.is_file():
        return texts, skipped
    for number, line in enumerate(_lines(file), start=1):
        match = _TRANSCRIBED.fullmatch(line)
        if match and match[1] not in texts:
            texts[match[1]] = match[2].strip()
        elif line:
            reason = "second transcript of a turn" if match else "transcript line without a turn's id"
            skipped.append(Skipped(f"{file.name}, line {number}", reason))
    return texts, skipped


def _lines(file: Path) -> list[str]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); take it from the release again.") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # some transcripts are latin-1
        text = content.decode("latin-1")
    # Not splitlines(), which also splits at 0x85, a character of latin-1.
    return [line.strip() for line in text.split("\n")]
