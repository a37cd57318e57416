"""Raw releases -> manifest rows, one room per corpus, all with the same door.

A room `<name>_corpus.py` has

* `read(source, **options) -> Corpus`: rows with everything of the manifest but `label`, in a stable order. What it
  leaves out it lists with the reason; nothing is dropped silently, nothing is guessed.
* `LABELS`: the corpus's own word (`source_label`) -> ours, or None for a word that names no emotion (its rows are left
  out, and counted). A word that is not in it stops the reading.
* `ABOUT`: title, licence, citation, and the counts that were published.

`manifest`, `table` and `datasets` read what has labels of its own, and have neither of the last two.
"""

import inspect
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd

from merhan.emotions import map_label
from merhan.errors import InputError, nearest
from merhan.manifest import tidy, validate


CORPORA = (
    "demo",
    "emodb",
    "ravdess",
    "meld",
    "iemocap",
    "msp_podcast",
    "msp_improv",
    "mosei",
    "cremad",
    "esd",
    "emovdb",
    "mead",
    "tess",
    "savee",
    "nemo",
    "folder",
    "manifest",
    "table",
    "datasets",
)


class Skipped(NamedTuple):
    """Something that a reader left out."""

    item: str  # a file or an id
    reason: str  # the same words for the same reason, so that it can be counted
    word: str = ""  # the corpus's own label, where it was an utterance that has one


class Corpus(NamedTuple):
    """What a reader found."""

    rows: pd.DataFrame
    skipped: list[Skipped]
    remarks: list[str] = []  # sentences on what is there but not as one would expect

    @property
    def notes(self) -> list[str]:
        """Sentences for whoever prepares or trains: how much was left out for which reason, and the remarks."""
        counts = Counter(one.reason for one in self.skipped)
        return [f"{count} left out: {reason}" for reason, count in counts.items()] + self.remarks


class About(NamedTuple):
    """What a corpus is: for its manifest, for a model card, for whoever cites it."""

    title: str
    licence: str
    citation: str
    published: Mapping[str, int]  # own word -> utterances, as published or counted from the whole release; {} = unknown
    scale: tuple[float, float] | None = None  # of valence, arousal and dominance, where the corpus has them

    @property
    def commercial(self) -> bool:
        """Whether its licence lets anyone earn money with what learnt from it; only those that say so."""
        return self.licence.startswith(("CC BY 4", "CC0", "ODbL", "Apache", "free", "GPL"))

    @property
    def shareable(self) -> bool:
        """Whether its recordings may be passed on, as in a report that somebody is sent."""
        return self.licence.startswith(("CC ", "ODbL", "Apache", "free"))


def read_corpus(
    name: str, source: str | Path | Sequence[str] | None, label_map: Mapping[str, str | None] | None = None, **options
) -> Corpus:
    """Read a corpus into validated manifest rows.

    Args:
        name: one of `CORPORA`.
        source: the raw release's folder, a file, or a `datasets` name, as the reader says; of `manifest` also a list.
        label_map: labels to other labels, as `{excitement: joy, frustration: null}`; null drops the rows.
        options: the reader's own.
    """
    reader, where = room(name), called(name, source)
    if isinstance(source, list) and name != "manifest":
        raise InputError(
            f"data.source: the {name} reader takes one source, not {where}; prepare each with `merhan prepare`, and "
            f"list the manifests with data.corpus=manifest."
        )
    require_options(name, options)
    rows, skipped, remarks = reader.read(source, **options)
    if rows.empty:
        raise InputError(f"{where}: holds no utterance of {name}.")
    if hasattr(reader, "LABELS"):
        words = zip(rows["source_label"], rows["utterance_id"], strict=True)
        rows = rows.assign(label=[map_label(word, reader.LABELS, f"{where}, {row}") for word, row in words])
        rows, nameless = _drop_unlabelled(rows, "label {!r} names no emotion")
        skipped = [*skipped, *nameless]
    rows = tidy(rows, where)
    rows, dropped = _relabel(rows, label_map or {})
    return Corpus(validate(rows, where, (label_map or {}).values()), [*skipped, *dropped], remarks)


def called(name: str, source: str | Path | Sequence[str] | None) -> str:
    """What messages call the data."""
    return ", ".join(source) if isinstance(source, list) else str(source or name)


def room(name: str) -> ModuleType:
    """The module that reads a corpus."""
    if name not in CORPORA:
        raise InputError(f"data.corpus: unknown corpus {name!r}{nearest(name, CORPORA)}")
    return import_module(f"merhan.corpora.{name}_corpus")


def require_options(name: str, options: Mapping[str, Any]):
    """Refuse options that a corpus's reader does not have."""
    try:
        inspect.signature(room(name).read).bind(None, **options)
    except TypeError as error:
        raise InputError(f"data.options: the {name} reader does not take these ({error}).") from None


def require_folder(source: str | Path | None, corpus: str) -> Path:
    """The raw release's folder, or an error that says what should be there."""
    if source is None or not Path(source).is_dir():
        raise InputError(f"data.source: {source!r} is not a folder; it should hold the raw release of {corpus}.")
    return Path(source)


def _relabel(rows: pd.DataFrame, label_map: Mapping[str, str | None]) -> tuple[pd.DataFrame, list[Skipped]]:
    unused = set(label_map) - set(rows["label"])
    if unused:
        word = min(unused)
        raise InputError(f"data.label_map: no row has the label {word!r}{nearest(word, set(rows['label']))}")
    if "source_label" not in rows:
        rows = rows.assign(source_label=rows["label"])
    if label_map and "votes" in rows:
        rows = rows.assign(votes=[_recount(votes, label_map) for votes in rows["votes"]])
    before = rows["label"]
    rows = rows.assign(label=[label_map.get(word, word) for word in before], before=before)
    kept, dropped = _drop_unlabelled(rows, "label {!r} is dropped by data.label_map", "before")
    return kept.drop(columns="before"), dropped


def _recount(votes: str, label_map: Mapping[str, str | None]) -> str:
    """Votes for the labels that these become; those for a label that is dropped count no more."""
    counts: Counter[str] = Counter()
    for word, count in json.loads(votes or "{}").items():
        if (label := label_map.get(word, word)) is not None:
            counts[label] += count
    return json.dumps(counts, sort_keys=True) if counts else ""


def _drop_unlabelled(
    rows: pd.DataFrame, reason: str, column: str = "source_label"
) -> tuple[pd.DataFrame, list[Skipped]]:
    """Leave out rows without a label; the words of those that stand in a dialogue stay, as context."""
    gone = rows["label"].isna()
    columns = (rows.loc[gone, name] for name in ("utterance_id", column, "source_label"))
    skipped = [Skipped(row, reason.format(word), own) for row, word, own in zip(*columns, strict=True)]
    dialogue = rows.get("dialogue", pd.Series("", rows.index)).fillna("")
    context = gone & (dialogue != "") & (rows["text"] != "")
    rows = rows.assign(label=rows["label"].where(~gone, ""), audio=rows["audio"].where(~context, ""))
    return rows[~gone | context].reset_index(drop=True), skipped
