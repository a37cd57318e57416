"""CMU-MOSEI: English, about 23,000 sentences of 3293 videos in which people tell their opinion, rated for sentiment.

**The categorical label is the sign of the sentiment, not an emotion.** What was rated is sentiment in [-3, 3] and six
emotions, each in [0, 3] and several at once; neither of the two tables in circulation has these seven numbers:

* `CMU_MOSEI_Labels.csv` (of s3prl): `,file,index,start,end,label2a,label2b,label6,label7,split`; label2b is the sign.
  label6 (which an older version lacks) is not read. It is the strongest emotion, but on a tie the first of happy,
  sad, anger, surprise, disgust, fear, and "happy" also where there is none. 63 % of all are "happy", rightly or in
  this way, as zv0Jl4TIQDc 0, which was rated as angry as happy.
* `label.csv` (of MMSA): video_id, clip_id, text, label, annotation, mode and more; annotation is the sign.

A neutral sentiment is no neutral emotion: rename or drop it before the corpus is joined with others.

Speakers are not named; `dialogue` is the video, and a person may have several. Many times are wrong, and nothing says
which (CMU-MultimodalSDK issues 227 and 359: 37 of 60 sampled videos, all of them not released in segments).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, Skipped, require_folder
from merhan.emotions import map_label
from merhan.errors import InputError


LABELS = {word: word for word in ("negative", "neutral", "positive")}
ABOUT = About(
    "CMU-MOSEI, multimodal opinion sentiment and emotion intensity",
    "none is stated; the videos are their makers' on YouTube, and CMU does not give them out any more",
    "Bagher Zadeh, Liang, Poria, Cambria, Morency 2018, Multimodal language analysis in the wild: CMU-MOSEI dataset "
    "and interpretable dynamic fusion graph, ACL",
    {"negative": 6683, "neutral": 5100, "positive": 11476},  # in CMU_MOSEI_Labels.csv
)
_SIGNS = {"-1": "negative", "0": "neutral", "1": "positive"}
_FOLDS = {"0": "train", "1": "validation", "2": "test", "3": ""}
_ANNOTATIONS = {"Negative": "negative", "Neutral": "neutral", "Positive": "positive"}
_MODES = {"train": "train", "valid": "validation", "test": "test"}


def read(source: str | Path | None) -> Corpus:
    """`source`: the folder with one of the tables, and below it what there is of

    * for `CMU_MOSEI_Labels.csv`: `Segmented_Audio/<split>/<file>_<index>.wav` (cut by s3prl; the released segments
      are numbered otherwise) or whole recordings `WAV_16000/<file>.wav`; `Transcript/Segmented/Combined/<file>.txt`;
    * for `label.csv`: `Raw/<video_id>/<clip_id>.mp4`.

    Raises:
        InputError: no table, or both; one without a column; a value that it cannot have; nothing to hear or to read.
    """
    folder = require_folder(source, "CMU-MOSEI")
    tables = sorted([*folder.rglob("CMU_MOSEI_Labels.csv"), *folder.rglob("label.csv")])
    if len(tables) != 1:
        raise InputError(f"{folder}: should have one CMU_MOSEI_Labels.csv or label.csv below it, has {len(tables)}.")
    found = (_s3prl if tables[0].name == "CMU_MOSEI_Labels.csv" else _mmsa)(tables[0], folder)
    reasons = [_reason(row) for row in found]
    rows = [row for row, reason in zip(found, reasons, strict=True) if not reason]
    if not rows:
        raise InputError(f"{folder}: has no recording and no words of {tables[0].name}; put them below it.")
    lacking = {what: sum(not row[column] for row in rows) for what, column in (("sound", "audio"), ("words", "text"))}
    remarks = [f"{count} of {len(rows)} rows have no {what}" for what, count in lacking.items() if count]
    skipped = [Skipped(row["utterance_id"], why) for row, why in zip(found, reasons, strict=True) if why]
    return Corpus(pd.DataFrame(rows), skipped, remarks)


def _reason(row: dict) -> str:
    """Why a row is left out, or nothing."""
    if not row["split"]:
        return "its video is in none of the three folds"
    return "" if row["audio"] or row["text"] else "neither its recording nor its words are here"


def _s3prl(table: Path, folder: Path) -> list[dict]:
    cuts = {file.stem: str(file) for file in sorted(folder.rglob("Segmented_Audio/*/*.wav"))}
    wholes = {file.stem: str(file) for file in sorted(folder.rglob("WAV_16000/*.wav"))}
    words, turns, rows = _transcripts(folder), Counter(), []
    lines = _lines(table, ("file", "index", "start", "end", "label2b", "split"))
    times = {where: (_number(line, "start", where), _number(line, "end", where)) for where, line in lines.items()}
    # The index tells no order: in 1318 videos a sentence begins before one with a smaller index.
    for where, line in sorted(lines.items(), key=lambda item: (item[1]["file"], times[item[0]])):
        video, (start, end) = line["file"], times[where]
        sign = map_label(line["label2b"], _SIGNS, f"{where}, label2b")
        fold = map_label(line["split"], _FOLDS, f"{where}, split")
        audio = cuts.get(f"{video}_{line['index']}") or wholes.get(video, "")
        row = _row(video, line["index"], turns[video], audio, words.get(_key(video, start, end), ""), sign, fold)
        if audio and audio == wholes.get(video):
            # 239 sentences begin up to half a second before their recording.
            row |= {"start": max(start, 0.0), "end": end}
        turns[video] += 1
        rows.append(row)
    return rows


def _mmsa(table: Path, folder: Path) -> list[dict]:
    clips = {(file.parent.name, file.stem): str(file) for file in sorted(folder.rglob("Raw/*/*.mp4"))}
    rows = []
    for where, line in _lines(table, ("video_id", "clip_id", "text", "annotation", "mode")).items():
        video, clip, text = line["video_id"], line["clip_id"], " ".join(line["text"].split())
        sign = map_label(line["annotation"], _ANNOTATIONS, f"{where}, annotation")
        fold = map_label(line["mode"], _MODES, f"{where}, mode")
        turn = round(_number(line, "clip_id", where))
        rows.append(_row(video, clip, turn, clips.get((video, clip), ""), text, sign, fold))
    return sorted(rows, key=lambda row: (row["dialogue"], row["turn"]))


def _row(video: str, number: str, turn: int, audio: str, text: str, sign: str | None, fold: str | None) -> dict:
    return {
        "utterance_id": f"mosei-{video}_{number}",
        "corpus": "mosei",
        "audio": audio,
        "text": text,
        "source_label": sign,
        "split": fold,
        "dialogue": f"mosei-{video}",
        "turn": turn,
        "language": "en",
    }


def _lines(table: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Where a line stands -> its cells as text: some videos are named by digits alone."""
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise InputError(f"{table}: cannot be read as CSV in UTF-8 ({error}); get it anew.") from None
    if missing := [column for column in columns if column not in rows]:
        raise InputError(f"{table}: lacks the column {', '.join(missing)}; get a version that has it.")
    return {f"{table}, row {number}": line for number, line in enumerate(rows.to_dict("records"), start=1)}


def _number(line: dict[str, str], column: str, where: str) -> float:
    try:
        return float(line[column])
    except ValueError:
        raise InputError(f"{where}: {column} is {line[column]!r}, not a number; get the table anew.") from None


def _transcripts(folder: Path) -> dict[tuple[str, float, float], str]:
    """(video, start, end) -> words, by time because a line's number is the clip's and not the table's index."""
    words = {}
    for file in sorted(folder.rglob("Transcript/Segmented/Combined/*.txt")):
        try:
            for line in filter(str.strip, file.read_text(encoding="utf-8").split("\n")):
                _, _, start, end, said = line.split("___", 4)
                words[_key(file.stem, float(start), float(end))] = " ".join(said.split())
        except ValueError as error:
            raise InputError(
                f"{file}: a line should be video___clip___start___end___words, in UTF-8 ({error}); mend it."
            ) from None
    return words


def _key(video: str, start: float, end: float) -> tuple[str, float, float]:
    return video, round(start, 3), round(end, 3)
