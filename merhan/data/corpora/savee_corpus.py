"""SAVEE, Surrey audio-visual expressed emotion: British English, 480 recordings, 4 men, 7 emotions, 44.1 kHz.

Two layouts are in circulation: `ALL/DC_a01.wav` and the original `AudioData/DC/a01.wav`, with a speaker (DC, JE, JK,
KL), an emotion (a, d, f, h, n, sa, su) and the number of a sentence.

The sentences are from TIMIT. Neither archive has their texts, so rows have audio only. Of the 15 sentences of an
emotion, 3 are common to all emotions and 12 are specific (2 of them are also said as neutral), so that a transcript
would determine the emotion. `sentence` is the same for the four speakers of `a01`. It does not identify `a01` with the
same sentence among the common and neutral ones, because no file says which those are.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, recordings_below, require_folder
from merhan.errors import InputError


LABELS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "joy",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}

ABOUT = About(
    "SAVEE, Surrey audio-visual expressed emotion database",
    "for research, on registration with the University of Surrey",
    "Haq and Jackson 2010, Multimodal emotion recognition, in Wang (ed.), Machine Audition: Principles, Algorithms "
    "and Systems, IGI Global",
    {"a": 60, "d": 60, "f": 60, "h": 60, "n": 120, "sa": 60, "su": 60},
)

_SPEAKERS = ("DC", "JE", "JK", "KL")

_NAME = re.compile(rf"(?:(?P<speaker>{'|'.join(_SPEAKERS)})_)?(?P<emotion>[a-z]{{1,2}})(?P<sentence>\d\d)")


def read(source: str | Path | None) -> Corpus:
    """List the recordings.

    Args:
        source: a folder with the recordings anywhere below it, in either layout.

    Raises:
        InputError: no recording, or one whose path does not contain speaker, emotion and sentence.
    """
    folder = require_folder(source, "SAVEE")
    files, skipped = recordings_below(folder)
    if not files:
        raise InputError(f"{folder}: no SAVEE recording (like DC_a01.wav or DC/a01.wav) in it or below it.")
    rows: dict[str, dict[str, Any]] = {}
    for file in files:
        row = _row(file)
        if row["utterance_id"] in rows:
            skipped.append(Skipped(str(file), "a copy of a recording in another folder"))
        else:
            rows[row["utterance_id"]] = row
    remark = "no row has text: the sentences are from TIMIT, and the archive does not contain their texts"
    return Corpus(pd.DataFrame([rows[name] for name in sorted(rows)]), sorted(skipped), [remark])


def _row(file: Path) -> dict[str, Any]:
    match = _NAME.fullmatch(file.stem)
    speaker = match and (match["speaker"] or file.parent.name)
    if not match or speaker not in _SPEAKERS:
        raise InputError(
            f"{file}: a SAVEE recording is speaker, emotion and sentence, like DC_a01.wav or DC/a01.wav, with the "
            f"speakers {', '.join(_SPEAKERS)}; rename or remove it."
        )
    code = f"{match['emotion']}{match['sentence']}"
    return {
        "utterance_id": f"savee-{speaker}_{code}",
        "corpus": "savee",
        "audio": str(file),
        "text": "",
        "source_label": match["emotion"],
        "speaker": f"savee-{speaker}",
        "gender": "male",
        "sentence": f"savee-{code}",
        "language": "en",
    }
