"""The common interface of the corpus readers: raw release -> manifest rows.

A reader is a module `<name>_corpus.py` with

* `read(source, **options) -> Corpus`: the rows of a manifest without `label`, in a reproducible order, and a list of
  what was left out with the reason.
* `LABELS`: the corpus's own label (`source_label`) -> label of the vocabulary, or None for a label that is not an
  emotion, whose rows are left out and counted. A label that is not in the table is an error.
* `ABOUT`: title, licence, citation and published counts.

The readers `folder`, `manifest`, `table` and `datasets` read the user's own data, whose `label` column is used as it
is; they have neither `LABELS` nor `ABOUT`.
"""

import inspect
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from merhan.data.corpora import CORPORA
from merhan.data.labels import check_label_map, map_label, relabel, unused_keys
from merhan.data.manifest import normalise_columns, null_words, validate
from merhan.errors import InputError, did_you_mean
from merhan.recipe.ranges import check_typed


class Skipped(NamedTuple):
    """A file, line or utterance that a reader left out."""

    item: str  # a file, a line of a file, or an id
    reason: str  # worded the same for the same reason, so that reasons can be counted
    source_label: str = ""  # the corpus's own label, for an utterance that has one


class Corpus(NamedTuple):
    """The result of reading a corpus."""

    rows: pd.DataFrame  # manifest rows with full paths
    skipped: list[Skipped]
    remarks: Sequence[str] = ()  # sentences about rows that are incomplete or uncertain

    @property
    def notes(self) -> list[str]:
        """Sentences for the log: how much was left out for which reason, and the remarks."""
        counts = Counter(skipped.reason for skipped in self.skipped)
        return [*(f"{count} left out: {reason}" for reason, count in counts.items()), *self.remarks]


class About(NamedTuple):
    """Metadata of a corpus, for its manifest folder and for model cards."""

    title: str
    licence: str
    citation: str
    published: Mapping[str, int]  # source label -> utterances, published or counted in the whole release; {} = unknown
    scale: tuple[float, float] | None = None  # range of valence, arousal and dominance, if they are annotated

    @property
    def commercial(self) -> bool:
        """Whether the licence explicitly permits commercial use of models that were trained on the corpus."""
        return self.licence.startswith(("CC BY 4", "CC0", "ODbL", "Apache", "free", "GPL"))

    @property
    def shareable(self) -> bool:
        """Whether recordings may be passed on, for example within a report."""
        return self.licence.startswith(("CC ", "ODbL", "Apache", "free"))


def read_corpus(
    name: str,
    source: str | Path | Sequence[str] | None,
    label_map: Mapping[str, str | None] | None = None,
    own_labels: Sequence[str] = (),
    **options,
) -> Corpus:
    """Read a corpus into valid manifest rows.

    Args:
        name: one of `CORPORA`.
        source: the folder of the raw release, a file, or the name of a `datasets` data set, see the reader; the reader
            `manifest` also takes a list of files.
        label_map: label -> label, as `{"excitement": "joy", "frustration": None}`; None drops the rows. Case and
            surrounding blanks of the labels do not matter.
        own_labels: labels that are valid in addition to the vocabulary. Those that prepared manifests declare are
            valid as well.
        options: options of the reader.

    Raises:
        InputError: the reader, its options or the release cannot be used, or a row is invalid.
    """
    label_map = {str(word): label for word, label in (label_map or {}).items()}  # class ids are numbers in a recipe
    reader, where = corpus_reader(name), source_name(name, source)
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
        rows, not_emotions = _add_labels(rows, reader.LABELS, where)
        skipped = [*skipped, *not_emotions]
    if name == "manifest":
        own_labels = [*own_labels, *reader.declared(source)]
    check_label_map(label_map, own_labels)
    rows = normalise_columns(rows, where)
    rows, dropped = _relabel(rows, label_map, own_labels)
    remarks = [*remarks, *null_words(rows, where)]
    rows = validate(rows, where, own_labels)
    pa.default_memory_pool().release_unused()  # it would keep twice what the rows take, beside all that comes later
    return Corpus(rows, [*skipped, *dropped], remarks)


def source_name(name: str, source: str | Path | Sequence[str] | None) -> str:
    """How messages name the data: by its source, or by the reader if there is none."""
    if isinstance(source, list):
        return ", ".join(source)
    return str(source or name)


def corpus_reader(name: str) -> ModuleType:
    """The module that reads a corpus.

    Raises:
        InputError: there is no reader of that name.
    """
    if name not in CORPORA:
        raise InputError(f"data.corpus: unknown corpus {name!r}{did_you_mean(name, CORPORA)}")
    return import_module(f"merhan.data.corpora.{name}_corpus")


def require_options(name: str, options: Mapping[str, Any]):
    """Check that a reader takes these options.

    Raises:
        InputError: it does not have one of them, or a number or switch is of the wrong type or out of range.
    """
    signature = inspect.signature(corpus_reader(name).read)
    try:
        signature.bind(None, **options)
    except TypeError as error:
        raise InputError(f"data.options (`--option`): the {name} reader does not take these ({error}).") from None
    for key, value in options.items():
        hint = signature.parameters[key].annotation
        check_typed(value, hint, {"minimum": 0, "maximum": 1e6}, f"data.options.{key} (`--option`)")


# --- helpers of the readers ---


