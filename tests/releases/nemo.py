"""A synthetic nEMO in the layout of GitHub: `data.tsv`, unsorted and with spaces before the speaker, and `samples/`."""

import random
from pathlib import Path

from releases import tiny_sounds


HEADER = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"
SPEAKERS = {"SM0": ("male", 24), "EB0": ("female", 27), "MP0": ("male", 24)}
EMOTIONS = ("anger", "fear", "happiness", "neutral", "sadness", "surprised")
SENTENCES = {
    2: "Nie waśńmy się ze sobą.",
    38: "„Ród smoka” to serial telewizyjny.",
    # An unbalanced quotation mark: a reader of quoted CSV would lose the following lines.
    46: '"Żołwica to dawne określenie na siostrę męża.',
}


def make(folder: Path) -> Path:
    """Write three actors, six emotions and three sentences, of which MP0 lacks one.

    One line has no file, and one file has no line.
    """
    lines = [
        f"{speaker}_{emotion}_{number}.wav\t{emotion}\t{text}\t{text.lower()}\t        {speaker}\t{gender}\t{age}"
        for speaker, (gender, age) in SPEAKERS.items()
        for emotion in EMOTIONS
        for number, text in SENTENCES.items()
        if (speaker, number) != ("MP0", 46)
    ]
    random.Random(0).shuffle(lines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.tsv").write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
    names = {line.split("\t")[0] for line in lines} - {"SM0_fear_2.wav"} | {"SM0_fear_99.wav"}
    tiny_sounds.write_all([folder / "samples" / name for name in sorted(names)], rate=24_000)
    return folder
