"""TESS, the Toronto emotional speech set: English, 2800 recordings, 2 actresses, 7 emotions, 200 words.

`OAF_Fear/OAF_lid_fear.wav` = speaker (OAF 64 years old, YAF 26), word, emotion; `ps` is pleasant surprise, which its
folder spells out. Every recording is "Say the word ..." with another word at its end.

**100 % is trivially reached here**: two voices in one studio, the same 200 sentences for every emotion, and with two
speakers no split has train, validation and test apart. A result on TESS says that a pipeline runs, and no more.

What is odd in the files and needs no care here, because sound is decoded by its content and at its own rate: two are
AIFF under a name in .wav (YAF_germ_angry, YAF_neat_fear), one has 96 kHz (OAF_food_fear) instead of 24,414 Hz. What
cannot be seen: some copies in circulation hold other recordings, of other lengths, under the same names.
"""

import re
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
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
    """`source`: a folder with the recordings anywhere below it, in the release's fourteen folders or in one.

    Raises:
        InputError: no recording, a name that is not TESS's, or a folder that contradicts the name of a file in it.
    """
    folder = require_folder(source, "TESS")
    # Of copies the one nearest to the top is read.
    found = sorted(folder.rglob("*.wav"), key=lambda file: (len(file.parts), file))
    files = [file for file in found if not file.name.startswith("._")]
    if not files:
        raise InputError(f"{folder}: no TESS recording (like OAF_lid_fear.wav) in it or below it.")
    rows, skipped = {}, [Skipped(str(file), "macOS wrote it beside a recording") for file in set(found) - set(files)]
    for file in files:
        row = _row(file)
        # The download that most people have holds the fourteen folders twice, one in the other.
        first = rows.setdefault(row["utterance_id"], row)
        if first is not row:
            skipped.append(_copy(file, Path(first["audio"])))
    return Corpus(pd.DataFrame([rows[name] for name in sorted(rows)]), sorted(skipped))


def _copy(file: Path, first: Path) -> Skipped:
    same = file.stat().st_size == first.stat().st_size
    kind = "a copy" if same else "a namesake, of another size,"
    return Skipped(str(file), f"{kind} of a recording in another folder")


def _row(file: Path) -> dict:
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
    """The release says speaker and emotion twice, in the folder's name and in the file's."""
    folder = _FOLDER.fullmatch(file.parent.name)
    if folder and (folder["speaker"].upper(), _FOLDER_WORDS[folder["emotion"].lower()]) != (speaker, emotion):
        raise InputError(f"{file}: folder and file name contradict each other; put the recording where it belongs.")
