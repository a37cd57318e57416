"""RAVDESS, speech part: English, 1440 recordings, 24 actors, 8 emotions, two sentences.

Livingstone and Russo 2018, PLoS ONE 13(5):e0196391, CC BY-NC-SA 4.0.
`Actor_18/03-01-05-01-02-01-18.wav` = modality-channel-emotion-intensity-statement-repetition-actor.
"""

from pathlib import Path

import pandas as pd

from merhan.corpora import Corpus, require_folder
from merhan.emotions import map_label
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
SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}


def read(source: str | Path | None) -> Corpus:
    """`source`: a folder with the audio-only speech files (03-01-*.wav or .flac) anywhere below it."""
    folder = require_folder(source, "RAVDESS")
    found = sorted(file for file in folder.rglob("03-01-*") if file.suffix in (".wav", ".flac"))
    # Some archives hold every file twice, in a nested folder (corpora.md, d3).
    files = {file.stem: file for file in reversed(found)}
    if not files:
        raise InputError(f"{folder}: no RAVDESS speech recording (like 03-01-05-01-02-01-18.wav) in it or below it.")
    copies = len(found) - len(files)
    notes = [f"{copies} files left out: copies of a recording in another folder"] if copies else []
    return Corpus(pd.DataFrame([_row(files[name]) for name in sorted(files)]), notes)


def _row(file: Path) -> dict:
    fields = file.stem.split("-")
    if len(fields) != 7:
        raise InputError(f"{file}: a RAVDESS name has seven numbers, like 03-01-05-01-02-01-18; rename or remove it.")
    _, _, emotion, _, statement, _, actor = fields
    return {
        "utterance_id": f"ravdess-{file.stem}",
        "corpus": "ravdess",
        "audio": str(file),
        "text": map_label(statement, SENTENCES, str(file)),
        "label": map_label(emotion, LABELS, str(file)),
        "source_label": emotion,
        "speaker": f"ravdess-{actor}",
        "gender": "male" if int(actor) % 2 else "female",
        "language": "en",
    }
