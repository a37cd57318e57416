"""CMU-MOSEI: English, about 23,000 sentences of 3293 opinion videos, rated for sentiment.

**The label is the sign of the sentiment, not an emotion.** The annotation is a sentiment in [-3, 3] and six emotions
that can occur together, each in [0, 3]; neither of the two tables in circulation has these seven numbers:

* `CMU_MOSEI_Labels.csv` (of s3prl): `,file,index,start,end,label2a,label2b,label6,label7,split`; label2b is the sign.
  label6 (missing in an older version) is not read. It is the strongest emotion, but in case of a tie the first of
  happy, sad, anger, surprise, disgust, fear, and "happy" also if there is none. 63 % of all rows are "happy", some
  for these reasons alone, as zv0Jl4TIQDc 0, which was rated as angry as happy.
* `label.csv` (of MMSA): video_id, clip_id, text, label, annotation, mode and more; annotation is the sign.

A neutral sentiment is not a neutral emotion: rename or drop the label before joining the corpus with others.

Speakers are not annotated; `dialogue` is the video, and a person may have several. Many times are wrong, without a way
to find out which (CMU-MultimodalSDK issues 227 and 359: in 37 of 60 sampled videos, all of them without released
segments).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import (
    About,
    Corpus,
    Skipped,
    missing_notes,
    read_release_table,
    read_text,
    require_folder,
)
from merhan.data.labels import map_label
from merhan.errors import InputError


LABELS = {word: word for word in ("negative", "neutral", "positive")}

ABOUT = About(
    "CMU-MOSEI, multimodal opinion sentiment and emotion intensity",
    "none is stated; the videos are their makers' on YouTube, and CMU does not give them out any more",
    "Bagher Zadeh, Liang, Poria, Cambria, Morency 2018, Multimodal language analysis in the wild: CMU-MOSEI dataset "
    "and interpretable dynamic fusion graph, ACL",
    {"negative": 6683, "neutral": 5100, "positive": 11476},  # in CMU_MOSEI_Labels.csv
)

# Values of label2b and split in the table of s3prl, and of annotation and mode in that of MMSA.
_SIGNS = {"-1": "negative", "0": "neutral", "1": "positive"}

_FOLDS = {"0": "train", "1": "validation", "2": "test", "3": ""}

_ANNOTATIONS = {"Negative": "negative", "Neutral": "neutral", "Positive": "positive"}

_MODES = {"train": "train", "valid": "validation", "test": "test"}


def read(source: str | Path | None) -> Corpus:
    """List the sentences of a table that have a recording or a text.

    Args:
        source: the folder with one of the tables, and below it, as far as available,

            * for `CMU_MOSEI_Labels.csv`: `Segmented_Audio/<split>/<file>_<index>.wav` (segmented by s3prl; the released
              segments have other numbers) or whole recordings `WAV_16000/<file>.wav`, and the texts
              `Transcript/Segmented/Combined/<file>.txt`;
            * for `label.csv`: `Raw/<video_id>/<clip_id>.mp4`.

    Raises:
        InputError: no table, or both; a missing column; an invalid value; no recording and no text.
    """
    folder = require_folder(source, "CMU-MOSEI")
    readers = {"CMU_MOSEI_Labels.csv": _s3prl, "label.csv": _mmsa}
    tables = sorted(file for name in readers for file in folder.rglob(name))
    if len(tables) != 1:
        raise InputError(f"{folder}: should have one CMU_MOSEI_Labels.csv or label.csv below it, has {len(tables)}.")
    rows, skipped = [], []
    for row in readers[tables[0].name](tables[0], folder):
        problem = _problem(row)
        if problem:
            skipped.append(Skipped(row["utterance_id"], problem))
        else:
            rows.append(row)
    if not rows:
        raise InputError(f"{folder}: has no recording and no text of {tables[0].name}; put them below it.")
    remarks = missing_notes(rows, {"audio": "rows have no audio", "text": "rows have no text"})
    return Corpus(pd.DataFrame(rows), skipped, remarks)


def _problem(row: Mapping[str, Any]) -> str | None:
    """Why a row is left out, None if it is not."""
    if not row["split"]:
        return "its video is in none of the three folds"
    if not row["audio"] and not row["text"]:
        return "neither its recording nor its text is available"
    return None


def _s3prl(table: Path, folder: Path) -> list[dict[str, Any]]:
    """The rows of `CMU_MOSEI_Labels.csv`, each video in chronological order."""
    segments = {file.stem: str(file) for file in sorted(folder.rglob("Segmented_Audio/*/*.wav"))}
    recordings = {file.stem: str(file) for file in sorted(folder.rglob("WAV_16000/*.wav"))}
    texts = _transcripts(folder)
    turns: Counter[str] = Counter()
    rows = []
    for where, line, start, end in _chronological(table):
        video, number = line["file"], line["index"]
        row = _row(video, number, turns[video])
        row["text"] = texts.get(_key(video, start, end), "")
        row["source_label"] = map_label(line["label2b"], _SIGNS, f"{where}, label2b")
        row["split"] = map_label(line["split"], _FOLDS, f"{where}, split")
        segment = segments.get(f"{video}_{number}")
        if segment:
            row["audio"] = segment
        elif video in recordings:
            # 239 sentences begin up to half a second before their recording.
            row |= {"audio": recordings[video], "start": max(start, 0.0), "end": end}
        turns[video] += 1
        rows.append(row)
    return rows


def _chronological(table: Path) -> list[tuple[str, dict[str, str], float, float]]:
    """The lines of `CMU_MOSEI_Labels.csv` by video and time, as (where, line, start, end).

    The index is not the order: in 1318 videos a sentence begins before one with a smaller index.
    """
    lines = _lines(table, ("file", "index", "start", "end", "label2b", "split"))
    timed = [(where, line, _number(line, "start", where), _number(line, "end", where)) for where, line in lines.items()]
    return sorted(timed, key=lambda entry: (entry[1]["file"], entry[2], entry[3]))


def _mmsa(table: Path, folder: Path) -> list[dict[str, Any]]:
    """The rows of `label.csv`, each video in the order of its clips."""
    clips = {(file.parent.name, file.stem): str(file) for file in sorted(folder.rglob("Raw/*/*.mp4"))}
    rows = []
    for where, line in _lines(table, ("video_id", "clip_id", "text", "annotation", "mode")).items():
        video, clip = line["video_id"], line["clip_id"]
        row = _row(video, clip, round(_number(line, "clip_id", where)))
        row["audio"] = clips.get((video, clip), "")
        row["text"] = " ".join(line["text"].split())
        row["source_label"] = map_label(line["annotation"], _ANNOTATIONS, f"{where}, annotation")
        row["split"] = map_label(line["mode"], _MODES, f"{where}, mode")
        rows.append(row)
    return sorted(rows, key=lambda row: (row["dialogue"], row["turn"]))


def _row(video: str, number: str, turn: int) -> dict[str, Any]:
    """A row whose audio, text, label and split are still to be filled."""
    return {
        "utterance_id": f"mosei-{video}_{number}",
        "corpus": "mosei",
        "audio": "",
        "text": "",
        "source_label": "",
        "split": "",
        "dialogue": f"mosei-{video}",
        "turn": turn,
        "language": "en",
    }


def _lines(table: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """File and row -> the cells of that line as strings, because the names of some videos consist of digits."""
    rows = read_release_table(table, columns)
    return {f"{table}, row {number}": line for number, line in enumerate(rows.to_dict("records"), start=1)}


def _number(line: Mapping[str, str], column: str, where: str) -> float:
    try:
        return float(line[column])
    except ValueError:
        raise InputError(f"{where}: {column} is {line[column]!r}, not a number; get the table again.") from None


def _transcripts(folder: Path) -> dict[tuple[str, float, float], str]:
    """(video, start, end) -> text. Times identify a sentence; its number is the clip's, not the index of the table."""
    texts = {}
    for file in sorted(folder.rglob("Transcript/Segmented/Combined/*.txt")):
        try:
            for line in filter(str.strip, read_text(file).split("\n")):
                _, _, start, end, text = line.split("___", 4)
                texts[_key(file.stem, float(start), float(end))] = " ".join(text.split())
        except ValueError as error:
            raise InputError(
                f"{file}: a line should be video___clip___start___end___text, in UTF-8 ({error}); correct it."
            ) from None
    return texts


def _key(video: str, start: float, end: float) -> tuple[str, float, float]:
    return video, round(start, 3), round(end, 3)
