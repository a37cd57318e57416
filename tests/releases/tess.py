"""A synthetic TESS as it is in circulation: fourteen folders, and a nested copy of them."""

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
    """Write a release and return its folder.

    Args:
        folder: where to write.
        words: the words that are said. By default they include those of the irregular files: OA_bite_neutral, two
            AIFF files named .wav, and one with 96 kHz.
        nested: whether it contains a second copy of itself.
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
