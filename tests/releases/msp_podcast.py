"""A small synthetic MSP-Podcast with the names, tables and irregularities of the release."""

import csv
import os
from pathlib import Path

import numpy as np
import soundfile


COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
# Not sorted by name; with every class, a speaker of two test sets, and an unknown speaker.
TURNS = (
    ("MSP-PODCAST_0002_0033.wav", "H", "5.2", "5.8", "4.6", "31", "Female", "Train"),
    ("MSP-PODCAST_0001_0008.wav", "N", "2.2", "4.0", "2.6", "30", "Male", "Test1"),
    ("MSP-PODCAST_0001_0019.wav", "A", "6.0", "1.8", "5.4", "30", "Male", "Test1"),
    ("MSP-PODCAST_0002_0041.wav", "S", "2.0", "2.4", "3.0", "Unknown", "Unknown", "Train"),
    ("MSP-PODCAST_0003_0012.wav", "U", "5.0", "4.2", "4.0", "32", "Female", "Train"),
    ("MSP-PODCAST_0003_0050.wav", "F", "4.0", "2.0", "2.2", "33", "Male", "Development"),
    ("MSP-PODCAST_0004_0003.wav", "D", "4.4", "2.2", "4.8", "33", "Male", "Development"),
    ("MSP-PODCAST_0004_0009.wav", "C", "4.0", "3.0", "5.0", "31", "Female", "Train"),
    ("MSP-PODCAST_0004_0010.wav", "C", "4.0", "3.0", "5.0", "31", "Female", "Train"),
    ("MSP-PODCAST_0005_0001.wav", "O", "4.0", "4.0", "4.0", "31", "Female", "Train"),
    ("MSP-PODCAST_0005_0002.wav", "X", "4.0", "4.0", "4.0", "31", "Female", "Train"),
    ("MSP-PODCAST_0006_0001.wav", "N", "3.0", "4.0", "4.0", "30", "Male", "Test2"),
    ("MSP-PODCAST_1023_0235.wav", "H", "5.0", "6.0", "5.0", "34", "Male", "Train"),
)
WITHHELD = ("MSP-PODCAST_test3_0001.wav", "", "", "", "", "", "", "Test3")
NO_TRANSCRIPT = "MSP-PODCAST_0002_0041"
NO_RECORDING = "MSP-PODCAST_0003_0012"
NEITHER = "MSP-PODCAST_0004_0010"
STEREO = "MSP-PODCAST_1023_0235"
# Primary, secondary. The text after `Other` may contain semicolons; some raters chose no secondary emotion.
RATINGS = {"MSP-PODCAST_0001_0008.wav": (("Neutral", "Neutral,Confused"), ("Neutral", ""), ("Other-dry; sad", "Sad"))}
DEFAULT = (("Happy", "Happy,Amused"), ("Happy", "Happy"), ("Contempt", "Contempt"))


def make(
    folder: Path,
    consensus: str | None = "labels_consensus.csv",
    detailed: str | None = "detail",
    raw: str | None = None,
    validation: str = "Development",
) -> Path:
    """Write a release.

    Args:
        folder: where to write.
        consensus: name of the table of labels, None to omit it.
        detailed: columns of `labels_detailed.csv`: `detail` as in versions 1.7 to 1.12, `columns` as in 1.6 and 2.0.
        raw: name of the raw file of labels, None to omit it.
        validation: name of the validation split in this version.
    """
    root = folder / "MSP-PODCAST-Publish"
    labels = root / "Labels"
    labels.mkdir(parents=True)
    turns = [tuple(cell.replace("Development", validation) for cell in turn) for turn in TURNS]
    if consensus:
        write_table(labels / consensus, COLUMNS, [*turns, WITHHELD])
    if detailed:
        write_detailed(labels / "labels_detailed.csv", detailed)
    if raw:
        (labels / raw).write_text("".join(_raw_block(turn) for turn in turns), newline="\n")
    _media(root)
    _earlier_version(root / "Previous_releases_information")
    return root


def write_table(file: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]):
    """Write a CSV file."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])


def write_detailed(file: Path, kind: str):
    """Write `labels_detailed.csv` with the columns of `kind`, see `make`."""
    pairs = [(turn[0], rating) for turn in TURNS for rating in RATINGS.get(turn[0], DEFAULT)]
    if kind == "columns":
        columns = ("FileName", "Workers", "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
        rows = [(name, f"WORKER{number:08d}", *rating, "4", "4", "4") for number, (name, rating) in enumerate(pairs)]
    else:
        columns = ("FileName", "EmoDetail")
        rows = [(name, _rater(number, rating)) for number, (name, rating) in enumerate(pairs)]
    write_table(file, columns, rows)


def _rater(number: int, rating: tuple[str, str]) -> str:
    words = "; ".join(word for word in rating if word)
    return f"WORKER{number:08d}; {words}; A:4.000000; V:4.000000; D:4.000000;"


def _raw_block(turn: tuple[str, ...]) -> str:
    name, label, arousal, valence, dominance, *_ = turn
    raters = (_rater(number, rating) for number, rating in enumerate(RATINGS.get(name, DEFAULT), start=1))
    head = f"{name}; {label}; A:{arousal}00000; V:{valence}00000; D:{dominance}00000;"
    return "\n".join([head, *raters, "", ""])


def _media(root: Path):
    audios, transcripts = root / "Audios", root / "Transcripts"
    audios.mkdir()
    transcripts.mkdir()
    wave = 0.1 * np.sin(np.arange(1600) / 6)
    tone = audios / "MSP-PODCAST_test3_0002.wav"  # of a test set without labels, in no table
    soundfile.write(tone, wave, 16_000)
    for stem in (name.removesuffix(".wav") for name, *_ in [*TURNS, WITHHELD]):
        if stem not in (NO_RECORDING, NEITHER, STEREO):
            os.link(tone, audios / f"{stem}.wav")
        if stem not in (NO_TRANSCRIPT, NEITHER):
            (transcripts / f"{stem}.txt").write_text(f"It\u2019s what {stem[-4:]}\nsaid.\n", encoding="utf-8")
    soundfile.write(audios / f"{STEREO}.wav", np.stack([wave, 0 * wave], axis=1), 44_100)
    (audios / "._MSP-PODCAST_0001_0008.wav").write_bytes(b"\x00\x05\x16\x07Mac OS X")


def _earlier_version(folder: Path):
    """Write an earlier version with other labels, and recordings that were removed since."""
    labels = folder / "previous_releases_info" / "v1.10" / "Labels"
    removed = folder / "files_removed_from_prev_versions" / "v1.10_removed_files"
    labels.mkdir(parents=True)
    removed.mkdir(parents=True)
    turn = ("MSP-PODCAST_0001_0008.wav", "S", "1.0", "1.0", "1.0", "99", "Male", "Train")
    write_table(labels / "labels_consensus.csv", COLUMNS, [turn])
    write_table(labels / "labels_detailed.csv", ("FileName", "EmoDetail"), [(turn[0], _rater(1, ("Sad", "Sad")))])
    soundfile.write(removed / "MSP-PODCAST_0009_0001.wav", np.zeros(160), 16_000)
