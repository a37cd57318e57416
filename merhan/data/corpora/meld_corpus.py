"""MELD: 13,708 utterances of the series Friends, 7 emotions and 3 sentiments, audio and text, in dialogues.

The official split has the main characters in every part: a result on it is not speaker-independent.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, missing_notes, read_release_table, require_folder
from merhan.errors import InputError


LABELS = {word: word for word in ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")}

ABOUT = About(
    "MELD, the multimodal EmotionLines dataset",
    "GPL-3.0 (annotations)",
    "Poria, Hazarika, Majumder, Naik, Cambria, Mihalcea 2019, MELD: a multimodal multi-party dataset for emotion "
    "recognition in conversations, ACL",
    {"neutral": 6436, "joy": 2308, "surprise": 1636, "anger": 1607, "sadness": 1002, "disgust": 361, "fear": 358},
)

_SPLITS = {
    "train": ("train_sent_emo.csv", "train_splits"),
    "validation": ("dev_sent_emo.csv", "dev_splits_complete"),
    "test": ("test_sent_emo.csv", "output_repeated_splits_test"),
}

# (split, dialogue, turn) of clips that cannot be decoded (declare-lab/MELD#39, #52, #27); their rows have text only.
_UNREADABLE = {("train", 125, 3), ("validation", 110, 7)}

_COLUMNS = ("Dialogue_ID", "Utterance_ID", "Utterance", "Speaker", "Emotion", "Sentiment")

_PUNCTUATION = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...", "\u2014": "-"}
)


def read(source: str | Path | None) -> Corpus:
    """List the utterances of the three annotation tables.

    Args:
        source: the folder of the three CSV files. If the folders of the clips are in it, too, rows have audio.

    Raises:
        InputError: one of the tables is missing.
    """
    folder = require_folder(source, "MELD")
    rows = [row for split, names in _SPLITS.items() for row in _split(folder, split, *names)]
    remarks = missing_notes(rows, {"audio": "rows have text alone: the clip is missing or cannot be decoded"})
    return Corpus(pd.DataFrame(rows), [], remarks)


def _split(folder: Path, split: str, table: str, clips: str) -> list[dict[str, Any]]:
    tables = sorted(folder.rglob(table))
    if not tables:
        raise InputError(f"{folder}: {table} is not in it or below it; get the annotations from declare-lab/MELD.")
    lines = read_release_table(tables[0], _COLUMNS).to_dict("records")
    media = next(iter(sorted(path for path in folder.rglob(clips) if path.is_dir())), None)
    return [_row(line, split, media, f"{tables[0]}, row {number}") for number, line in enumerate(lines, start=1)]


def _row(line: dict[Hashable, str], split: str, media: Path | None, where: str) -> dict[str, Any]:
    dialogue, turn = (_number(line, column, where) for column in ("Dialogue_ID", "Utterance_ID"))
    return {
        # The ids contain the split, because dialogues are numbered from 0 in each of them.
        "utterance_id": f"meld-{split}-dia{dialogue}-utt{turn}",
        "corpus": "meld",
        "audio": "" if (split, dialogue, turn) in _UNREADABLE else _clip(media, dialogue, turn),
        "text": " ".join(line["Utterance"].translate(_PUNCTUATION).split()),
        "source_label": line["Emotion"],
        "split": split,
        "speaker": line["Speaker"].translate(_PUNCTUATION),
        "dialogue": f"meld-{split}-dia{dialogue}",
        "turn": turn,
        "language": "en",
        "sentiment": line["Sentiment"],
    }


def _number(line: dict[Hashable, str], column: str, where: str) -> int:
    if not line[column].isdecimal():
        raise InputError(f"{where}: {column} is {line[column]!r}, not a whole number; get the table again.")
    return int(line[column])


def _clip(media: Path | None, dialogue: int, turn: int) -> str:
    """The path of a clip, empty if it is missing."""
    if media is None:
        return ""
    # The test folder has corrected versions of some clips under another name, which are preferred.
    for name in (f"final_videos_testdia{dialogue}_utt{turn}.mp4", f"dia{dialogue}_utt{turn}.mp4"):
        if (media / name).is_file():
            return str(media / name)
    return ""
