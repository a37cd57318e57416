"""MSP-Podcast: English, turns cut out of podcasts and rated by a crowd; version 2.0 has 264,705 turns, 409 hours.

`Labels/labels_consensus.csv` (once `labels_concensus.csv`) holds the labels, `labels_detailed.csv` the raters'.
`Audios/MSP-PODCAST_0001_0008.wav` is podcast 1, segment 8, `Transcripts/MSP-PODCAST_0001_0008.txt` its words.
Without the first table the raw `Labels.txt` of old versions is read, which has neither speakers nor splits.

Test1 and Test2 are separate test sets that share speakers: `tests` says which are the test split. Never train on the
other. The labels of Test3 are withheld. Speakers that nobody has told apart have an empty `speaker`.
MSP-PODCAST_1023_0235.wav, unlike all others stereo at 44.1 kHz, is kept: recordings are mixed down and resampled.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.emotions import map_label
from merhan.errors import InputError, nearest


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
    {},  # it grows with every version; no version's counts per class are known here for certain
    (1, 7),
)
_RATED = {word.capitalize(): word for word in ("surprise", "fear", "disgust", "contempt", "neutral")}
_RATED |= {"Angry": "anger", "Sad": "sadness", "Happy": "joy", "Other": None}
_SPLITS = {"Train": "train", "Development": "validation", "Validation": "validation", "": ""}
_GENDERS = {"Male": "male", "Female": "female", "Unknown": "", "": ""}
_TESTS = ("Test1", "Test2", "Test3")
_COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
_RAW = re.compile(r"(\S+\.wav); *(\w); *A:([\d.]+); *V:([\d.]+); *D:([\d.]+) *;.*")


def read(source: str | Path | None, tests: str | Sequence[str] = ("Test1",)) -> Corpus:
    """Every labelled turn, in the order of its name.

    Args:
        source: the release's folder.
        tests: which of Test1, Test2 and Test3 make up the test split; the others are left out.
    """
    folder = require_folder(source, "MSP-Podcast")
    tests = [tests] if isinstance(tests, str) else list(tests)
    if wrong := [name for name in tests if name not in _TESTS]:
        raise InputError(f"data.options.tests: unknown test set {wrong[0]!r}{nearest(wrong[0], _TESTS)}")
    table, votes = _tables(folder)
    sounds = {path.stem: str(path) for path in _below(folder, "MSP-PODCAST_*.wav")}
    words = {path.stem: path for path in _below(folder, "Transcripts/*.txt")}
    rows, skipped = [], []
    for line in table.sort_values("FileName").to_dict("records"):
        stem = line["FileName"].removesuffix(".wav")
        if reason := _unusable(line, tests, stem in sounds or stem in words):
            skipped.append(Skipped(line["FileName"], reason))
        else:
            rows.append(_row(line, sounds.get(stem, ""), _text(words.get(stem)), votes.get(line["FileName"], {})))
    unlabelled = sorted(set(sounds) - set(table["FileName"].str.removesuffix(".wav")))
    skipped += [Skipped(f"{name}.wav", "recording without labels, as those of Test3 are") for name in unlabelled]
    if not rows:
        raise InputError(f"{folder}: no labelled turn with a recording or words in it; complete the release.")
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows))


def _unusable(line: Mapping[str, str], tests: Sequence[str], there: bool) -> str | None:
    """Why a turn is left out, if it is."""
    if line["Split_Set"] in _TESTS and line["Split_Set"] not in tests:
        return "of a test set that data.options.tests does not name"
    if line["Split_Set"] == "Test3" and not line["EmoClass"]:
        return "labels of Test3 are withheld"
    return None if there else "neither recording nor transcript"


def _row(line: Mapping[str, str], audio: str, text: str, votes: Mapping[str, int]) -> dict:
    name, split, speaker = line["FileName"], line["Split_Set"], line["SpkrID"]
    where = f"{line['file']}, {name}"
    if not re.fullmatch(r"MSP-PODCAST_\w+_\w+\.wav", name):
        raise InputError(f"{where}: is no name of MSP-Podcast's, like MSP-PODCAST_0001_0008.wav; correct the table.")
    return {
        "utterance_id": f"msp_podcast-{name.removesuffix('.wav')}",
        "corpus": "msp_podcast",
        "audio": audio,
        "text": text,
        "source_label": line["EmoClass"],
        "split": "test" if split in _TESTS else map_label(split, _SPLITS, f"{where}, Split_Set"),
        "speaker": "" if speaker in ("", "Unknown") else f"msp_podcast-{speaker}",
        # One podcast is one recording. Its turns have unlabelled ones between them: they are no dialogue.
        "session": f"msp_podcast-{name.split('_')[1]}",
        "language": "en",
        "gender": map_label(line["Gender"], _GENDERS, f"{where}, Gender"),
        "valence": _number(line["EmoVal"], where),
        "arousal": _number(line["EmoAct"], where),
        "dominance": _number(line["EmoDom"], where),
        "votes": json.dumps(votes, sort_keys=True) if votes else "",
    }


def _number(text: str, where: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise InputError(f"{where}: {text!r} is not a number from 1 to 7; correct the table.") from None


def _text(file: Path | None) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8").split()) if file else ""
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not UTF-8; save it as such.") from None


def _below(folder: Path, pattern: str) -> list[Path]:
    """Files of this version: earlier versions' labels and recordings lie below it under the same names."""
    old = "Previous_releases_information"
    return sorted(path for path in folder.rglob(pattern) if old not in path.relative_to(folder).parts)


