"""A synthetic MEAD with the folders, numbers and gaps of the release; the audio is a tone in real m4a files."""

import os
from pathlib import Path

import av
import numpy as np


EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
SPEAKERS = {"M003": 48_000, "W009": 44_100}
# Incomplete set -> its numbers. The first two were renumbered, the third was not.
INCOMPLETE = {
    ("M003", "contempt", 2): range(1, 30),
    ("W009", "neutral", 1): range(1, 37),
    ("W009", "sad", 2): [*range(1, 11), *range(15, 31)],
}


def numbers(speaker: str, emotion: str, level: int) -> list[int]:
    """The numbers of the recordings of a set."""
    return list(INCOMPLETE.get((speaker, emotion, level), range(1, 41 if emotion == "neutral" else 31)))


def make(folder: Path) -> Path:
    """Write two speakers, with 40 neutral sentences and 30 of each other emotion and level, except `INCOMPLETE`."""
    folder.mkdir(parents=True)
    for speaker, rate in SPEAKERS.items():
        first = folder.parent / f"{rate}.m4a"
        tone(first, rate)
        for emotion in EMOTIONS:
            levels = [1] if emotion == "neutral" else [1, 2, 3]
            for level in levels:
                place = folder / speaker / "audio" / emotion / f"level_{level}"
                place.mkdir(parents=True)
                for number in numbers(speaker, emotion, level):
                    os.link(first, place / f"{number:03d}.m4a")
    (folder / "M003" / "audio" / "angry" / "level_1" / "._001.m4a").write_bytes(b"\0")
    (folder / "M003" / "audio" / ".DS_Store").write_bytes(b"\0")
    video = folder / "M003" / "video" / "front" / "angry" / "level_1"
    video.mkdir(parents=True)
    (video / "001.mp4").write_bytes(b"\0")
    return folder


def tone(path: Path, rate: int):
    """Write 0.1 s of AAC, which soundfile cannot write."""
    wave = (0.1 * np.sin(2 * np.pi * 440 * np.arange(rate // 10) / rate)).astype(np.float32)
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
