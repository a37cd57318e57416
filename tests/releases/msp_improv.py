"""A synthetic MSP-IMPROV of 480 turns, with the names, the table and the irregularities of the release."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import soundfile


WORDS = {"A": "Angry", "H": "Happy", "S": "Sad", "N": "Neutral", "O": "Other", "X": "Neutral"}
ACTIVATION = {"A": 4.5, "H": 4.0, "S": 2.0}  # on the scale 1 to 5; 3 for other labels
# Turns whose label is not the intended emotion of the name.
RELABELLED = {"S02A-F03-S-FM01": "O", "S02H-M04-S-FM01": "X", "S02S-F05-S-FM01": "N"}
NO_DOMINANCE = "S01A-F01-T-FM01"
REPEATED = "S01A-F01-S-FM01"  # has two lines of the same rater
FREE_TEXT = "S01A-F01-S-MF01"
NO_AUDIO, NEITHER = "S01H-F01-T-FM01", "S01S-F01-T-FM01"
UNRATED = "S20N-F06-P-FM09"
SCENARIOS = ("T-FM01", "S-FM01", "S-MF01", "P-FM01", "R-")


def names() -> list[str]:
    """Two sentences in four emotions by every actor in all scenarios, S in both orders of the pair."""
    sentences = product(("S01", "S02"), "AHSN", "FM", range(1, 7), SCENARIOS)
    return [
        f"{sentence}{emotion}-{sex}{session:02d}-{scenario}{sex * 2 + '01' if scenario == 'R-' else ''}"
        for sentence, emotion, sex, session, scenario in sentences
    ]


def make(folder: Path, table: str = "Evalution.txt", reversed_scale: bool = False) -> Path:
    """Write the release.

    Args:
        folder: where to write.
        table: name of the file of labels.
        reversed_scale: whether activation runs from 1 (very active) to 5 (very calm).
    """
    root = folder / "MSP-IMPROV"
    root.mkdir(parents=True)
    # The file is not sorted by name.
    blocks = [_block(name, number, reversed_scale) for number, name in enumerate(reversed(names()))]
    (root / table).write_bytes("\n".join(blocks).encode("latin-1"))
    tone = folder / "tone.wav"
    soundfile.write(tone, 0.1 * np.sin(np.arange(1600) / 6), 16_000)
    for name in [*names(), UNRATED]:
        if name not in (NO_AUDIO, NEITHER):
            sentence, actor, scenario, _ = name.split("-")
            path = root / "Audio" / f"session{int(actor[1:])}" / sentence / scenario / f"MSP-IMPROV-{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(tone, path)
    path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (root / "Text").mkdir()
    (root / "Text" / f"MSP-IMPROV-{NO_AUDIO}.txt").write_text("It\u2019s so\nlovely.\n", encoding="utf-8")
    return root


def _block(name: str, number: int, reversed_scale: bool) -> str:
    label = RELABELLED.get(name, name[3])
    activation = ACTIVATION.get(label, 3.0)
    if reversed_scale:
        activation = 6 - activation
    dominance = "NaN" if name == NO_DOMINANCE else "3.250000"
    # Before naturalness there is a space between dominance and its semicolon.
    tail = " ; N:NaN;" if number % 2 else ";"
    lines = [f"UTD-IMPROV-{name}.avi; {label}; A:{activation:.6f}; V:2.750000; D:{dominance}{tail}"]
    second = "Fear; caf\u00e9, D:none" if name == FREE_TEXT else f"{WORDS[label]},Excited"
    raters = ["ch-p1", "wm_2", "ab03"]
    if name == REPEATED:
        raters.append("ch-p1")
    words = [WORDS[label]] * len(raters)
    if label == "X":
        words[0] = "Sad"
    lines += [
        f"{rater}; {word}; {second}; A:4.000000; V:3.000000; D:3.000000; N:4.000000;"
        for rater, word in zip(raters, words, strict=True)
    ]
    return "\n".join([*lines, ""])
