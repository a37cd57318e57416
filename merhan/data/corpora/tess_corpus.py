"""TESS, the Toronto emotional speech set: English, 2800 recordings, 2 actresses, 7 emotions, 200 words.

`OAF_Fear/OAF_lid_fear.wav` = speaker (OAF 64 years old, YAF 26), word, emotion; `ps` is pleasant surprise, written out
in the name of its folder. Every recording is "Say the word ..." with another last word.

**An accuracy of 100 % is trivial on this corpus**: two voices in one studio, the same 200 sentences for every emotion,
and with two speakers no speaker-independent train, validation and test. A result on TESS only shows that a pipeline
runs.

Irregular files that need no special treatment, because audio is decoded by its content and at its own rate: two are
AIFF in spite of their suffix .wav (YAF_germ_angry, YAF_neat_fear), and one has 96 kHz (OAF_food_fear) instead of 24,414
Hz. Some copies in circulation contain other recordings of other lengths under the same names, which cannot be detected.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, recordings_below, require_folder
from merhan.errors import InputError


LABELS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "joy",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sadness",
}

ABOUT = About(
    "TESS, the Toronto emotional speech set",
    "CC BY-NC-ND 4.0",
    "Pichora-Fuller and Dupuis 2020, Toronto emotional speech set (TESS), Borealis, doi:10.5683/SP2/E8H2MF",
    dict.fromkeys(LABELS, 400),
)

_TYPOS = {"OA_bite_neutral": "OAF_bite_neutral"}

_FOLDER_WORDS = {word: word for word in LABELS} | {"pleasant_surprise": "ps", "pleasant_surprised": "ps"}

_NAME = re.compile(r"(?P<speaker>OAF|YAF)_(?P<word>[^_]+)_(?P<emotion>[^_]+)")

_FOLDER = re.compile(rf"(?P<speaker>OAF|YAF)_(?P<emotion>{'|'.join(_FOLDER_WORDS)})", re.IGNORECASE)


def read(source: str | Path | None) -> Corpus:
    """List the recordings.

    Args:
        source: a folder with the recordings anywhere below it, in the release's fourteen folders or in one.

    Raises:
        InputError: no recording, a name that is not a TESS name, or a folder that contradicts the name of a file in it.
    """
    folder = require_folder(source, "TESS")
    files, skipped = recordings_below(folder)
    if not files:
        raise InputError(f"{folder}: no TESS recording (like OAF_lid_fear.wav) in it or below it.")
    rows: dict[str, dict[str, Any]] = {}
    for file in files:
        row = _row(file)
        name = row["utterance_id"]
        # The most common download contains the fourteen folders twice, one in the other.
        if name in rows:
            skipped.append(_copy(file, Path(rows[name]["audio"])))
        else:
            rows[name] = row
    return Corpus(pd.DataFrame([rows[name] for name in sorted(rows)]), sorted(skipped))


def _copy(file: Path, first: Path) -> Skipped:
    if file.stat().st_size == first.stat().st_size:
        return Skipped(str(file), "a copy of a recording in another folder")
    return Skipped(str(file), "has the name of a recording in another folder, but another size")


def _row(file: Path) -> dict[str, Any]:
    match = _NAME.fullmatch(_TYPOS.get(file.stem, file.stem))
    if not match:
        raise InputError(f"{file}: a TESS name is speaker, word and emotion, like OAF_lid_fear; rename or remove it.")
    speaker, word, emotion = match.groups()
    _require_agreement(file, speaker, emotion)
    return {
        "utterance_id": f"tess-{speaker}_{word}_{emotion}",
        "corpus": "tess",
        "audio": str(file),
        "text": f"Say the word {word}.",
        "source_label": emotion,
        "speaker": f"tess-{speaker}",
        "gender": "female",
        "sentence": f"tess-{word}",
        "language": "en",
    }


def _require_agreement(file: Path, speaker: str, emotion: str):
    """Check speaker and emotion of the file name against those of the folder name, if it has any."""
    folder = _FOLDER.fullmatch(file.parent.name)
    if folder and (folder["speaker"].upper(), _FOLDER_WORDS[folder["emotion"].lower()]) != (speaker, emotion):
        raise InputError(f"{file}: folder and file name contradict each other; move the recording to its folder.")
