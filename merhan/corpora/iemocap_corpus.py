"""IEMOCAP: English, 10,039 turns of 151 dialogues, 10 actors in five sessions of two, improvised and scripted.

`Session1/dialog/EmoEvaluation/Ses01F_impro01.txt` holds the labels, `Session1/dialog/transcriptions/` the words,
`Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav` the sound. In a turn's id the letter of the last field
says who speaks; the one behind the session only says who of the two wore the motion-capture markers.

The two actors of a session share its room, its scripts and its dialogues: make folds of `session`, not of `speaker`.
All sessions say the same scripts, so that to a model of words no fold of scripted turns is new (see `style`).
The usual four classes are those of `label_map: {excitement: joy, frustration: null, surprise: null, fear: null,
disgust: null}`. Papers on six classes count 144 happy turns in session 5: they relabel one without a majority.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.emotions import map_label
from merhan.errors import InputError, nearest


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
_RATED = {
    word.capitalize(): word for word in ("neutral", "anger", "disgust", "fear", "frustration", "sadness", "surprise")
}
_RATED |= {"Neutral state": "neutral", "Happiness": "joy", "Excited": "excitement", "Other": None}
_STYLES = {"improvised": "_impro", "scripted": "_script"}
_EVALUATED = re.compile(r"\[(\d+\.\d+) - \d+\.\d+\]\t(\S+)\t(\w+)\t\[([\d.]+), ([\d.]+), ([\d.]+)\]")
_TURN = re.compile(r"(?P<dialogue>(?P<session>Ses\d\d)[FM]_(?:impro|script)\w+)_(?P<actor>[FM])\d{3}")
# The first colon behind the times ends the id: the words may hold `:` and `]:` themselves. Some lines have no times.
_SAID = re.compile(r"(Ses\S+?)(?:\s*\[[\d. -]+\])?:(.*)")


def read(source: str | Path | None, style: str | None = None) -> Corpus:
    """Every evaluated turn, dialogue by dialogue, in the order of time.

    Args:
        source: the release's folder, with Session1 to Session5 in it or below it.
        style: `improvised` or `scripted` keeps those dialogues alone; the default is both.
    """
    folder = require_folder(source, "IEMOCAP")
    if style not in (None, *_STYLES):
        raise InputError(f"data.options.style: unknown style {style!r}{nearest(style, _STYLES)}")
    # Not below EmoEvaluation: its folders Categorical, Attribute and Self-evaluation hold single raters' files.
    files = sorted(folder.glob("**/dialog/EmoEvaluation/Ses*.txt"))
    if not files:
        raise InputError(f"{folder}: no Session1/dialog/EmoEvaluation/Ses*.txt in it or below it; give the release.")
    chosen = [file for file in files if not style or _STYLES[style] in file.stem]
    skipped = [Skipped(file.name, f"dialogue that is not {style}") for file in files if file not in chosen]
    dialogues = [_dialogue(file) for file in chosen]
    skipped += [one for _, left_out in dialogues for one in left_out]
    rows = pd.DataFrame([row for found, _ in dialogues for row in found])
    if rows.empty:
        raise InputError(f"{folder}: no evaluated turn with a recording or words in it; complete the release.")
    silent, wordless = ((rows[column] == "").sum() for column in ("audio", "text"))
    remarks = [f"{silent} of {len(rows)} turns have text alone: no recording found"] if silent else []
    remarks += [f"{wordless} of {len(rows)} turns have no transcript"] if wordless else []
    return Corpus(rows, skipped, remarks)


def _dialogue(file: Path) -> tuple[list[dict], list[Skipped]]:
    """Join labels, words and sound of one dialogue on the turn's id; times differ by 1e-4 between the two files."""
    turns = sorted(_evaluations(file), key=lambda turn: (turn["start"], turn["id"]))
    known = {turn["id"] for turn in turns}
    words, skipped = _transcript(file.parents[1] / "transcriptions" / file.name)
    folder = file.parents[2] / "sentences" / "wav" / file.stem
    sounds = {path.stem: str(path) for path in sorted(folder.glob("Ses*.wav"))}
    skipped += [Skipped(name, "transcript of a turn that nobody evaluated") for name in words if name not in known]
    skipped += [Skipped(name, "recording of a turn that nobody evaluated") for name in sounds if name not in known]
    rows = [
        _row(turn, number, words.get(turn["id"], ""), sounds.get(turn["id"], "")) for number, turn in enumerate(turns)
    ]
    empty = [row["utterance_id"] for row in rows if not row["audio"] and not row["text"]]
    skipped += [Skipped(name, "neither recording nor transcript") for name in empty]
    return [row for row in rows if row["audio"] or row["text"]], skipped


def _row(turn: dict, number: int, text: str, audio: str) -> dict:
    match = _TURN.fullmatch(turn["id"])
    return {
        "utterance_id": f"iemocap-{turn['id']}",
        "corpus": "iemocap",
        "audio": audio,
        "text": text,
        "source_label": turn["label"],
        "speaker": f"iemocap-{match['session']}{match['actor']}",
        "session": f"iemocap-{match['session']}",
        "dialogue": f"iemocap-{match['dialogue']}",
        "turn": number,
        "language": "en",
        "gender": "male" if match["actor"] == "M" else "female",
        **dict(zip(("valence", "arousal", "dominance"), turn["dimensions"], strict=True)),
        "votes": json.dumps(turn["votes"], sort_keys=True),
    }


def _evaluations(file: Path) -> list[dict]:
    """The file's turns, with the votes of the raters (C-E1 and so on), not the actors' of themselves (C-F1)."""
    turns = []
    for number, line in enumerate(_lines(file), start=1):
        where = f"{file}, line {number}"
        if line.startswith("["):
            turns.append(_evaluation(line, where))
        elif line.startswith("C-E") and turns:
            turns[-1]["votes"].update(_rated(line, where))
        elif line.startswith("C-E"):
            raise InputError(f"{where}: a rater's line before any turn; restore the file from the release.")
    return turns


def _evaluation(line: str, where: str) -> dict:
    match = _EVALUATED.fullmatch(line)
    if not match or not _TURN.fullmatch(match[2]):
        raise InputError(f"{where}: {line!r} is not [start - end], turn, label, [V, A, D]; restore the file.")
    start, name, label, *dimensions = match.groups()
    map_label(label, LABELS, where)
    return {
        "id": name,
        "start": float(start),
        "label": label,
        "dimensions": [float(number) for number in dimensions],
        "votes": Counter(),
    }


def _rated(line: str, where: str) -> set[str]:
    """One rater's labels, `C-E2:	Frustration; Anger;	(a free comment)`; several count one each."""
    words = {word.strip() for word in line.partition(":")[2].partition("(")[0].split(";")} - {""}
    return {map_label(word, _RATED, where) or word for word in words}


def _transcript(file: Path) -> tuple[dict[str, str], list[Skipped]]:
    """Turn -> its words, and the lines that name no turn (`M: ...`)."""
    words, skipped = {}, []
    for number, line in enumerate(_lines(file) if file.is_file() else [], start=1):
        match = _SAID.fullmatch(line)
        if match and match[1] not in words:
            words[match[1]] = match[2].strip()
        elif line:
            reason = "second transcript of a turn" if match else "transcript line without a turn's id"
            skipped.append(Skipped(f"{file.name}, line {number}", reason))
    return words, skipped


def _lines(file: Path) -> list[str]:
    content = file.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # some transcripts are latin-1
        text = content.decode("latin-1")
    # Not splitlines(), for which latin-1's 0x85 ends a line.
    return [line.strip() for line in text.split("\n")]
