"""ESD, the emotional speech dataset: 35,000 recordings, 10 Mandarin and 10 English speakers, 5 emotions.

`0011/Angry/0011_000351.wav`, in some releases `0011/Angry/train/0011_000351.wav`, with `train`, `evaluation`, `test`.
Each speaker of a language says its 350 sentences in each emotion; a sentence has the same number modulo 350 everywhere.
A split by speakers therefore shares every sentence, and the official split shares every speaker.

`0011/0011.txt` has a line per recording: name, text and emotion, separated by tabs. The label is taken from the folder.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, missing_notes, require_folder
from merhan.errors import InputError


LABELS = {"Neutral": "neutral", "Angry": "anger", "Happy": "joy", "Sad": "sadness", "Surprise": "surprise"}

ABOUT = About(
    "ESD, the emotional speech dataset",
    "research purposes only, after a signed licence",
    "Zhou, Sisman, Liu, Li 2022, Emotional voice conversion: theory, databases and ESD, Speech Communication 137",
    dict.fromkeys(LABELS, 7000),
)

SENTENCES = 350  # per language

# Emotion in a transcript -> name of the emotion's folder.
_WRITTEN = {word: word for word in LABELS} | {
    "中立": "Neutral",
    "生气": "Angry",
    "快乐": "Happy",
    "伤心": "Sad",
    "惊喜": "Surprise",
}

_SPLITS = {"train": "train", "evaluation": "validation", "test": "test"}

_MALE = {"0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020"}  # the release's ReadMe.txt

_NAME = re.compile(r"(?P<speaker>00(?:0[1-9]|1\d|20))_(?P<number>\d{6})")

# Some lines have spaces in place of the tabs (HLTSingapore/Emotional-Speech-Data#1).
_LINE = re.compile(r"(?P<name>\d{4}_\d{6})\s+(?P<words>\S.*?)\s+(?P<emotion>\S+)")


def read(source: str | Path | None) -> Corpus:
    """List the recordings.

    Args:
        source: the folder of the release, with the speakers' folders anywhere below it.

    Raises:
        InputError: no recording, or a transcript in an unknown encoding.
    """
    folder = require_folder(source, "ESD")
    matches, skipped = {}, []
    for file in sorted(folder.rglob("*.wav")):
        match = _NAME.fullmatch(file.stem)
        if match:
            matches[file] = match
        else:
            skipped.append(Skipped(file.name, "its name is not an ESD name"))
    if not matches:
        raise InputError(f"{folder}: no ESD recording (like 0011/Angry/0011_000351.wav) in it or below it.")
    lines, unreadable = _transcripts(folder, {match["speaker"] for match in matches.values()})
    rows = [_row(file, match, lines) for file, match in matches.items()]
    return Corpus(pd.DataFrame(rows), [*skipped, *unreadable], _remarks(rows, lines))


def decode(path: Path) -> str:
    """The content of a transcript, whose encoding differs between speakers; some English ones are in GBK, too.

    UTF-16 is recognised by its byte order mark. GBK is tried last, because nearly every sequence of bytes is valid.

    Raises:
        InputError: the encoding is none of these.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); take it from the release again.") from None
    encodings = ["utf-8-sig", "gbk"]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path}: is not UTF-8, UTF-16 with a byte order mark, or GBK; write it again as UTF-8.")


def _transcripts(folder: Path, speakers: Iterable[str]) -> tuple[dict[str, tuple[str, str]], list[Skipped]]:
    """The transcripts of some speakers.

    Returns:
        name of a recording -> its text and the name of its emotion's folder; and the lines that cannot be parsed.
    """
    files = {file.stem: file for file in sorted(folder.rglob("*.txt"), reverse=True)}
    lines, unreadable = {}, []
    for file in (files[speaker] for speaker in sorted(speakers) if speaker in files):
        for number, line in enumerate(decode(file).splitlines(), start=1):
            match = _LINE.fullmatch(line.strip())
            # Without a known emotion at the end of the line, the end of the text is unknown: it might contain a label.
            if match and match["emotion"] in _WRITTEN:
                lines[match["name"]] = match["words"], _WRITTEN[match["emotion"]]
            elif line.strip():
                reason = "a transcript line without name, text and emotion"
                unreadable.append(Skipped(f"{file.name}, line {number}", reason))
    return lines, unreadable


def _row(file: Path, match: re.Match[str], lines: dict[str, tuple[str, str]]) -> dict[str, Any]:
    speaker, split = match["speaker"], _SPLITS.get(file.parent.name, "")
    language = "zh" if speaker <= "0010" else "en"
    emotion_folder = file.parent.parent if split else file.parent
    words, _ = lines.get(file.stem, ("", ""))
    if language == "en":
        # Some English lines contain full-width Chinese commas.
        words = unicodedata.normalize("NFKC", words)
    return {
        "utterance_id": f"esd-{file.stem}",
        "corpus": "esd",
        "audio": str(file),
        "text": " ".join(words.split()),
        "source_label": emotion_folder.name,
        "split": split,
        "speaker": f"esd-{speaker}",
        "gender": "male" if speaker in _MALE else "female",
        "sentence": f"esd-{language}-{int(match['number']) % SENTENCES:03d}",
        "language": language,
    }


def _remarks(rows: list[dict[str, Any]], lines: dict[str, tuple[str, str]]) -> list[str]:
    remarks = missing_notes(rows, {"text": "rows have no text: the transcripts of their speakers lack them"})
    written = {f"esd-{name}": emotion for name, (_, emotion) in lines.items()}
    different = sum(written.get(row["utterance_id"], row["source_label"]) != row["source_label"] for row in rows)
    if different:
        remarks.append(f"{different} transcript lines name another emotion than the folder, which was used")
    return remarks
