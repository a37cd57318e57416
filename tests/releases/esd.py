"""A synthetic ESD with the folders, numbers, encodings and malformed lines of the release."""

import os
from pathlib import Path

import numpy as np
import soundfile


EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
CHINESE = ("中立", "生气", "快乐", "伤心", "惊喜")
# Speaker -> encoding of the transcript (None: no transcript), and whether the folders have split folders.
SPEAKERS = {
    "0001": ("gbk", False),
    "0003": ("utf-16", True),
    "0004": ("utf-8", True),
    "0011": ("ascii", False),
    "0012": ("utf-16", True),
    "0015": ("utf-8-sig", False),
    "0016": ("gbk", False),
    "0020": (None, False),
}
MALFORMED = "0015_000002\tEver so often without its label\n\n0015_000352 and with neither tabs nor label.\nSpeaker 15\n"


def sentence(speaker: str, number: int) -> str:
    """The text of a recording, the same for all speakers of a language and all emotions."""
    index = number % 350
    if speaker <= "0010":
        return f"第{index}句，天气很好。"
    return f"Sentence {index}， said the cat."


def numbers(size: int) -> list[tuple[int, str, str]]:
    """Number, emotion, and emotion in Chinese of the first sentences and the last one of each emotion."""
    indices = [*range(1, size), 350]
    return [(350 * block + index, EMOTIONS[block], CHINESE[block]) for block in range(5) for index in indices]


def make(folder: Path, size: int = 6) -> Path:
    """Write `size` sentences per speaker and emotion."""
    folder.mkdir(parents=True)
    first = folder.parent / "noise.wav"
    soundfile.write(first, np.random.default_rng(0).normal(0, 0.1, 1600), 16_000)
    for speaker, (encoding, nested) in SPEAKERS.items():
        for number, emotion, _ in numbers(size):
            split = ""
            if nested:
                split = ("evaluation", "test", "train", "train")[number % 4]
            path = folder / speaker / emotion / split / f"{speaker}_{number:06d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(first, path)
        if encoding:
            _transcript(folder / speaker / f"{speaker}.txt", speaker, encoding, size)
    (folder / "0001" / "Angry" / "._0001_000351.wav").write_bytes(b"\0")
    (folder / "ReadMe.txt").write_text("The ESD database\n")
    return folder


def _transcript(path: Path, speaker: str, encoding: str, size: int):
    lines = [
        f"{speaker}_{number:06d}\t{sentence(speaker, number)}\t{chinese if speaker <= '0010' else emotion}"
        for number, emotion, chinese in numbers(size)
    ]
    if speaker == "0015":
        lines = [line for line in lines if line[:11] not in ("0015_000002", "0015_000352")]
        lines[3] = lines[3].replace("\t", " ")  # a space before the label
        lines[4] = lines[4].replace("\tNeutral", "\tSad")  # the folder is Neutral
    text = "\r\n".join(lines) + "\r\n"
    if speaker == "0015":
        text += MALFORMED
    if encoding == "ascii":
        text = text.replace("，", ",")
    path.write_bytes(text.encode(encoding))