def require_folder(source: str | Path | None, corpus: str) -> Path:
    """The folder of a raw release.

    Args:
        source: the path.
        corpus: title of the corpus, for the message.

    Raises:
        InputError: it is not a folder.
    """
    if source is None or not Path(source).is_dir():
        raise InputError(f"data.source: {source!r} is not a folder; it should hold the raw release of {corpus}.")
    return Path(source)


def recordings_below(folder: Path, suffix: str = ".wav") -> tuple[list[Path], list[Skipped]]:
    """The recordings below a folder, those in the highest folders first, and the metadata files of macOS beside them.

    The order makes a reader take the uppermost of several copies.
    """
    files = sorted(folder.rglob(f"*{suffix}"), key=lambda file: (len(file.parts), file))
    recordings = [file for file in files if not file.name.startswith("._")]
    metadata = [file for file in files if file.name.startswith("._")]
    return recordings, [Skipped(str(file), "metadata that macOS wrote beside a recording") for file in metadata]


def read_text(file: Path, encoding: str = "utf-8") -> str:
    """The content of a text file of a release.

    Raises:
        InputError: it cannot be read, or is in another encoding.
    """
    try:
        return file.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: is not {encoding.upper()} ({error.reason}); save it as {encoding.upper()}."
        ) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); take it from the release again.") from None


def read_release_table(file: Path, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """A table of a release in UTF-8, all cells strings.

    Args:
        columns: those that must be there.
        options: of `pandas.read_csv`.

    Raises:
        InputError: it cannot be read, or lacks one of the columns.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{file}: cannot be read as a table in UTF-8 ({reason}); take it from the release again."
        ) from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{file}: lacks the column {missing[0]!r}{did_you_mean(missing[0], table)}")
    return table.fillna("")  # of rows with fewer cells than the header


def read_transcript(file: Path | None) -> str:
    """The text of a transcript file with single spaces, empty for None.

    Raises:
        InputError: the file is not UTF-8.
    """
    if file is None:
        return ""
    return " ".join(read_text(file).split())


def missing_notes(rows: Iterable[Mapping[str, Any]], messages: Mapping[str, str]) -> list[str]:
    """Sentences about rows with an empty column.

    Args:
        rows: the rows.
        messages: column -> the end of the sentence, as `"rows have no text"`.
    """
    rows = list(rows)
    counts = {column: sum(not row[column] for row in rows) for column in messages}
    return [f"{count} of {len(rows)} {messages[column]}" for column, count in counts.items() if count]


# --- labels ---


def _add_labels(rows: pd.DataFrame, table: Mapping[str, str | None], where: str) -> tuple[pd.DataFrame, list[Skipped]]:
    """The rows with the column `label`, without those whose source label is not an emotion."""
    words = zip(rows["source_label"], rows["utterance_id"], strict=True)
    labels = [map_label(word, table, f"{where}, {name}") for word, name in words]
    return _drop_unlabelled(rows.assign(label=labels), rows["source_label"], "label {!r} is not an emotion")


def _relabel(
    rows: pd.DataFrame, label_map: Mapping[str, str | None], own_labels: Sequence[str]
) -> tuple[pd.DataFrame, list[Skipped]]:
    """Apply `data.label_map` to labels and votes."""
    unused = unused_keys(label_map, rows["label"])
    if unused:
        suggestion = did_you_mean(unused[0], set(rows["label"]))
        raise InputError(f"data.label_map (`--label`): no row has the label {unused[0]!r}{suggestion}")
    if "source_label" not in rows:
        rows = rows.assign(source_label=rows["label"])
    if label_map and "votes" in rows:
        rows = rows.assign(votes=[_relabel_votes(votes, label_map, own_labels) for votes in rows["votes"]])
    labels = rows["label"]
    rows = rows.assign(label=relabel(labels, label_map, own_labels))
    return _drop_unlabelled(rows, labels, "label {!r} is dropped by data.label_map")


def _relabel_votes(cell: str, label_map: Mapping[str, str | None], own_labels: Sequence[str]) -> str:
    """A cell of `votes` with mapped labels; votes for dropped labels are removed."""
    votes = json.loads(cell or "{}")
    counts: Counter[str] = Counter()
    for label, count in zip(relabel(votes, label_map, own_labels), votes.values(), strict=True):
        if label is not None:
            counts[label] += count
    if not counts:
        return ""
    return json.dumps(counts, sort_keys=True)


def _drop_unlabelled(rows: pd.DataFrame, words: pd.Series, reason: str) -> tuple[pd.DataFrame, list[Skipped]]:
    """Leave out the rows whose label is missing; turns of a dialogue stay with their text alone, as context.

    Args:
        rows: rows with `label`.
        words: the label of each row before it was mapped.
        reason: template of the reason, formatted with that label.
    """
    missing = rows["label"].isna()
    if not missing.any():
        return rows.reset_index(drop=True), []
    columns = zip(rows["utterance_id"][missing], words[missing], rows["source_label"][missing], strict=True)
    skipped = [Skipped(name, reason.format(word), own) for name, word, own in columns]
    dialogue = rows.get("dialogue", pd.Series("", rows.index)).fillna("")
    context = missing & (dialogue != "") & (rows["text"] != "")
    rows = rows.assign(label=rows["label"].where(~missing, ""), audio=rows["audio"].where(~context, ""))
    return rows[~missing | context].reset_index(drop=True), skipped
