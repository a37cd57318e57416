"""EmoV-DB, the emotional voices database: English, about 6890 recordings, 4 speakers, 5 emotions.

`bea_Angry/anger_1-28_0011.wav` (in the sorted release `bea/Angry/`): the last four digits are a sentence of set A of
CMU Arctic. The words are in `cmuarctic.data`, which is no part of the release: http://www.festvox.org/cmu_arctic/ has
it. Set B of that file has the same numbers for other sentences. Laughter, yawns and the like were left in the sound.

A few recordings hold a second wav header within their sound, which is heard as a click; a decoder cannot tell.
"""

import re
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
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
    """`source`: the folder of the release; `arctic`: `cmuarctic.data`, by default the one below `source`, if any."""
    folder = require_folder(source, "EmoV-DB")
    rows, skipped = [], []
    prompts = _prompts(folder, arctic)
    for file in sorted(folder.rglob("*.wav")):
        place, name = _FOLDER.fullmatch(file.parent.absolute().as_posix()), _NAME.fullmatch(file.stem)
        if not place:
            skipped.append(Skipped(str(file), "its folder is not EmoV-DB's"))
        elif not name:
            skipped.append(Skipped(str(file), "its name is not EmoV-DB's"))
        else:
            rows.append(_row(file, place["speaker"], place["emotion"], name["number"], prompts))
    if not rows:
        raise InputError(f"{folder}: no EmoV-DB recording (like bea_Angry/anger_1-28_0011.wav) in it or below it.")
    return Corpus(pd.DataFrame(rows), skipped, _remarks(rows, prompts))


def _prompts(folder: Path, arctic: str | Path | None) -> dict[str, str]:
    """Number -> words of set A; nothing where there is no `cmuarctic.data`."""
    if arctic is not None and not Path(arctic).is_file():
        raise InputError(f"data.options.arctic: {str(arctic)!r} is no file; give the path of cmuarctic.data.")
    file = arctic or next(iter(sorted(folder.rglob("cmuarctic.data"))), None)
    prompts = {}
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines() if file else [], start=1):
        match = _PROMPT.fullmatch(line.strip())
        if match:
            prompts[match["number"]] = " ".join(match["words"].split())
        elif "arctic_b" not in line and line.strip():
            raise InputError(f'{file}, line {number}: is not like ( arctic_a0001 "words" ); mend or remove it.')
    return prompts


def _row(file: Path, speaker: str, emotion: str, number: str, prompts: dict[str, str]) -> dict:
    return {
        # The whole name: nothing promises that a folder holds a sentence once.
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


def _remarks(rows: list[dict], prompts: dict[str, str]) -> list[str]:
    silent = sum(not row["text"] for row in rows)
    if not prompts:
        return [
            f"no row of {silent} has text: cmuarctic.data is not below the folder, and data.options.arctic is unset"
        ]
    return [f"{silent} of {len(rows)} rows have no text: cmuarctic.data lacks their sentences"] if silent else []
