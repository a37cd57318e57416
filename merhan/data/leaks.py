"""Checks for leaks: what validation and test rows share with training, found before a model is trained.

Each check compares one property between two splits. A leak into validation or test stops a training run unless the
recipe names its kind in `data.accept_leaks`; an accepted leak is listed in the report and the model card.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.spatial import cKDTree

from merhan.data.manifest import PATHS, in_split, map_strings
from merhan.data.provenance import hidden_speaker, rows_hash
from merhan.errors import InputError, did_you_mean
from merhan.reporting.markdown_tables import markdown_table


KINDS = ("speaker", "session", "dialogue", "take", "audio", "text", "label-in-text", "validation", "weights")

# Pairs of splits: the one that a model is trained on or selected by, and the one whose results are affected.
PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))

# Two recordings are copies of each other if the cosine of their fingerprints is above this (see
# `audio_facts.acoustic_fingerprint`) and their durations differ by less than this share.
COPY_COSINE = 0.995
COPY_DURATION = 0.05

_PUNCTUATION = re.compile(r"[^\w\s]")

_RAVDESS_NAME = r"(?:^|[/\\])\d\d-(\d\d(?:-\d\d){5})(?:\.[^./\\]*)?$"

# The search for copies: how far two of them can be apart in duration (after scaling) and altogether (with a margin for
# rounding), how many coordinates of the fingerprint are looked at, and how many rows are looked at together.
SEARCH_DURATION = 0.07
SEARCH_RADIUS = math.hypot(math.sqrt(2 - 2 * COPY_COSINE), SEARCH_DURATION) + 1e-4
SEARCH_AXES = 8
SEARCH_CHUNK = 1000

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
    facts: np.ndarray | None = None,
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
        weights: initial weights that were trained on test speakers, or on the tested corpus where speakers are
            unknown.
    """
    leaks: list[Leak] = []
    for shared in _checks(rows, modalities, facts, histories or {}):
        leaks += shared
        pa.default_memory_pool().release_unused()  # what a check has freed, and arrow would keep
    return leaks


def _checks(
    rows: pd.DataFrame, modalities: Sequence[str], facts: np.ndarray | None, histories: Mapping[str, Any]
) -> Iterator[list[Leak]]:
    """The leaks of one check after the other; arguments as in [`audit`]."""
    for column in ("speaker", "session", "dialogue"):
        if column in rows:
            yield _shared(rows, column, rows[column], f"{column} {{!r}}")
    yield _shared(rows, "take", _takes(rows), "take {!r} under two codes")
    if facts is not None:
        yield _copies(rows, facts)
    if "text" in modalities:
        yield from _text_checks(rows)
    yield _same_rows(rows)
    yield _leaking_weights(rows, histories)


def _text_checks(rows: pd.DataFrame) -> Iterator[list[Leak]]:
    texts = normalise_text(rows["text"])
    yield _shared(rows, "text", texts, "text {!r}")
    yield _label_in_text(rows, texts)


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
    return map_strings(texts, lambda text: " ".join(_PUNCTUATION.sub("", text.casefold()).split()))


def _shared(rows: pd.DataFrame, kind: str, keys: pd.Series, template: str) -> list[Leak]:
    """Leaks by keys that both splits of a pair contain.

    Args:
        kind: kind of the leak.
        keys: one key per row; empty keys are ignored.
        template: format of a key in the example, as `"speaker {!r}"`.
    """
    leaks = []
    for reference, affected in PAIRS:
        candidates = keys[in_split(rows, affected)]
        known = keys[in_split(rows, reference) & keys.isin(candidates.unique())].unique()
        shared = candidates[candidates.isin(known) & (candidates != "")]
        if len(shared):
            example = f"{template.format(shared.iloc[0])} is also in {reference}"
            leaks.append(Leak(kind, (reference, affected), len(shared), len(shared) / len(candidates), example))
    return leaks


