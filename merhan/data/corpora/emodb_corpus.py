"""EMO-DB, the Berlin Database of Emotional Speech: German, 535 recordings, 10 actors, 7 emotions, 10 sentences.

`wav/03a01Fa.wav` = speaker 03, sentence a01, emotion F, take a.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, require_folder
from merhan.errors import InputError


# Initials of the German words: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral.
LABELS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "joy",
    "T": "sadness",
    "N": "neutral",
}

ABOUT = About(
    "EMO-DB, the Berlin Database of Emotional Speech",
    "free, usage unrestricted",
    "Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss 2005, A database of German emotional speech, Interspeech",
    {"W": 127, "L": 81, "N": 79, "F": 71, "A": 69, "T": 62, "E": 46},
)

SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

_MALE = {"03", "10", "11", "12", "15"}

_NAME = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])(?P<take>[a-z])")


def read(source: str | Path | None) -> Corpus:
    """List the recordings.

    Args:
        source: the folder of the release, with the recordings anywhere below it.

    Raises:
        InputError: there is no recording.
    """
    folder = require_folder(source, "EMO-DB")
    rows, skipped = [], []
    for file in sorted(folder.rglob("*.wav")):
        match = _NAME.fullmatch(file.stem)
        if match:
            rows.append(_row(file, match))
        else:
            skipped.append(Skipped(file.name, "its name is not an EMO-DB name"))
    if not rows:
        raise InputError(f"{folder}: no EMO-DB recording (like 03a01Fa.wav) in it or below it.")
    return Corpus(pd.DataFrame(rows), skipped)


def _row(file: Path, match: re.Match[str]) -> dict[str, Any]:
    return {
        "utterance_id": f"emodb-{file.stem}",
        "corpus": "emodb",
        "audio": str(file),
        "text": SENTENCES[match["sentence"]],
        "source_label": match["emotion"],
        "speaker": f"emodb-{match['speaker']}",
        "gender": "male" if match["speaker"] in _MALE else "female",
        "sentence": f"emodb-{match['sentence']}",
        "language": "de",
    }
