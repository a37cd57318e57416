"""What test rows share with training, and must not: found before training, not explained afterwards.

Each check looks for one thing that stands on both sides of a split. A leak into test or validation stops a training,
unless the recipe names its kind in `data.accept_leaks`; then the report and the card say so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from merhan.errors import InputError, nearest
from merhan.inspection import Facts
from merhan.manifest import PATHS, in_split
from merhan.provenance import fingerprint


KINDS = ("speaker", "session", "dialogue", "take", "audio", "text", "label-in-text", "validation", "weights")
PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))
NEAR = 0.995  # cosine of two fingerprints above which they are one recording; see inspection.fingerprint


class Leak(NamedTuple):
    """Something that stands on both sides."""

    kind: str  # what `data.accept_leaks` names
    sides: tuple[str, str]  # the one that is trained on or chosen by, and the one that suffers
    rows: int  # how many rows of the second side it touches
    share: float  # of all its rows
    example: str  # one case, in words

    def __str__(self) -> str:
        return f"{self.kind}: {self.share:.1%} of {self.sides[1]} ({self.rows} rows), {self.example}"


def audit(
    rows: pd.DataFrame,
    modalities: Sequence[str],
    facts: Sequence[Facts | None] = (),
    histories: Mapping[str, Any] | None = None,
) -> list[Leak]:
    """Every leak between the splits of a manifest.

    Args:
        rows: a manifest with splits.
        modalities: what the model reads; equal words are no leak to a model that reads none.
        facts: of every row's recording, as `inspection.measure` gives them; without them recordings are not compared.
        histories: initial weights -> their provenance, where it is known.

    Kinds:
        speaker, session, dialogue: the same one on both sides (a session's partners share room, script and dialogue).
        take: one recording of RAVDESS under two modality codes.
        audio: the same recording, or a copy that was resampled, compressed or made louder.
        text: the same words, upper and lower case and punctuation aside.
        label-in-text: a sentence that occurs with one label only, so that its words give the label away.
        validation: validation rows that are test rows.
        weights: initial weights that were trained on this corpus, or on these speakers.
    """
    found: list[Leak] = []
    for column in ("speaker", "session", "dialogue"):
        if column in rows:
            found += _shared(rows, column, rows[column], lambda value, column=column: f"{column} {value!r}")
    found += _shared(rows, "take", _takes(rows), lambda value: f"take {value!r} under two codes")
    if len(facts):
        found += _copies(rows, facts)
    if "text" in modalities:
        found += _shared(rows, "text", normalised(rows["text"]), lambda value: f"as {value!r}")
        found += _giveaways(rows)
    found += _same_rows(rows)
    return found + _trained_before(rows, histories or {})


def known_leaks(record: Mapping[str, Any], rows: pd.DataFrame) -> list[str]:
    """What a finished model's own record says about testing it on these rows, in words.

    On the data of its training these are the leaks that its recipe accepted; on others, whether it was trained on their
    corpus or their speakers.
    """
    if record.get("data", {}).get("fingerprint") == fingerprint(rows):
        return record["protocol"].get("leaks", [])
    return [str(leak) for leak in _trained_before(rows, {"the model": record})]


def unaccepted(leaks: Sequence[Leak], accepted: Sequence[str]) -> list[Leak]:
    """Leaks that nobody named, by kind (`speaker`) or by kind and side (`speaker:validation`)."""
    if unknown := [name for name in accepted if name.partition(":")[0] not in KINDS]:
        raise InputError(f"data.accept_leaks: unknown leak {unknown[0]!r}{nearest(unknown[0], KINDS)}")
    return [leak for leak in leaks if not {leak.kind, f"{leak.kind}:{leak.sides[1]}"} & set(accepted)]


def require_accepted(leaks: Sequence[Leak], accepted: Sequence[str]):
    """Stop at leaks that the recipe does not accept; the error names each, and how to accept or avoid it."""
    if refused := unaccepted(leaks, accepted):
        kinds = ", ".join(dict.fromkeys(leak.kind for leak in refused))
        raise InputError(
            f"data: the splits leak. {'. '.join(map(str, refused))}. Split otherwise (data.protocol), or accept it "
            f"knowingly with data.accept_leaks: [{kinds}]; the report and the card will say so."
        )


def _shared(rows: pd.DataFrame, kind: str, keys: pd.Series, words: Callable[[str], str]) -> list[Leak]:
    """Values of a key that stand in both splits of a pair; empty values are nobody's."""
    found = []
    for one, other in PAIRS:
        known = set(keys[in_split(rows, one)]) - {""}
        side = keys[in_split(rows, other)]
        touched = side[side.isin(known)]
        if len(touched):
            example = f"{words(touched.iloc[0])} is also in {one}"
            found.append(Leak(kind, (one, other), len(touched), len(touched) / len(side), example))
    return found


def normalised(texts: pd.Series) -> pd.Series:
    """Words alone: lower case, without punctuation, single spaces."""
    return texts.str.casefold().str.replace(r"[^\w\s]", "", regex=True).str.split().str.join(" ")


def _takes(rows: pd.DataFrame) -> pd.Series:
    """RAVDESS numbers without the first, which says audio-visual, video or audio of the same recording."""
    stems = rows["audio"].map(lambda audio: Path(audio).stem)
    return stems.map(lambda stem: stem[3:] if re.fullmatch(r"\d\d(-\d\d){6}", stem) else "")


def _copies(rows: pd.DataFrame, facts: Sequence[Facts | None]) -> list[Leak]:
    """Recordings of a split that stand, as they are or altered, in another one."""
    heard = np.array([one is not None for one in facts])
    found = []
    for one, other in PAIRS:
        left, right = (np.flatnonzero(heard & in_split(rows, name).to_numpy()) for name in (one, other))
        if not (len(left) and len(right)):
            continue
        known = NearestNeighbors(n_neighbors=1).fit(np.stack([facts[row].fingerprint for row in left]))
        distance, nearest = known.kneighbors(np.stack([facts[row].fingerprint for row in right]))
        # Of unit vectors: squared distance = 2 - 2 cosine.
        copies = [
            (row, left[near])
            for row, far, near in zip(right, distance[:, 0], nearest[:, 0], strict=True)
            if 1 - far**2 / 2 > NEAR
            and abs(facts[row].duration - facts[left[near]].duration) < 0.05 * facts[row].duration
        ]
        if copies:
            ours, theirs = (rows["utterance_id"].iloc[row] for row in copies[0])
            example = f"as {ours!r}, which is {theirs!r} of {one}"
            found.append(Leak("audio", (one, other), len(copies), len(copies) / len(right), example))
    return found


def _giveaways(rows: pd.DataFrame) -> list[Leak]:
    """Test rows whose sentence the training set knows under one label only, although it knows it several times.

    The sentence's id counts where a corpus has one (MEAD's emotion-specific sentences have no text in the archive),
    else its words. Three occurrences by two speakers make a pattern.
    """
    sentence = normalised(rows["text"])
    if "sentence" in rows:
        sentence = sentence.mask(rows["sentence"] != "", rows["sentence"])
    train = rows.assign(sentence=sentence)[(rows["split"] == "train") & (sentence != "")]
    speaker = "speaker" if "speaker" in rows else "utterance_id"
    table = train.groupby("sentence").agg(n=("label", "size"), labels=("label", "nunique"), voices=(speaker, "nunique"))
    telling = set(table[(table["n"] >= 3) & (table["voices"] >= 2) & (table["labels"] == 1)].index)
    side = in_split(rows, "test")
    touched = rows[side & sentence.isin(telling)]
    # A few sentences are said in one mood only by chance; a tenth of the test set is no chance.
    if len(touched) < 0.1 * max(side.sum(), 1):
        return []
    first = touched.iloc[0]
    example = f"as {sentence[first.name]!r}, which train knows as {first['label']} alone"
    return [Leak("label-in-text", ("train", "test"), len(touched), len(touched) / side.sum(), example)]


def _same_rows(rows: pd.DataFrame) -> list[Leak]:
    """Validation rows that are test rows: then the best epoch is chosen on test."""
    columns = [column for column in (*PATHS, "start", "end", "text") if column in rows]
    keys = rows[columns].astype(str).agg("\0".join, axis=1)
    tested = set(keys[in_split(rows, "test")])
    side = rows[rows["split"] == "validation"]
    touched = side[keys[side.index].isin(tested)]
    # A few equal rows are the text or audio check's business; this one is about the same set under two names.
    if len(touched) < 0.5 * max(len(side), 1):
        return []
    example = f"as {touched['utterance_id'].iloc[0]!r}"
    return [Leak("validation", ("test", "validation"), len(touched), len(touched) / len(side), example)]


def _trained_before(rows: pd.DataFrame, histories: Mapping[str, Any]) -> list[Leak]:
    """Initial weights whose own record names the corpora or the speakers that are tested here."""
    side = rows[in_split(rows, "test")]
    found = []
    for name, history in histories.items():
        corpora, speakers = _seen(history)
        touched = side["corpus"].isin(corpora)
        if "speaker" in side and not touched.any():
            touched = side["speaker"].isin(speakers) & (side["speaker"] != "")
        if touched.any():
            what = f"{name} was trained on {', '.join(sorted(corpora)) or 'these speakers'}"
            found.append(Leak("weights", ("initial weights", "test"), int(touched.sum()), float(touched.mean()), what))
    return found


def _seen(history: Any) -> tuple[set[str], set[str]]:
    """Corpora and training speakers that a provenance record, and the records within it, name."""
    if not isinstance(history, Mapping):
        return set(), set()
    data = history.get("data", {})
    speakers = {name for part in ("train", "validation") for name in data.get("speakers", {}).get(part, ())}
    # A corpus counts as a whole only where its speakers are unknown: other speakers of it are what folds are for.
    corpora = set(data.get("corpora_without_speakers", () if speakers else data.get("corpora", ())))
    for earlier in (history.get("initial_weights") or {}).values():
        more_corpora, more_speakers = _seen(earlier)
        corpora, speakers = corpora | more_corpora, speakers | more_speakers
    return corpora, speakers
