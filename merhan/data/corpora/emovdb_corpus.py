"""EmoV-DB, the emotional voices database: English, about 6890 recordings, 4 speakers, 5 emotions.

`bea_Angry/anger_1-28_0011.wav` (in the sorted release `bea/Angry/`): the last four digits are a sentence of set A of
CMU Arctic. The texts are in `cmuarctic.data`, which is not part of the release; http://www.festvox.org/cmu_arctic/ has
it. Set B in that file has the same numbers for other sentences. Laughter, yawns and similar sounds were not removed.

A few recordings contain a second wav header within their samples. It is audible as a click, and a decoder cannot
detect it.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, missing_notes, read_text, require_folder
from merhan.errors import InputError


LABELS = {
    "Amused": "amusement",
    "Angry": "anger",
    "Disgusted": "disgust",
    "Neutral": "neutral",
    "Sleepy": "sleepiness",
}

# Counted by EmoBox (emo-box/EmoBox) on the release of OpenSLR; others count 6893.
ABOUT = About(
    "EmoV-DB, the emotional voices database",
    "non-commercial purposes only (the authors' own licence)",
    "Adigwe, Tits, El Haddad, Ostadabbas, Dutoit 2018, The emotional voices database: towards controlling the "
    "emotion dimension in voice generation systems, arXiv:1806.09514",
    {"Sleepy": 1720, "Neutral": 1566, "Amused": 1315, "Angry": 1267, "Disgusted": 1019},
)

GENDERS = {"bea": "female", "jenie": "female", "josh": "male", "sam": "male"}

_FOLDER = re.compile(rf"(?:.*/)?(?P<speaker>{'|'.join(GENDERS)})[_/](?P<emotion>[A-Za-z]+)")

# `anger_1-28_0011`, `Disgust_1-28_0011`, `amused_1_28_0011`
_NAME = re.compile(r"[A-Za-z]+_\d+[-_]\d+_(?P<number>\d{4})")

_PROMPT = re.compile(r'\(\s*arctic_a(?P<number>\d{4})\s+"(?P<words>.*)"\s*\)')


def read(source: str | Path | None, arctic: str | Path | None = None) -> Corpus:
    """List the recordings.

    Args:
        source: the folder of the release.
        arctic: the file `cmuarctic.data`, by default the one below `source`. Without it rows have no text.

    Raises:
        InputError: no recording; `arctic` does not exist, or has a line that cannot be parsed.
    """
    folder = require_folder(source, "EmoV-DB")
    prompts = _prompts(_prompt_file(folder, arctic))
    rows, skipped = [], []
    for file in sorted(folder.rglob("*.wav")):
        place, name = _FOLDER.fullmatch(file.parent.absolute().as_posix()), _NAME.fullmatch(file.stem)
        if not place:
            skipped.append(Skipped(str(file), "its folder is not an EmoV-DB folder"))
        elif not name:
            skipped.append(Skipped(str(file), "its name is not an EmoV-DB name"))
        else:
            rows.append(_row(file, place["speaker"], place["emotion"], name["number"], prompts))
    if not rows:
        raise InputError(f"{folder}: no EmoV-DB recording (like bea_Angry/anger_1-28_0011.wav) in it or below it.")
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, prompts))


def _prompt_file(folder: Path, arctic: str | Path | None) -> Path | None:
    if arctic is None:
        return next(iter(sorted(folder.rglob("cmuarctic.data"))), None)
    if not Path(arctic).is_file():
        raise InputError(
            f"data.options.arctic (`--option arctic=...`): {str(arctic)!r} is not a file; give the path of "
            f"cmuarctic.data."
        )
    return Path(arctic)


def _prompts(file: Path | None) -> dict[str, str]:
    """Number -> text of the sentences of set A; empty without a file."""
    if file is None:
        return {}
    prompts = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        match = _PROMPT.fullmatch(line.strip())
        if match:
            prompts[match["number"]] = " ".join(match["words"].split())
        elif "arctic_b" not in line and line.strip():
            raise InputError(f'{file}, line {number}: is not like ( arctic_a0001 "words" ); correct or remove it.')
    return prompts


def _row(file: Path, speaker: str, emotion: str, number: str, prompts: dict[str, str]) -> dict[str, Any]:
    return {
        # The whole file name, because a folder may contain a sentence more than once.
        "utterance_id": f"emovdb-{speaker}-{emotion}-{file.stem}",
        "corpus": "emovdb",
        "audio": str(file),
        "text": prompts.get(number, ""),
        "source_label": emotion,
        "speaker": f"emovdb-{speaker}",
        "gender": GENDERS[speaker],
        "sentence": f"emovdb-a{number}",
        "language": "en",
    }


def _remarks(rows: list[dict[str, Any]], prompts: dict[str, str]) -> list[str]:
    if prompts:
        return missing_notes(rows, {"text": "rows have no text: cmuarctic.data lacks their sentences"})
    return [
        f"none of {len(rows)} rows has text: cmuarctic.data is not below the folder; give its path with "
        f"data.options.arctic (`--option arctic=...`)"
    ]
