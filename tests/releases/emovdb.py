"""A synthetic EmoV-DB with the folders and irregular names of the release; the audio is noise."""

import os
from pathlib import Path

import numpy as np
import soundfile


# Folder -> patterns of its file names; `{}` is the number. The release has the same irregular names.
FOLDERS = {
    "bea_Amused": ["amused_1-15_{}", "amused_1_15_{}"],
    "bea_Angry": ["anger_1-28_{}"],
    "bea_Disgusted": ["disgust_1-28_{}"],
    "bea_Neutral": ["Neutral_1-28_{}", "neutral_1-28_{}"],
    "bea_Sleepy": ["sleepiness_1-28_{}"],
    "jenie_Amused": ["amused_57-84_{}"],
    "jenie_Neutral": ["neutral_1-28_{}"],
    "josh_Amused": ["amused_1_28_{}"],
    "josh_Neutral": ["neutral_1-28_{}"],
    "josh_Sleepy": ["sleepiness_1_28_{}"],
    "sam_Angry": ["anger_1_28_{}"],
    "sam_Disgusted": ["Disgust_1-28_{}", "disgust_29-56_{}", "Disgust_1_28_{}"],
}
NUMBERS = (1, 11, 560)
ARCTIC = """( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )
( arctic_a0011 "The eleventh sentence of set A says \\"so\\"." )
( arctic_a0560 "The last one that is spoken." )
( arctic_a0593 "The last one of set A." )
( arctic_b0001 "The first one of set B." )
( arctic_b0011 "The eleventh one of set B." )
( arctic_b0539 "The last one of set B." )
"""


def make(folder: Path) -> Path:
    """Write three sentences per folder and pattern; those of sam have 44.1 kHz, and one of them two headers."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 1600)
    for rate in (16_000, 44_100):
        soundfile.write(folder.parent / f"{rate}.wav", noise, rate)
    for name, patterns in FOLDERS.items():
        (folder / name).mkdir()
        for pattern in patterns:
            for number in NUMBERS:
                rate = 44_100 if name.startswith("sam") else 16_000
                os.link(folder.parent / f"{rate}.wav", folder / name / f"{pattern.format(f'{number:04d}')}.wav")
    double = folder / "sam_Angry" / "anger_1_28_0560.wav"
    double.unlink()
    content = (folder.parent / "44100.wav").read_bytes()
    double.write_bytes(content[:36] + b"data" + (len(content)).to_bytes(4, "little") + content)
    (folder / "bea_Angry" / "._anger_1-28_0011.wav").write_bytes(b"\0")
    (folder / "bea_Angry" / "anger.wav").write_bytes(b"\0")
    (folder / "samples").mkdir()
    os.link(folder.parent / "16000.wav", folder / "samples" / "anger_1-28_0011.wav")
    (folder / "cmuarctic.data").write_text(ARCTIC)
    return folder