def _takes(rows: pd.DataFrame) -> pd.Series:
    """RAVDESS file names without the first field (the modality: audio-visual, video or audio), empty for others."""
    return rows["audio"].str.extract(_RAVDESS_NAME, expand=False).fillna("")


def _copies(rows: pd.DataFrame, facts: np.ndarray) -> list[Leak]:
    """Leaks by recordings that are in two splits, as the same file or as an altered copy."""
    recorded = facts["duration"] > 0
    names = rows["utterance_id"]
    points = _search_points(facts, recorded)
    identities = pd.factorize(facts["digest"])[0]  # equal numbers for the same samples at the same rate
    leaks = []
    for reference, affected in PAIRS:
        references = np.flatnonzero(recorded & in_split(rows, reference).to_numpy())
        candidates = np.flatnonzero(recorded & in_split(rows, affected).to_numpy())
        copies: dict[int, int] = {}
        if len(candidates) and len(references):
            copies = _matching_recordings(facts, identities, points, candidates, references)
        if copies:
            copy, original = min(copies.items())
            example = f"{names.iloc[copy]!r} is a copy of {names.iloc[original]!r} of {reference}"
            leaks.append(Leak("audio", (reference, affected), len(copies), len(copies) / len(candidates), example))
    return leaks


def _matching_recordings(
    facts: np.ndarray, identities: np.ndarray, points: np.ndarray, candidates: np.ndarray, references: np.ndarray
) -> dict[int, int]:
    """The candidates that are copies of a reference -> the most similar one, by row numbers.

    The same samples are recognised by their identity, a number per row; altered copies among the points that are near
    each other. So the time grows with the number of recordings, and not with its square.
    """
    known, first = np.unique(identities[references], return_index=True)
    distinct = references[first]
    positions = np.searchsorted(known, identities[candidates]).clip(max=len(known) - 1)
    same = known[positions] == identities[candidates]
    matches = dict(zip(candidates[same].tolist(), distinct[positions[same]].tolist(), strict=True))
    others = candidates[~same]
    others = others[points[others, 1].argsort()]  # neighbours one after another are found faster
    tree = cKDTree(points[distinct])
    for start in range(0, len(others), SEARCH_CHUNK):
        chunk = others[start : start + SEARCH_CHUNK]
        near = tree.query_ball_point(points[chunk], SEARCH_RADIUS)
        pairs = [(row, distinct[numbers]) for row, numbers in zip(chunk.tolist(), near, strict=True) if numbers]
        matches |= {row: match for row, nearby in pairs for match in _most_similar(facts, row, nearby)}
    return matches


def _most_similar(facts: np.ndarray, row: int, references: np.ndarray) -> list[int]:
    """Of some references the one that is the same recording as a row, if any, by row numbers."""
    duration = facts["duration"][row]
    alike = references[np.abs(facts["duration"][references] - duration) < COPY_DURATION * duration]
    if not len(alike):
        return []
    cosines = _unit_fingerprints(facts, alike) @ _unit_fingerprints(facts, [row])[0]
    return [int(alike[cosines.argmax()])] if cosines.max() > COPY_COSINE else []


