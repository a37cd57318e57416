"""SAVEE, Surrey audio-visual expressed emotion: British English, 480 recordings, 4 men, 7 emotions, 44.1 kHz.

Two layouts are in circulation: `ALL/DC_a01.wav` and the original `AudioData/DC/a01.wav`, with a speaker (DC, JE, JK,
KL), an emotion (a, d, f, h, n, sa, su) and the number of a sentence.

The sentences are TIMIT's. Their words are in neither archive, so rows have sound alone. Of the 15 sentences of an
emotion 3 are common to all and 12 are its own (2 of them are said again as neutral): a transcript would tell the
emotion. `sentence` joins the four speakers who say `a01`; it does not join `a01` with its equals among the common and
the neutral ones, because no file says which those are.
"""

import re
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
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
    """`source`: a folder with the recordings anywhere below it, in either layout.

    Raises:
        InputError: no recording, or one whose speaker, emotion or sentence its path does not tell.
    """
    folder = require_folder(source, "SAVEE")
    # Of copies the one nearest to the top is read.
    found = sorted(folder.rglob("*.wav"), key=lambda file: (len(file.parts), file))
    files = [file for file in found if not file.name.startswith("._")]
    if not files:
        raise InputError(f"{folder}: no SAVEE recording (like DC_a01.wav or DC/a01.wav) in it or below it.")
    rows, skipped = {}, [Skipped(str(file), "macOS wrote it beside a recording") for file in set(found) - set(files)]
    for file in files:
        row = _row(file)
        if rows.setdefault(row["utterance_id"], row) is not row:
            skipped.append(Skipped(str(file), "a copy of a recording in another folder"))
    remark = "no row has text: the sentences are TIMIT's, and their words are not in the archive"
    return Corpus(pd.DataFrame([rows[name] for name in sorted(rows)]), sorted(skipped), [remark])


def _row(file: Path) -> dict:
    match = _NAME.fullmatch(file.stem)
    speaker = match and (match["speaker"] or file.parent.name)
    if speaker not in _SPEAKERS:
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
