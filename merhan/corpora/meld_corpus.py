"""MELD: 13,708 utterances of the series Friends, 7 emotions and 3 sentiments, audio and text, in dialogues.

Speakers stand on both sides of its split by design: never call a result on it speaker-independent.
"""

from pathlib import Path

import pandas as pd

from merhan.corpora import About, Corpus, require_folder
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
# Clips that no decoder reads (declare-lab/MELD#39, #52, #27): their words stay, their sound does not.
_UNREADABLE = {("train", 125, 3), ("validation", 110, 7)}
_PUNCTUATION = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...", "\u2014": "-"}
)


def read(source: str | Path | None) -> Corpus:
    """`source`: the folder of the three CSVs; with the clips' folders beside them, rows have audio, else text alone."""
    folder = require_folder(source, "MELD")
    parts = [_split(folder, split, *names) for split, names in _SPLITS.items()]
    rows = pd.concat(parts, ignore_index=True)
    silent = (rows["audio"] == "").sum()
    remark = f"{silent} of {len(rows)} rows have text alone: no clip found, or it is known to be unreadable"
    return Corpus(rows, [], [remark] if silent else [])


def _split(folder: Path, split: str, table: str, clips: str) -> pd.DataFrame:
    found = sorted(folder.rglob(table))
    if not found:
        raise InputError(f"{folder}: {table} is not in it or below it; get the annotations from declare-lab/MELD.")
    annotation = pd.read_csv(found[0], keep_default_na=False)
    media = next(iter(sorted(path for path in folder.rglob(clips) if path.is_dir())), None)
    return pd.DataFrame([_row(line, split, media) for line in annotation.to_dict("records")])


def _row(line: dict, split: str, media: Path | None) -> dict:
    dialogue, turn = line["Dialogue_ID"], line["Utterance_ID"]
    return {
        # Dialogue numbers start again in every split, hence the split in both ids.
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


def _clip(media: Path | None, dialogue: int, turn: int) -> str:
    if media is None:
        return ""
    # The test folder holds corrected versions of some clips under another name: they win.
    names = (f"final_videos_testdia{dialogue}_utt{turn}.mp4", f"dia{dialogue}_utt{turn}.mp4")
    return next((str(media / name) for name in names if (media / name).is_file()), "")
