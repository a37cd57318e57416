"""MSP-Podcast: English, turns segmented from podcasts and rated by a crowd; version 2.0 has 264,705 turns, 409 hours.

`Labels/labels_consensus.csv` (in some versions `labels_concensus.csv`) has the labels, `labels_detailed.csv` the single
ratings. `Audios/MSP-PODCAST_0001_0008.wav` is podcast 1, segment 8; `Transcripts/MSP-PODCAST_0001_0008.txt` its text.
Without the first table `Labels.txt` of old versions is read, which has neither speakers nor splits.

Test1 and Test2 are separate test sets that share speakers: `tests` selects those of the test split. Never train on the
other one. The labels of Test3 are withheld. Turns of unidentified speakers have an empty `speaker`.
MSP-PODCAST_1023_0235.wav, the only one that is stereo at 44.1 kHz, is kept: audio is mixed down and resampled.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import (
    About,
    Corpus,
    Skipped,
    missing_notes,
    read_release_table,
    read_text,
    read_transcript,
    require_folder,
)
from merhan.data.labels import map_label
from merhan.errors import InputError, did_you_mean


LABELS = {
    "A": "anger",
    "S": "sadness",
    "H": "joy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": None,  # another emotion
    "X": None,  # no agreement among the raters
}

ABOUT = About(
    "MSP-Podcast",
    "licence agreement with the University of Texas at Dallas, on request; not to be redistributed",
    "Lotfian and Busso 2019, Building naturalistic emotionally balanced speech corpus by retrieving emotional speech "
    "from existing podcast recordings, IEEE Transactions on Affective Computing 10(4):471-483",
    {},  # the corpus grows with every version; reliable counts per class are not known for any of them
    (1, 7),
)

# A rater's label -> label of the vocabulary.
_RATED: dict[str, str | None] = {
    "Angry": "anger",
    "Sad": "sadness",
    "Happy": "joy",
    "Surprise": "surprise",
    "Fear": "fear",
    "Disgust": "disgust",
    "Contempt": "contempt",
    "Neutral": "neutral",
    "Other": None,
}

_SPLITS = {"Train": "train", "Development": "validation", "Validation": "validation", "": ""}

_GENDERS = {"Male": "male", "Female": "female", "Unknown": "", "": ""}

_TESTS = ("Test1", "Test2", "Test3")

_COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")

_RAW = re.compile(r"(\S+\.wav); *(\w); *A:([\d.]+); *V:([\d.]+); *D:([\d.]+) *;.*")

Votes = Mapping[str, Counter[str]]  # file name of a turn -> label -> number of raters


def read(source: str | Path | None, tests: str | Sequence[str] = ("Test1",)) -> Corpus:
    """List every labelled turn, in the order of the file names.

    Args:
        source: the folder of the release.
        tests: which of Test1, Test2 and Test3 make up the test split; the others are left out.

    Raises:
        InputError: unknown `tests`; a missing table or column; an invalid value; no recording and no text.
    """
    folder = require_folder(source, "MSP-Podcast")
    tests = _test_sets(tests)
    table, votes = _tables(folder)
    recordings = {path.stem: str(path) for path in _files(folder, "MSP-PODCAST_*.wav")}
    transcripts = {path.stem: path for path in _files(folder, "Transcripts/*.txt")}
    rows, skipped = [], []
    for line in table.sort_values("FileName").to_dict("records"):
        name = line["FileName"]
        stem = name.removesuffix(".wav")
        problem = _problem(line, tests, stem in recordings or stem in transcripts)
        if problem:
            skipped.append(Skipped(name, problem))
        else:
            text = read_transcript(transcripts.get(stem))
            rows.append(_row(line, recordings.get(stem, ""), text, votes.get(name, {})))
    unlabelled = sorted(set(recordings) - set(table["FileName"].str.removesuffix(".wav")))
    skipped += [Skipped(f"{name}.wav", "recording without labels, like those of Test3") for name in unlabelled]
    if not rows:
        raise InputError(f"{folder}: no labelled turn with a recording or a text in it; complete the release.")
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows))


def _test_sets(tests: str | Sequence[str]) -> list[str]:
    names = [tests] if isinstance(tests, str) else list(tests)
    for name in names:
        if name not in _TESTS:
            suggestion = did_you_mean(name, _TESTS)
            raise InputError(f"data.options.tests (`--option tests=...`): unknown test set {name!r}{suggestion}")
    return names


def _problem(line: Mapping[str, str], tests: Sequence[str], available: bool) -> str | None:
    """Why a turn is left out, None if it is not."""
    if line["Split_Set"] in _TESTS and line["Split_Set"] not in tests:
        return "of a test set that data.options.tests does not name"
    if line["Split_Set"] == "Test3" and not line["EmoClass"]:
        return "labels of Test3 are withheld"
    if not available:
        return "neither recording nor transcript"
    return None


def _row(line: Mapping[str, str], audio: str, text: str, votes: Mapping[str, int]) -> dict[str, Any]:
    name, speaker = line["FileName"], line["SpkrID"]
    where = f"{line['file']}, {name}"
    if not re.fullmatch(r"MSP-PODCAST_\w+_\w+\.wav", name):
        raise InputError(f"{where}: is not a name of MSP-Podcast, like MSP-PODCAST_0001_0008.wav; correct the table.")
    return {
        "utterance_id": f"msp_podcast-{name.removesuffix('.wav')}",
        "corpus": "msp_podcast",
        "audio": audio,
        "text": text,
        "source_label": line["EmoClass"],
        "split": _split(line["Split_Set"], where),
        "speaker": "" if speaker in ("", "Unknown") else f"msp_podcast-{speaker}",
        # A podcast is a session, but not a dialogue, because there are unlabelled turns between the labelled ones.
        "session": f"msp_podcast-{name.split('_')[1]}",
        "language": "en",
        "gender": map_label(line["Gender"], _GENDERS, f"{where}, Gender"),
        "valence": _number(line["EmoVal"], where),
        "arousal": _number(line["EmoAct"], where),
        "dominance": _number(line["EmoDom"], where),
        "votes": json.dumps(votes, sort_keys=True) if votes else "",
    }


def _split(name: str, where: str) -> str | None:
    if name in _TESTS:
        return "test"
    return map_label(name, _SPLITS, f"{where}, Split_Set")


def _number(text: str, where: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise InputError(f"{where}: {text!r} is not a number from 1 to 7; correct the table.") from None


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files of this version, without those of earlier versions, which a subfolder has under the same names."""
    earlier = "Previous_releases_information"
    return sorted(path for path in folder.rglob(pattern) if earlier not in path.relative_to(folder).parts)


