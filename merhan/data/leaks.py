"""Checks for leaks: what validation and test rows share with training, found before a model is trained.

Each check compares one property between two splits. A leak into validation or test stops a training run unless the
recipe names its kind in `data.accept_leaks`; an accepted leak is listed in the report and the model card.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from merhan.data.audio_facts import AudioFacts
from merhan.data.manifest import PATHS, in_split
from merhan.data.provenance import rows_hash
from merhan.errors import InputError, did_you_mean
from merhan.reporting.markdown_tables import markdown_table


KINDS = ("speaker", "session", "dialogue", "take", "audio", "text", "label-in-text", "validation", "weights")

# Pairs of splits: the one that a model is trained on or selected by, and the one whose results are affected.
PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))

# Two recordings are copies of each other if the cosine of their fingerprints is above this (see
# `audio_facts.acoustic_fingerprint`) and their durations differ by less than this share.
COPY_COSINE = 0.995
COPY_DURATION = 0.05

# A sentence has a fixed label if train has it at least this often, by at least this many speakers, and with one label
# only. Below a tenth of the test rows such sentences are attributed to chance.
FIXED_LABEL_ROWS = 3
FIXED_LABEL_SPEAKERS = 2
FIXED_LABEL_SHARE = 0.1

# A few validation rows that equal test rows are reported by the text and audio checks. From this share on, the
# validation set is considered to be the test set.
SAME_SET_SHARE = 0.5


class Leak(NamedTuple):
    """A property that rows of two splits share."""

    kind: str  # one of KINDS, the name to use in `data.accept_leaks`
    sides: tuple[str, str]  # the split that is trained on or selected by, and the affected one
    rows: int  # number of affected rows
    share: float  # their share of the affected split, 0 to 1
    example: str  # one case, as a sentence

    def __str__(self) -> str:
        return f"{self.kind}: {self.share:.1%} of {self.sides[1]} ({self.rows} rows), {self.example}"


def audit(
    rows: pd.DataFrame,
    modalities: Sequence[str],
    facts: Sequence[AudioFacts | None] = (),
    histories: Mapping[str, Any] | None = None,
) -> list[Leak]:
    """Find every leak between the splits of a manifest.

    Args:
        rows: a manifest with splits.
        modalities: what the model reads; texts are only compared if it reads `text`.
        facts: the facts of each row's recording, from [`measure_recordings`]; without them audio is not compared.
        histories: name of initial weights -> their provenance record, where it is known.

    Kinds:
        speaker, session, dialogue: the same value in both splits (the partners of a session share acoustics, script
            and dialogue).
        take: one RAVDESS recording under two modality codes.
        audio: the same recording, or a copy that was resampled, compressed or amplified.
        text: the same text, ignoring case and punctuation.
        label-in-text: a sentence that train has with one label only, so that the text determines the label.
        validation: a validation set that consists of test rows.
        weights: initial weights that were trained on the tested corpus or speakers.
    """
    leaks: list[Leak] = []
    for column in ("speaker", "session", "dialogue"):
        if column in rows:
            leaks += _shared(rows, column, rows[column], f"{column} {{!r}}")
    leaks += _shared(rows, "take", _takes(rows), "take {!r} under two codes")
    if len(facts):
        leaks += _copies(rows, facts)
    if "text" in modalities:
        leaks += _shared(rows, "text", normalise_text(rows["text"]), "text {!r}")
        leaks += _label_in_text(rows)
    leaks += _same_rows(rows)
    return leaks + _leaking_weights(rows, histories or {})


def known_leaks(record: Mapping[str, Any], rows: pd.DataFrame) -> list[str]:
    """The leaks that affect a test of a finished model, as sentences.

    Args:
        record: the model's provenance record.
        rows: the manifest that it is tested on. For the data that it was trained on, these are the leaks which its
            recipe accepted; for other data, whether it was trained on their corpus or speakers.
    """
    if record.get("data", {}).get("fingerprint") == rows_hash(rows):
        return record["protocol"].get("leaks", [])
    return [str(leak) for leak in _leaking_weights(rows, {"the model": record})]


def leak_table(leaks: Sequence[Leak], refused: Sequence[Leak]) -> str:
    """A Markdown table of leaks.

    Args:
        leaks: the leaks to list.
        refused: those of them that the recipe does not accept.
    """
    rows = []
    for leak in leaks:
        accepted = "no" if leak in refused else "yes"
        splits = " and ".join(leak.sides)
        rows.append([leak.kind, splits, str(leak.rows), f"{leak.share:.1%}", accepted, leak.example])
    return markdown_table(["leak", "between", "rows", "share", "accepted", "example"], rows)


def unaccepted_leaks(leaks: Sequence[Leak], accepted: Sequence[str]) -> list[Leak]:
    """The leaks that a recipe does not accept.

    Args:
        leaks: the leaks of its data.
        accepted: `data.accept_leaks`: kinds (`speaker`), or kinds with the affected split (`speaker:validation`).

    Raises:
        InputError: `accepted` has an unknown kind.
    """
    for name in accepted:
        if name.partition(":")[0] not in KINDS:
            raise InputError(f"data.accept_leaks: unknown leak {name!r}{did_you_mean(name, KINDS)}")
    return [leak for leak in leaks if not {leak.kind, f"{leak.kind}:{leak.sides[1]}"} & set(accepted)]


def require_accepted_leaks(leaks: Sequence[Leak], accepted: Sequence[str]):
    """Refuse data whose leaks are not all accepted.

    Args:
        leaks, accepted: as in [`unaccepted_leaks`].

    Raises:
        InputError: names each leak that is not accepted, and how to avoid or accept it.
    """
    refused = unaccepted_leaks(leaks, accepted)
    if refused:
        kinds = ", ".join(dict.fromkeys(leak.kind for leak in refused))
        raise InputError(
            f"data: the splits leak. {'. '.join(map(str, refused))}. Choose another split (data.protocol), or accept "
            f"it with data.accept_leaks: [{kinds}]; the report and the model card will then list it."
        )


def normalise_text(texts: pd.Series) -> pd.Series:
    """Lower-case texts without punctuation, their words separated by single spaces."""
    return texts.str.casefold().str.replace(r"[^\w\s]", "", regex=True).str.split().str.join(" ")


def _shared(rows: pd.DataFrame, kind: str, keys: pd.Series, template: str) -> list[Leak]:
    """Leaks by keys that both splits of a pair contain.

    Args:
        kind: kind of the leak.
        keys: one key per row; empty keys are ignored.
        template: format of a key in the example, as `"speaker {!r}"`.
    """
    leaks = []
    for reference, affected in PAIRS:
        known = set(keys[in_split(rows, reference)]) - {""}
        candidates = keys[in_split(rows, affected)]
        shared = candidates[candidates.isin(known)]
        if len(shared):
            example = f"{template.format(shared.iloc[0])} is also in {reference}"
            leaks.append(Leak(kind, (reference, affected), len(shared), len(shared) / len(candidates), example))
    return leaks


def _takes(rows: pd.DataFrame) -> pd.Series:
    """RAVDESS file names without the first field (the modality: audio-visual, video or audio), empty for others."""
    return rows["audio"].map(_take)


def _take(audio: str) -> str:
    stem = Path(audio).stem
    if re.fullmatch(r"\d\d(-\d\d){6}", stem):
        return stem[3:]
    return ""


def _copies(rows: pd.DataFrame, facts: Sequence[AudioFacts | None]) -> list[Leak]:
    """Leaks by recordings that are in two splits, as the same file or as an altered copy."""
    known = {row: fact for row, fact in enumerate(facts) if fact is not None}
    names = rows["utterance_id"]
    leaks = []
    for reference, affected in PAIRS:
        in_reference = in_split(rows, reference).to_numpy()
        in_affected = in_split(rows, affected).to_numpy()
        references = {row: fact for row, fact in known.items() if in_reference[row]}
        candidates = {row: fact for row, fact in known.items() if in_affected[row]}
        copies = _matching_recordings(candidates, references)
        if copies:
            copy, original = copies[0]
            example = f"{names.iloc[copy]!r} is a copy of {names.iloc[original]!r} of {reference}"
            leaks.append(Leak("audio", (reference, affected), len(copies), len(copies) / len(candidates), example))
    return leaks


def _matching_recordings(
    candidates: Mapping[int, AudioFacts], references: Mapping[int, AudioFacts]
) -> list[tuple[int, int]]:
    """The candidates whose nearest reference is the same recording, as pairs of row numbers."""
    if not candidates or not references:
        return []
    numbers = list(references)
    neighbors = NearestNeighbors(n_neighbors=1).fit(np.stack([fact.fingerprint for fact in references.values()]))
    distances, nearest = neighbors.kneighbors(np.stack([fact.fingerprint for fact in candidates.values()]))
    pairs = []
    for row, distance, position in zip(candidates, distances[:, 0], nearest[:, 0], strict=True):
        match = numbers[position]
        cosine = 1 - distance**2 / 2  # of unit vectors
        duration = candidates[row].duration
        difference = abs(duration - references[match].duration)
        if cosine > COPY_COSINE and difference < COPY_DURATION * duration:
            pairs.append((row, match))
    return pairs


def _label_in_text(rows: pd.DataFrame) -> list[Leak]:
    """A leak by test rows whose sentence occurs in train repeatedly and with one label only."""
    sentences = _sentences(rows)
    fixed = _fixed_labels(rows, sentences)
    tested = in_split(rows, "test")
    affected = rows[tested & sentences.isin(fixed)]
    if len(affected) < FIXED_LABEL_SHARE * max(tested.sum(), 1):
        return []
    first = affected.iloc[0]
    example = f"{sentences[first.name]!r} has the label {first['label']} everywhere in train"
    return [Leak("label-in-text", ("train", "test"), len(affected), len(affected) / tested.sum(), example)]


def _sentences(rows: pd.DataFrame) -> pd.Series:
    """The sentence of each row: its id where the corpus has one (MEAD has ids but no text), else its text."""
    sentences = normalise_text(rows["text"])
    if "sentence" in rows:
        sentences = sentences.mask(rows["sentence"] != "", rows["sentence"])
    return sentences


def _fixed_labels(rows: pd.DataFrame, sentences: pd.Series) -> set[str]:
    """The sentences that train has repeatedly and with one label only."""
    train = rows.assign(sentence=sentences)[(rows["split"] == "train") & (sentences != "")]
    speaker = "speaker" if "speaker" in rows else "utterance_id"
    counts = train.groupby("sentence").agg(
        rows=("label", "size"), labels=("label", "nunique"), speakers=(speaker, "nunique")
    )
    frequent = (counts["rows"] >= FIXED_LABEL_ROWS) & (counts["speakers"] >= FIXED_LABEL_SPEAKERS)
    return set(counts[frequent & (counts["labels"] == 1)].index)


def _same_rows(rows: pd.DataFrame) -> list[Leak]:
    """A leak by validation rows that are test rows, so that the best epoch is chosen on test."""
    columns = [column for column in (*PATHS, "start", "end", "text") if column in rows]
    keys = rows[columns].astype(str).agg("\0".join, axis=1)
    tested = set(keys[in_split(rows, "test")])
    validation = rows[rows["split"] == "validation"]
    affected = validation[keys[validation.index].isin(tested)]
    if len(affected) < SAME_SET_SHARE * max(len(validation), 1):
        return []
    example = f"{affected['utterance_id'].iloc[0]!r} is also a test row"
    return [Leak("validation", ("test", "validation"), len(affected), len(affected) / len(validation), example)]


def _leaking_weights(rows: pd.DataFrame, histories: Mapping[str, Any]) -> list[Leak]:
    """Leaks by initial weights whose provenance names the tested corpora or speakers."""
    tested = rows[in_split(rows, "test")]
    leaks = []
    for name, history in histories.items():
        corpora, speakers = _corpora_and_speakers(history)
        affected = tested["corpus"].isin(corpora)
        if "speaker" in tested and not affected.any():
            affected = tested["speaker"].isin(speakers) & (tested["speaker"] != "")
        if affected.any():
            example = f"{name} was trained on {', '.join(sorted(corpora)) or 'these speakers'}"
            sides = ("initial weights", "test")
            leaks.append(Leak("weights", sides, int(affected.sum()), float(affected.mean()), example))
    return leaks


def _corpora_and_speakers(history: Any) -> tuple[set[str], set[str]]:
    """The corpora and speakers of train and validation that a provenance record and its nested records name."""
    if not isinstance(history, Mapping):
        return set(), set()
    data = history.get("data", {})
    speakers = {name for part in ("train", "validation") for name in data.get("speakers", {}).get(part, ())}
    corpora = _whole_corpora(data, speakers)
    for earlier in (history.get("initial_weights") or {}).values():
        more_corpora, more_speakers = _corpora_and_speakers(earlier)
        corpora, speakers = corpora | more_corpora, speakers | more_speakers
    return corpora, speakers


def _whole_corpora(data: Mapping[str, Any], speakers: set[str]) -> set[str]:
    """The corpora without known speakers. Of the others, speakers that were held out may be tested."""
    if "corpora_without_speakers" in data:
        return set(data["corpora_without_speakers"])
    if speakers:
        return set()
    return set(data.get("corpora", ()))
