"""RAVDESS, speech part: English, 1440 recordings, 24 actors, 8 emotions, two sentences.

`Actor_18/03-01-05-01-02-01-18.wav` = modality-channel-emotion-intensity-statement-repetition-actor.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, require_folder
from merhan.data.labels import map_label
from merhan.errors import InputError


LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "joy",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}

ABOUT = About(
    "RAVDESS, speech part",
    "CC BY-NC-SA 4.0",
    "Livingstone and Russo 2018, The Ryerson audio-visual database of emotional speech and song (RAVDESS), PLoS ONE "
    "13(5):e0196391",
    {"01": 96} | dict.fromkeys(("02", "03", "04", "05", "06", "07", "08"), 192),
)

SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}


def read(source: str | Path | None) -> Corpus:
    """List the recordings.

    Args:
        source: a folder with the audio-only speech files (03-01-*.wav or .flac) anywhere below it.

    Raises:
        InputError: no recording, or a file name that does not have seven fields.
    """
    folder = require_folder(source, "RAVDESS")
    files: dict[str, Path] = {}
    skipped = []
    for file in sorted(folder.rglob("03-01-*")):
        if file.suffix not in (".wav", ".flac"):
            continue
        # Some archives contain every file a second time in a nested folder.
        if file.stem in files:
            skipped.append(Skipped(str(file), "a copy of a recording in another folder"))
        else:
            files[file.stem] = file
    if not files:
        raise InputError(f"{folder}: no RAVDESS speech recording (like 03-01-05-01-02-01-18.wav) in it or below it.")
    return Corpus(pd.DataFrame([_row(files[name]) for name in sorted(files)]), skipped)


def _row(file: Path) -> dict[str, Any]:
    fields = file.stem.split("-")
    if len(fields) != 7:
        raise InputError(f"{file}: a RAVDESS name has seven numbers, like 03-01-05-01-02-01-18; rename or remove it.")
    _, _, emotion, _, statement, _, actor = fields
    return {
        "utterance_id": f"ravdess-{file.stem}",
        "corpus": "ravdess",
        "audio": str(file),
        "text": map_label(statement, SENTENCES, str(file)),
        "source_label": emotion,
        "speaker": f"ravdess-{actor}",
        "gender": "male" if int(actor) % 2 else "female",
        "sentence": f"ravdess-{statement}",
        "language": "en",
    }