def _search_points(facts: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """A point per row, `(rows, 1 + SEARCH_AXES)`; the points of two copies are at most `SEARCH_RADIUS` apart.

    The coordinates are the logarithm of the duration, and the projection of the fingerprint of unit length to the axes
    along which fingerprints differ most. The projection of a difference is never longer than the difference itself,
    which is `sqrt(2 - 2 cosine)`, so no copy is missed.
    """
    rows = np.flatnonzero(recorded)
    points = np.zeros((len(facts), 1 + SEARCH_AXES), dtype=np.float32)
    if not len(rows):
        return points
    sample = _unit_fingerprints(facts, rows[:: len(rows) // 2000 + 1])
    axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:SEARCH_AXES].T
    for start in range(0, len(rows), SEARCH_CHUNK):
        chunk = rows[start : start + SEARCH_CHUNK]
        points[chunk, 1 : 1 + axes.shape[1]] = _unit_fingerprints(facts, chunk) @ axes
    points[rows, 0] = np.log(facts["duration"][rows]) * SEARCH_DURATION / -math.log(1 - COPY_DURATION)
    return points


def _unit_fingerprints(facts: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """`(rows, BANDS * SEGMENTS)` float32, of unit length; zeros for silence."""
    fingerprints = facts["fingerprint"][rows].astype(np.float32)
    return fingerprints / np.maximum(np.linalg.norm(fingerprints, axis=1, keepdims=True), 1e-9)


def _label_in_text(rows: pd.DataFrame, texts: pd.Series) -> list[Leak]:
    """A leak by test rows whose sentence occurs in train repeatedly and with one label only."""
    sentences = _sentences(rows, texts)
    tested = in_split(rows, "test")
    fixed = _fixed_labels(rows, sentences, sentences[tested].unique())
    affected = rows.loc[tested & sentences.isin(fixed), ["label"]]
    if len(affected) < FIXED_LABEL_SHARE * max(tested.sum(), 1):
        return []
    first = affected.iloc[0]
    example = f"{sentences[first.name]!r} has the label {first['label']} everywhere in train"
    return [Leak("label-in-text", ("train", "test"), len(affected), len(affected) / tested.sum(), example)]


def _sentences(rows: pd.DataFrame, texts: pd.Series) -> pd.Series:
    """The sentence of each row: its id where the corpus has one (MEAD has ids but no text), else its text."""
    if "sentence" not in rows:
        return texts
    return texts.mask(rows["sentence"] != "", rows["sentence"])


def _fixed_labels(rows: pd.DataFrame, sentences: pd.Series, tested: Collection[str]) -> list[str]:
    """Those of the tested sentences that train has repeatedly and with one label only."""
    train = (rows["split"] == "train") & sentences.isin(tested) & (sentences != "")
    speaker = "speaker" if "speaker" in rows else "utterance_id"
    sayings = rows.loc[train, ["label", speaker]].groupby(sentences[train])
    counts = sayings.agg(rows=("label", "size"), labels=("label", "nunique"), speakers=(speaker, "nunique"))
    frequent = (counts["rows"] >= FIXED_LABEL_ROWS) & (counts["speakers"] >= FIXED_LABEL_SPEAKERS)
    return list(counts.index[frequent & (counts["labels"] == 1)])


def _same_rows(rows: pd.DataFrame) -> list[Leak]:
    """A leak by validation rows that are test rows, so that the best epoch is chosen on test."""
    columns = [column for column in (*PATHS, "start", "end", "text") if column in rows]
    tested = rows.loc[in_split(rows, "test"), columns].drop_duplicates()
    validation = rows.loc[rows["split"] == "validation", ["utterance_id", *columns]]
    matches = validation[columns].merge(tested, how="left", indicator=True)["_merge"] == "both"
    affected = validation[matches.to_numpy()]
    if len(affected) < SAME_SET_SHARE * max(len(validation), 1):
        return []
    example = f"{affected['utterance_id'].iloc[0]!r} is also a test row"
    return [Leak("validation", ("test", "validation"), len(affected), len(affected) / len(validation), example)]


def _leaking_weights(rows: pd.DataFrame, histories: Mapping[str, Any]) -> list[Leak]:
    """Leaks by initial weights whose provenance names the tested corpora or speakers."""
    tested = rows.loc[in_split(rows, "test"), [name for name in ("corpus", "speaker") if name in rows]]
    leaks = []
    for name, history in histories.items():
        corpora, speakers = _corpora_and_speakers(history)
        affected = tested["corpus"].isin(corpora)
        if "speaker" in tested and not affected.any():
            names = tested["speaker"]
            affected = (names.isin(speakers) | names.map(hidden_speaker).isin(speakers)) & (names != "")
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