def _tables(folder: Path) -> tuple[pd.DataFrame, Mapping[str, Counter]]:
    """The consensus, one row a turn, every cell a string; and each turn's votes."""
    consensus, raw = _below(folder, "labels_con[cs]ensus.csv"), _below(folder, "[Ll]abels.txt")
    if not consensus and not raw:
        raise InputError(f"{folder}: no labels_consensus.csv or Labels.txt in it or below it; give the release.")
    if len(consensus) > 1:
        raise InputError(f"{folder}: holds {consensus[0]} and {consensus[1]}; give the folder of one version.")
    if not consensus:
        return _raw(raw[0])
    table = pd.read_csv(consensus[0], dtype=str, keep_default_na=False)
    if missing := [column for column in _COLUMNS if column not in table]:
        raise InputError(f"{consensus[0]}: lacks the column {missing[0]!r}{nearest(missing[0], table)}")
    detailed = _below(folder, "labels_detailed.csv")
    votes = _votes(detailed[0]) if detailed else _raw(raw[0])[1] if raw else {}
    return table.assign(file=str(consensus[0])), votes


def _raw(file: Path) -> tuple[pd.DataFrame, Mapping[str, Counter]]:
    """`Labels.txt`: a line per turn, and below it a line per rater."""
    lines, votes = [], defaultdict(Counter)
    # Any byte is a character of latin-1; only raters' free words are not ASCII, and those are not read.
    for number, line in enumerate(file.read_text(encoding="latin-1").split("\n"), start=1):
        where = f"{file}, line {number}"
        if match := _RAW.fullmatch(line.strip()):
            lines.append(dict(zip(_COLUMNS, (*match.groups(), "", "", ""), strict=True)))
        elif line.startswith("WORKER") and lines:
            votes[lines[-1]["FileName"]][_rated(line, where)] += 1
        elif line.strip():
            raise InputError(f"{where}: neither a turn's consensus nor a rater's line; restore the file.")
    return pd.DataFrame(lines, columns=_COLUMNS).assign(file=str(file)), votes


def _votes(file: Path) -> Mapping[str, Counter]:
    """`labels_detailed.csv`: a row per rater, with a column for the label or Labels.txt's line in `EmoDetail`."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if "EmoClass_Major" not in table and "EmoDetail" not in table:
        raise InputError(f"{file}: has neither the column EmoClass_Major nor EmoDetail; restore the file.")
    given = ";" + table["EmoClass_Major"] if "EmoClass_Major" in table else table["EmoDetail"]
    votes = defaultdict(Counter)
    for number, (name, line) in enumerate(zip(table["FileName"], given, strict=True), start=2):
        votes[name][_rated(line, f"{file}, line {number}")] += 1
    return votes


def _rated(line: str, where: str) -> str:
    """A rater's label, the second field; whatever is written behind `Other` (1,406 ways of it) is another emotion."""
    word = line.split(";")[1].strip() if ";" in line else line
    word = "Other" if word.startswith("Other") else word
    return map_label(word, _RATED, where) or word


def _remarks(rows: Sequence[Mapping[str, str]]) -> list[str]:
    lacks = {
        "audio": "have text alone: no recording found",
        "text": "have no transcript",
        "speaker": "are of an unknown speaker: no split of them is speaker-independent",
    }
    counts = {column: sum(not row[column] for row in rows) for column in lacks}
    return [f"{count} of {len(rows)} turns {lacks[column]}" for column, count in counts.items() if count]
