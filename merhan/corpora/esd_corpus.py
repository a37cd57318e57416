"""ESD, the emotional speech dataset: 35,000 recordings, 10 Mandarin and 10 English speakers, 5 emotions.

`0011/Angry/0011_000351.wav`, in some releases `0011/Angry/train/0011_000351.wav`, with `train`, `evaluation`, `test`.
The 350 sentences of a language are spoken by each of its speakers in each emotion, and share their number modulo 350:
a split by speakers alone has every sentence on both sides, and the release's own has every speaker on both sides.

`0011/0011.txt` has a line per recording: number, words, emotion, between tabs. The emotion is taken from the folder.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.errors import InputError


LABELS = {"Neutral": "neutral", "Angry": "anger", "Happy": "joy", "Sad": "sadness", "Surprise": "surprise"}
ABOUT = About(
    "ESD, the emotional speech dataset",
    "research purposes only, after a signed licence",
    "Zhou, Sisman, Liu, Li 2022, Emotional voice conversion: theory, databases and ESD, Speech Communication 137",
    dict.fromkeys(LABELS, 7000),
)
SENTENCES = 350  # of a language
# A transcript's word -> the folder's.
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
# Some lines have blanks in place of the tabs (HLTSingapore/Emotional-Speech-Data#1).
_LINE = re.compile(r"(?P<name>\d{4}_\d{6})\s+(?P<words>\S.*?)\s+(?P<emotion>\S+)")


def read(source: str | Path | None) -> Corpus:
    """`source`: the folder of the release, with the speakers' folders anywhere below it."""
    folder = require_folder(source, "ESD")
    files = {file: _NAME.fullmatch(file.stem) for file in sorted(folder.rglob("*.wav"))}
    named = {file: match for file, match in files.items() if match}
    if not named:
        raise InputError(f"{folder}: no ESD recording (like 0011/Angry/0011_000351.wav) in it or below it.")
    skipped = [Skipped(file.name, "its name is not ESD's") for file, match in files.items() if not match]
    lines, broken = _transcripts(folder, {match["speaker"] for match in named.values()})
    rows = [_row(file, match, lines) for file, match in named.items()]
    return Corpus(pd.DataFrame(rows), [*skipped, *broken], _remarks(rows, lines))


def decode(path: Path) -> str:
    """A transcript's text: encodings differ from speaker to speaker, and some English ones are in GBK too.

    GBK comes last: nearly any bytes pass for it. UTF-16 is known by its byte order mark.
    """
    content = path.read_bytes()
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "gbk"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path}: is not UTF-8, UTF-16 with a byte order mark, or GBK; write it again as UTF-8.")


def _transcripts(folder: Path, speakers: Iterable[str]) -> tuple[dict[str, tuple[str, str]], list[Skipped]]:
    """Recording -> its words and its emotion's folder; and the lines that cannot be read."""
    found = {file.stem: file for file in sorted(folder.rglob("*.txt"), reverse=True)}
    lines, broken = {}, []
    for file in (found[speaker] for speaker in sorted(speakers) if speaker in found):
        for number, line in enumerate(decode(file).splitlines(), start=1):
            match = _LINE.fullmatch(line.strip())
            # Without a known emotion at its end nobody knows where the words end, and a label could pass as a word.
            if match and match["emotion"] in _WRITTEN:
                lines[match["name"]] = match["words"], _WRITTEN[match["emotion"]]
            elif line.strip():
                broken.append(
                    Skipped(f"{file.name}, line {number}", "a transcript line without number, words, emotion")
                )
    return lines, broken


def _row(file: Path, match: re.Match, lines: dict[str, tuple[str, str]]) -> dict:
    speaker, split = match["speaker"], _SPLITS.get(file.parent.name, "")
    language = "zh" if speaker <= "0010" else "en"
    words, _ = lines.get(file.stem, ("", ""))
    return {
        "utterance_id": f"esd-{file.stem}",
        "corpus": "esd",
        "audio": str(file),
        # English lines hold Chinese commas of full width here and there.
        "text": " ".join((unicodedata.normalize("NFKC", words) if language == "en" else words).split()),
        "source_label": file.parents[1 if split else 0].name,
        "split": split,
        "speaker": f"esd-{speaker}",
        "gender": "male" if speaker in _MALE else "female",
        "sentence": f"esd-{language}-{int(match['number']) % SENTENCES:03d}",
        "language": language,
    }


def _remarks(rows: list[dict], lines: dict[str, tuple[str, str]]) -> list[str]:
    silent = sum(not row["text"] for row in rows)
    written = {f"esd-{name}": emotion for name, (_, emotion) in lines.items()}
    other = sum(written.get(row["utterance_id"], row["source_label"]) != row["source_label"] for row in rows)
    found = {
        f"{silent} of {len(rows)} rows have no text: their speakers' transcripts do not have them": silent,
        f"{other} transcript lines name another emotion than the folder; the folder's was taken": other,
    }
    return [remark for remark, count in found.items() if count]
