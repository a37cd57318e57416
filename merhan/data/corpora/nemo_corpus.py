"""nEMO: Polish, 4481 recordings, 9 actors, 6 emotions, 90 sentences, 24 kHz.

The release on GitHub (amu-cai/nEMO) has `data.tsv` and `samples/SM0_anger_1.wav` = speaker, emotion, sentence. The
table is UTF-8 with the columns file_id, emotion, raw_text, normalized_text, speaker_id, gender and age, in no
particular order. Not every actor has every sentence in every emotion. The Parquet files of amu-cai/nEMO on the Hugging
Face Hub have the same columns and contain the audio; read them with the `datasets` reader.
"""

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.data.corpora.base import About, Corpus, Skipped, read_release_table, require_folder
from merhan.errors import InputError


LABELS = {
    "anger": "anger",
    "fear": "fear",
    "happiness": "joy",
    "neutral": "neutral",
    "sadness": "sadness",
    "surprised": "surprise",
}

ABOUT = About(
    "nEMO, dataset of emotional speech in Polish",
    "CC BY-NC-SA 4.0",
    "Christop 2024, nEMO: dataset of emotional speech in Polish, LREC-COLING, 12111-12116",
    {"neutral": 809, "sadness": 769, "happiness": 749, "anger": 749, "fear": 736, "surprised": 669},
)

_COLUMNS = ("file_id", "emotion", "raw_text", "speaker_id", "gender")


def read(source: str | Path | None) -> Corpus:
    """List the recordings that are in the table.

    Args:
        source: the folder with `data.tsv` and `samples/`, or one above it.

    Raises:
        InputError: no `data.tsv`, or one without the columns; a line that is incomplete or contradicts its file name.
    """
    folder = require_folder(source, "nEMO")
    table = next(iter(sorted(folder.rglob("data.tsv"))), None)
    if table is None:
        raise InputError(
            f"{folder}: data.tsv is not in it or below it; clone github.com/amu-cai/nEMO (the Hub's Parquet files "
            f"are for `corpus: datasets`)."
        )
    lines = _lines(table)
    samples = {file.name: file for file in sorted((table.parent / "samples").glob("*.wav"))}
    rows = [_row(line, samples, f"{table}, line {number}") for number, line in enumerate(lines, start=2)]
    rows = sorted((row for row in rows if row["audio"]), key=lambda row: row["utterance_id"])
    if not rows:
        raise InputError(f"{table.parent / 'samples'}: holds no recording of data.tsv; put the wav files there.")
    listed = {line["file_id"] for line in lines}
    skipped = [Skipped(name, "in data.tsv, but not in samples") for name in sorted(listed - set(samples))]
    skipped += [Skipped(name, "in samples, but not in data.tsv") for name in sorted(set(samples) - listed)]
    return Corpus(pd.DataFrame(rows), skipped)


def _lines(table: Path) -> list[dict[str, str]]:
    """The lines of `data.tsv`, their cells stripped: every speaker_id begins with eight spaces."""
    lines = read_release_table(table, _COLUMNS, sep="\t", quoting=csv.QUOTE_NONE)
    incomplete = (lines[list(_COLUMNS)] == "").any(axis=1)
    if incomplete.any():
        number = int(incomplete.to_numpy().argmax()) + 2
        raise InputError(f"{table}, line {number}: a field is empty or missing; get the table again.")
    return [{str(column): cell.strip() for column, cell in line.items()} for line in lines.to_dict("records")]


def _row(line: dict[str, str], samples: dict[str, Path], where: str) -> dict[str, Any]:
    stem = line["file_id"].removesuffix(".wav")
    speaker, _, rest = stem.partition("_")
    emotion, _, sentence = rest.rpartition("_")
    if (speaker, emotion) != (line["speaker_id"], line["emotion"]) or not sentence.isdigit():
        raise InputError(
            f"{where}: file_id {line['file_id']!r} should be speaker, emotion and a number, as SM0_anger_1.wav; the "
            f"line has {line['speaker_id']!r} and {line['emotion']!r}. Get data.tsv again, or correct it."
        )
    return {
        "utterance_id": f"nemo-{stem}",
        "corpus": "nemo",
        "audio": str(samples.get(line["file_id"], "")),
        "text": line["raw_text"],
        "source_label": line["emotion"],
        "speaker": f"nemo-{speaker}",
        "gender": line["gender"],
        "sentence": f"nemo-{sentence}",
        "language": "pl",
    }