def _tables(folder: Path) -> tuple[pd.DataFrame, Votes]:
    """The consensus, one row per turn with every cell a string and the column `file`; and the votes."""
    consensus, raw = _files(folder, "labels_con[cs]ensus.csv"), _files(folder, "[Ll]abels.txt")
    if not consensus and not raw:
        raise InputError(f"{folder}: no labels_consensus.csv or Labels.txt in it or below it; give the release.")
    if len(consensus) > 1:
        raise InputError(f"{folder}: holds {consensus[0]} and {consensus[1]}; give the folder of one version.")
    if not consensus:
        return _read_raw(raw[0])
    table = read_release_table(consensus[0], _COLUMNS)
    votes: Votes = {}
    detailed = _files(folder, "labels_detailed.csv")
    if detailed:
        votes = _read_votes(detailed[0])
    elif raw:
        _, votes = _read_raw(raw[0])
    return table.assign(file=str(consensus[0])), votes


def _read_raw(file: Path) -> tuple[pd.DataFrame, Votes]:
    """`Labels.txt`: a line per turn, followed by a line per rater."""
    turns: list[dict[str, str]] = []
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    # Every byte is valid latin-1. Only the raters' free comments are not ASCII, and they are not read.
    for number, line in enumerate(read_text(file, "latin-1").split("\n"), start=1):
        where = f"{file}, line {number}"
        match = _RAW.fullmatch(line.strip())
        if match:
            turns.append(dict(zip(_COLUMNS, (*match.groups(), "", "", ""), strict=True)))
        elif line.startswith("WORKER") and turns:
            votes[turns[-1]["FileName"]][_rating(line, where)] += 1
        elif line.strip():
            raise InputError(f"{where}: neither a turn's consensus nor a rater's line; restore the file.")
    return pd.DataFrame(turns, columns=_COLUMNS).assign(file=str(file)), votes


def _read_votes(file: Path) -> Votes:
    """`labels_detailed.csv`: one row per rater, a label in `EmoClass_Major` or a line of Labels.txt in `EmoDetail`."""
    table = read_release_table(file, ["FileName"])
    if "EmoClass_Major" in table:
        lines = ";" + table["EmoClass_Major"]
    elif "EmoDetail" in table:
        lines = table["EmoDetail"]
    else:
        raise InputError(f"{file}: has neither the column EmoClass_Major nor EmoDetail; restore the file.")
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for number, (name, line) in enumerate(zip(table["FileName"], lines, strict=True), start=2):
        votes[name][_rating(line, f"{file}, line {number}")] += 1
    return votes


def _rating(line: str, where: str) -> str:
    """The label of a rater, the second field of a line. `Other` is followed by free text (1,406 variants)."""
    word = line
    if ";" in line:
        word = line.split(";")[1].strip()
    if word.startswith("Other"):
        word = "Other"
    return map_label(word, _RATED, where) or word


def _remarks(rows: list[dict[str, Any]]) -> list[str]:
    messages = {
        "audio": "turns have no recording",
        "text": "turns have no transcript",
        "speaker": "turns have an unknown speaker, so no split of them is speaker-independent",
    }
    return missing_notes(rows, messages)
