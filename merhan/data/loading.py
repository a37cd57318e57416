"""From the `data` section of a recipe to the rows of its splits, checked for errors and leaks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus, source_name
from merhan.data.corpora.table_corpus import HIDDEN
from merhan.data.leaks import Leak, audit, require_accepted_leaks
from merhan.data.manifest import FEATURES, in_split, is_context_only, unknown_speakers
from merhan.data.protocols import split
from merhan.data.stored_features import feature_width
from merhan.errors import InputError
from merhan.recipe.schema import DataRecipe
from processing_merhan import MerhanProcessor


class Data(NamedTuple):
    """The data of a run."""

    rows: pd.DataFrame  # the labelled rows, with the columns `split` and `duration` (seconds, 0 where not measured)
    dialogues: pd.DataFrame  # all rows, also those without a label; the context of a turn is taken from them
    protocol: dict[str, Any]  # name, version, hash, fold, folds, and the leaks as sentences
    notes: list[str]  # sentences about rows that were left out
    leaks: list[Leak]  # what the splits share; empty when only one split was asked for


def load_data(
    recipe: DataRecipe,
    modalities: Sequence[str],
    raw: Sequence[str],
    only: str | None = None,
    histories: Mapping[str, Any] | None = None,
) -> Data:
    """Read the rows that a recipe describes, split them by its protocol, and check them.

    Args:
        recipe: the `data` section of a recipe.
        modalities: the modalities that the model reads, some of `audio` and `text`. Rows that have none of them are
            left out. If the model reads audio, every recording is measured, and those decoded that never were before.
        raw: the modalities that a backbone computes from audio or text. The other ones are read from the manifest's
            feature columns (`audio_features`, `text_features`).
        only: the one split that is needed, for an evaluation; then recordings of other splits are not measured, their
            `duration` is 0, and no leaks are computed. By default train, validation and test must all be there.
        histories: recipe key of the initial weights (as `model.audio_backbone`) -> their provenance record, to find
            test speakers and corpora that they were trained on.

    Raises:
        InputError: the corpus, the protocol or a recording cannot be used; names the file and the row or key. Leaks
            are not an error here, see [`require_accepted_leaks`].
    """
    where = source_name(recipe.corpus, recipe.source)
    rows, dialogues, protocol, notes = _split_rows(recipe, modalities, raw, only)
    rows, facts = _with_durations(rows, modalities, where, only)
    leaks = []
    if not only:
        leaks = audit(rows, modalities, facts, histories)
        notes += filter(None, [unknown_speakers(rows)])
    protocol["leaks"] = [str(leak) for leak in leaks]
    return Data(rows, dialogues, protocol, notes, leaks)


def check_data(recipe: DataRecipe, modalities: Sequence[str], raw: Sequence[str], recordings: int = 4) -> list[str]:
    """Check table, columns, labels, splits, leaks, and the first recordings of each split, in seconds.

    Args:
        modalities, raw: as in [`load_data`].
        recordings: number of recordings of each split that are decoded.

    Returns:
        Sentences: what was checked, what was left out, and what was not checked.

    Raises:
        InputError: as [`load_data`], a recording that does not exist, or a leak that the recipe does not accept.
    """
    where = source_name(recipe.corpus, recipe.source)
    rows, _, _, notes = _split_rows(recipe, modalities, raw, None)
    first = rows.head(0)
    if "audio" in modalities:
        require_files(rows, where)
        first = rows[rows["audio"] != ""].groupby("split", sort=False).head(recordings)
        measure_recordings(first, where)
    require_accepted_leaks(audit(rows, modalities), recipe.accept_leaks)
    sizes = ", ".join(f"{name} {count}" for name, count in rows["split"].value_counts(sort=False).items())
    sentences = [f"{where}: {len(rows)} rows ({sizes}), labels {', '.join(sorted(rows['label'].unique()))}"]
    skipped = int((rows["audio"] != "").sum()) - len(first)
    if "audio" in modalities:
        sentences.append(f"decoded {len(first)} recordings; not checked: {skipped} others, and copies among recordings")
    return [*sentences, *notes, *filter(None, [unknown_speakers(rows)])]


def require_files(rows: pd.DataFrame, where: str):
    """Check that every recording exists, before the first one is decoded.

    Raises:
        InputError: names the first row whose recording does not exist, and counts the others.
    """
    missing = [bool(path) and not Path(path).is_file() for path in rows["audio"]]
    if not any(missing):
        return
    number = missing.index(True)
    first, place = rows.iloc[number], rows.index[number] + 1
    raise InputError(
        f"{where}, row {place} ({first['utterance_id']!r}): {first['audio']}: no such file, as {sum(missing)} of "
        f"{(rows['audio'] != '').sum()} recordings; paths of a table are relative to its folder, or to "
        f"data.options.root (`--option root=...`)."
    )


def _split_rows(
    recipe: DataRecipe, modalities: Sequence[str], raw: Sequence[str], only: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any], list[str]]:
    """The rows of the splits, the rows of the corpus, the protocol, and notes; nothing is decoded."""
    corpus = read_corpus(recipe.corpus, recipe.source, recipe.label_map, recipe.own_labels, **recipe.options)
    labelled = corpus.rows[~is_context_only(corpus.rows)]
    try:
        rows, protocol, protocol_notes = split(
            labelled, recipe.protocol, recipe.fold, only, recipe.shares, recipe.accept_leaks
        )
    except InputError as error:
        hidden = [remark for remark in corpus.remarks if HIDDEN in remark]
        if not hidden:
            raise
        remedy = "divide the labelled rows by data.protocol: grouped:speaker (or random)"
        raise InputError(f"{error} {'; '.join(hidden)}; {remedy}.") from None
    where = source_name(recipe.corpus, recipe.source)
    rows, modality_notes = keep_readable(rows, modalities, raw, where)
    for column in FEATURES:
        feature_width(rows, column)
    return rows, corpus.rows, protocol, [*corpus.notes, *protocol_notes, *modality_notes]


def _with_durations(
    rows: pd.DataFrame, modalities: Sequence[str], where: str, only: str | None
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The rows with their durations, measured if the model reads audio, and then the facts of the recordings."""
    if "audio" not in modalities:
        return rows.assign(duration=rows.get("duration", 0.0)), None
    needed = rows
    if only:
        needed = rows[in_split(rows, only)]
    require_files(needed, where)
    measured, facts = measure_recordings(needed, where)
    return rows.assign(duration=measured["duration"].reindex(rows.index, fill_value=0.0)), facts


