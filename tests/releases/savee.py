"""A synthetic SAVEE in the two layouts that are in circulation."""

from pathlib import Path

from releases import tiny_sounds


SENTENCES = {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}


def make(folder: Path, layout: str = "original") -> Path:
    """Write all 480 recordings, as `AudioData/DC/a01.wav` (original) or as `ALL/DC_a01.wav` (flat)."""
    names = [
        (speaker, f"{emotion}{number:02d}.wav")
        for speaker in ("DC", "JE", "JK", "KL")
        for emotion, count in SENTENCES.items()
        for number in range(1, count + 1)
    ]
    if layout == "flat":
        paths = [folder / "ALL" / f"{speaker}_{name}" for speaker, name in names]
    else:
        paths = [folder / "AudioData" / speaker / name for speaker, name in names]
    tiny_sounds.write_all(paths, rate=44_100)
    return folder
