"""Recordings in folders that are named after labels."""

from pathlib import Path

from releases import tiny_sounds


NAMES = (
    "joy/anna_01.wav",
    "joy/ben_02.WAV",
    "anger/sub/anna_03.flac",
)


def make(folder: Path, splits: bool = False) -> Path:
    """Write `<label>/...` with three recordings, or the same below `Train` and `dev`; the first has a transcript."""
    tops = ["Train", "dev"] if splits else [""]
    for split in tops:
        for name in NAMES:
            tiny_sounds.write(folder / split / name)
        (folder / split / "joy" / "anna_01.txt").write_text("I am\n glad.\n", encoding="utf-8-sig")
    return folder