def available_modalities(rows: pd.DataFrame, modalities: Sequence[str], raw: Sequence[str]) -> pd.DataFrame:
    """Which modalities each row has.

    Args:
        modalities, raw: as in [`load_data`].

    Returns:
        `(rows, modalities)` bool, named after the manifest columns that are read (`audio` or `audio_features`).
    """
    columns = [name if name in raw else f"{name}_features" for name in modalities]
    return rows.reindex(columns=columns, fill_value="") != ""


def long_sound_notes(rows: pd.DataFrame, processor: MerhanProcessor, where: str) -> list[str]:
    """A sentence about the rows with more sound than the model reads, if there are any.

    Args:
        rows: with `duration` in seconds, silence included.
        processor: its `max_seconds` is what the model reads, None = everything.
        where: name of the rows.
    """
    longest = processor.max_seconds
    if longest is None or "audio" not in processor.modalities:
        return []
    long = rows["duration"][rows["duration"] > longest]
    if long.empty:
        return []
    share = (long - longest).sum() / rows["duration"].sum()
    trimmed = ", before silence is trimmed" if processor.trim_silence is not None else ""
    return [
        f"{where}: {len(long)} of {len(rows)} rows have more than {longest:g} s of sound{trimmed}; the model reads the "
        f"middle {longest:g} s of each, and {share:.1%} of all sound is left out (data.max_seconds)"
    ]


def keep_readable(
    rows: pd.DataFrame, modalities: Sequence[str], raw: Sequence[str], where: str
) -> tuple[pd.DataFrame, list[str]]:
    """Leave out the rows that have none of the modalities.

    Args:
        modalities, raw: as in [`load_data`].
        where: name of the data, for messages.

    Returns:
        the remaining rows, and a sentence about the others if there are any.

    Raises:
        InputError: no row remains.
    """
    available = available_modalities(rows, modalities, raw)
    columns = list(available.columns)
    readable = available.any(axis=1)
    if not readable.any():
        raise InputError(
            f"{where}: no row has {' or '.join(columns)}, which is all that this model is to read; fill that column "
            f"of the manifest, or choose a model of another modality."
        )
    notes = []
    if not readable.all():
        missing = " and no ".join(columns)
        notes.append(f"{where}: {(~readable).sum()} of {len(rows)} rows left out, they have no {missing}")
    return rows[readable].reset_index(drop=True), notes
