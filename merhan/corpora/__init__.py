"""Raw releases -> manifest rows, one room per corpus, all with the same door.

Each room has `read(source, **options) -> Corpus`. Nothing is dropped silently: what a reader leaves out stands in the
corpus's notes, with its count and reason.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from merhan.errors import InputError, nearest
from merhan.manifest import tidy, validate


CORPORA = ("demo", "emodb", "ravdess", "meld", "manifest", "table", "datasets")


class Corpus(NamedTuple):
    """What a reader found."""

    rows: pd.DataFrame
    notes: list[str]  # sentences: what was left out or altered, how often and why


def read_corpus(
    name: str, source: str | Path | None, label_map: Mapping[str, str | None] | None = None, **options
) -> Corpus:
    """Read a corpus into validated manifest rows.

    Args:
        name: one of `CORPORA`.
        source: the raw release's folder, a file, or a `datasets` name, as the reader says.
        label_map: words of the label column to ours; a word mapped to null drops its rows, which the notes count.
        options: the reader's own.
    """
    if name not in CORPORA:
        raise InputError(f"data.corpus: unknown corpus {name!r}{nearest(name, CORPORA)}")
    reader = import_module(f"merhan.corpora.{name}_corpus")
    try:
        rows, notes = reader.read(source, **options)
    except TypeError as error:
        raise InputError(f"data.options: the {name} reader does not take these ({error}).") from None
    rows, dropped = _map_labels(tidy(rows, str(source or name)), label_map or {})
    return Corpus(validate(rows, str(source or name), (label_map or {}).values()), [*notes, *dropped])


def require_folder(source: str | Path | None, corpus: str) -> Path:
    if source is None or not Path(source).is_dir():
        raise InputError(f"data.source: {source!r} is not a folder; it should hold the raw release of {corpus}.")
    return Path(source)


def _map_labels(rows: pd.DataFrame, label_map: Mapping[str, str | None]) -> tuple[pd.DataFrame, list[str]]:
    unused = set(label_map) - set(rows["label"])
    if unused:
        word = min(unused)
        raise InputError(f"data.label_map: no row has the label {word!r}{nearest(word, set(rows['label']))}")
    notes = [
        f"{sum(rows['label'] == word)} rows labelled {word!r} dropped by data.label_map"
        for word, ours in label_map.items()
        if ours is None
    ]
    if "source_label" not in rows:
        rows["source_label"] = rows["label"]
    rows["label"] = [label_map.get(word, word) for word in rows["label"]]
    return rows[rows["label"].notna()].reset_index(drop=True), notes
