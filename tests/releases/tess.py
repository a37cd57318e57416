"""TESS as it lies on people's disks: the fourteen folders, and the same again in a folder inside."""

from collections.abc import Sequence
from pathlib import Path

from releases import tiny_sounds


NAME = "TESS Toronto emotional speech set data"
FOLDERS = {
    "OAF_angry": "angry",
    "OAF_disgust": "disgust",
    "OAF_Fear": "fear",
    "OAF_happy": "happy",
    "OAF_neutral": "neutral",
    "OAF_Pleasant_surprise": "ps",
    "OAF_Sad": "sad",
    "YAF_angry": "angry",
    "YAF_disgust": "disgust",
    "YAF_fear": "fear",
    "YAF_happy": "happy",
    "YAF_neutral": "neutral",
    "YAF_pleasant_surprised": "ps",
    "YAF_sad": "sad",
}


def make(folder: Path, words: Sequence[str] = ("bite", "food", "germ", "neat"), nested: bool = True) -> Path:
    """Lay out a release of the given words, twice if `nested`; returns its folder.

    The words by default are those of the odd files: OA_bite_neutral, an AIFF file named .wav (two of them), 96 kHz.
    """
    root = folder / NAME
    copies = [root, root / NAME] if nested else [root]
    names = [
        Path(group, f"{'OA' if (group, word) == ('OAF_neutral', 'bite') else group[:3]}_{word}_{emotion}.wav")
        for group, emotion in FOLDERS.items()
        for word in words
    ]
    tiny_sounds.write_all([copy / name for copy in copies for name in names], rate=24_414)
    for copy in copies:
        for name in names:
            if name.name in ("YAF_germ_angry.wav", "YAF_neat_fear.wav"):
                tiny_sounds.write(copy / name, 24_414, format="AIFF")
            elif name.name == "OAF_food_fear.wav":
                tiny_sounds.write(copy / name, 96_000)
    return root
