"""Manifest rows -> examples -> padded batches."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset, default_collate
from tqdm.auto import tqdm

from merhan.augmentation import (
    BABBLE_VOICES,
    AugmentationRecipe,
    TranscriptNoiseRecipe,
    augment,
    with_word_errors,
)
from merhan.corpora import called, read_corpus
from merhan.errors import InputError
from merhan.inspection import measure, segment
from merhan.leaks import Leak, audit
from merhan.manifest import FEATURES, context_only
from merhan.protocols import split
from merhan.recipe import DataRecipe
from processing_merhan import MerhanProcessor


class Data(NamedTuple):
    """What a run reads."""

    rows: pd.DataFrame  # every row that counts, with its split and duration
    dialogues: pd.DataFrame  # every row that was said, also those without a label: context comes from these
    protocol: dict[str, Any]  # name, version, hash, fold, folds, and what leaks all the same
    notes: list[str]  # sentences about what was left out
    leaks: list[Leak]  # what the splits share


def load_data(
    recipe: DataRecipe,
    modalities: Sequence[str],
    raw: Sequence[str],
    only: str | None = None,
    histories: Mapping[str, Any] | None = None,
) -> Data:
    """Read, split and check a recipe's data.

    Args:
        modalities: what the model is to read; rows that have none of it are left out, recordings are checked if it
            reads sound.
        raw: those of them that a backbone reads as sound or words; the others are read from the columns of features.
        only: one split, for an evaluation; without it all three must be there, and are audited for leaks.
        histories: initial weights -> their provenance, for the audit.
    """
    where = called(recipe.corpus, recipe.source)
    corpus = read_corpus(recipe.corpus, recipe.source, recipe.label_map, **recipe.options)
    labelled = corpus.rows[~context_only(corpus.rows)]
    rows, protocol, by_protocol = split(labelled, recipe.protocol, recipe.fold, only)
    rows, left_out = readable(rows, modalities, raw, where)
    for column in FEATURES:
        feature_width(rows, column)
    rows, facts = (
        measure(rows, where) if "audio" in modalities else (rows.assign(duration=rows.get("duration", 0.0)), [])
    )
    leaks = [] if only else audit(rows, modalities, facts, histories)
    protocol["leaks"] = [str(leak) for leak in leaks]
    return Data(rows, corpus.rows, protocol, [*corpus.notes, *by_protocol, *left_out], leaks)


class EmotionDataset(Dataset):
    """Utterances of a manifest, decoded when they are asked for.

    Args:
        rows: the utterances of one split.
        dialogues: rows to take the context from, the same or more.
        processor: makes sound and text what the model reads.
        label2id: label -> class id.
        modalities: which of the model's modalities to give.
        augmentation: what happens to the sound, anew in every epoch.
        transcript_noise: what happens to the words, those of the context too; substitutes are words of `rows`.
        seed: of these draws, together with the epoch and the row.
        dimensions: columns of numbers that a second head learns, as `valence`; an empty cell is not annotated.
        soft_labels: whether the labels are distributions, of the raters' votes; `labels` are class ids all the same.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        processor: MerhanProcessor,
        label2id: Mapping[str, int],
        modalities: Sequence[str],
        dialogues: pd.DataFrame | None = None,
        augmentation: AugmentationRecipe | None = None,
        transcript_noise: TranscriptNoiseRecipe | None = None,
        seed: int = 0,
        dimensions: Sequence[str] = (),
        soft_labels: bool = False,
    ):
        self.rows = rows.reset_index(drop=True)
        self.processor = processor
        self.modalities = list(modalities)
        self.labels = [label2id[label] for label in self.rows["label"]]
        self.targets = distributions(self.rows, label2id) if soft_labels else self.labels
        self.dimensions = self._dimensions(dimensions)
        self.augmentation = augmentation or AugmentationRecipe()
        self.transcript_noise = transcript_noise
        self.seed = seed
        self.epoch = 0
        # Modality -> one .npy file per row, read in place of the raw input; see feature_cache.
        self.features: dict[str, list[Path | None]] = {}
        # The same of what no backbone reads: features that are the data's own.
        missing = pd.Series("", self.rows.index)
        self.given = {
            name: self.rows.get(f"{name}_features", missing).tolist()
            for name in self.modalities
            if name not in processor.modalities
        }
        # Name -> a number per row, `(rows,)`, that the batch carries along for a strategy of training.
        self.extras: dict[str, torch.Tensor] = {}
        self.segments = list(self.rows.reindex(columns=["audio", "start", "end"]).itertuples(index=False, name=None))
        self.heard = np.array([row for row, (audio, *_) in enumerate(self.segments) if audio])
        self.words = [word for text in self.rows["text"] for word in text.split()]
        self.turns = self._turns(self.rows if dialogues is None else dialogues)
        self.tokens = [self._tokens_of(*turn) for turn in tqdm(self.turns, desc="encoding text", leave=False, delay=2)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example: dict[str, Any] = {"labels": self.targets[index]}
        if self.extras:
            example["extras"] = {name: values[index] for name, values in self.extras.items()}
        if self.dimensions is not None:
            example["dimension_targets"] = self.dimensions[index]
        features = self.given | self.features
        for name, files in features.items():
            example[f"{name}_features"] = read_features(files[index]) if files[index] else None
        if "audio" in self.modalities and "audio" not in features:
            waveform = self.waveform(index)
            example["audio"] = None if waveform is None else self._augmented(waveform, index)
        if "text" in self.modalities and "text" not in features:
            example["text"] = self._misheard(index) if self.transcript_noise else self.tokens[index]
        return example

    @property
    def lengths(self) -> list[float]:
        """What a row costs: seconds of sound where there is sound to read, tokens otherwise."""
        if "audio" in self.modalities and self.rows["duration"].any():
            return self.rows["duration"].clip(upper=self.processor.max_seconds or np.inf).tolist()
        return [len(ids or ()) for ids in self.tokens]

    @property
    def changing(self) -> set[str]:
        """Modalities that are others in every epoch, so that no backbone's features of them can be kept."""
        audio, text = any(vars(self.augmentation).values()), self.transcript_noise is not None
        return {name for name, changes in (("audio", audio), ("text", text)) if changes}

    def waveform(self, index: int) -> np.ndarray | None:
        """`(samples,)` at 16 kHz as recorded, or None."""
        audio, start, end = self.segments[index]
        return self.processor.load_audio(audio, *segment(start, end)) if audio else None

    def _dimensions(self, names: Sequence[str]) -> np.ndarray | None:
        """`(rows, dimensions)` float32, NaN where a row is not annotated."""
        return self.rows.reindex(columns=names).to_numpy(np.float32) if names else None

    def _augmented(self, waveform: np.ndarray, index: int) -> np.ndarray:
        def voices(rng: np.random.Generator) -> list[np.ndarray]:
            others = self.heard[self.heard != index]
            drawn = rng.choice(others, size=min(BABBLE_VOICES, len(others)), replace=False)
            return [self.waveform(row) for row in drawn]

        return augment(waveform, self.augmentation, (self.seed, self.epoch, index), voices)

    def _misheard(self, index: int) -> list[int] | None:
        rng = np.random.default_rng([self.seed, self.epoch, index, 5])  # behind those of the sound
        rate = rng.uniform(*self.transcript_noise.error_rate)

        def hear(text: str) -> str:
            return with_word_errors(text, rate, self.transcript_noise.deletions, self.words, rng)

        text, speaker, context, utterance = self.turns[index]
        try:
            misheard = [{**turn, "text": hear(turn["text"])} for turn in context]
            return self._tokens_of(hear(text), speaker, misheard, utterance)
        except InputError:  # longer words have made the turn longer than the backbone reads
            return self.tokens[index]

    def _turns(self, dialogues: pd.DataFrame) -> list[tuple[str, str | None, list[dict[str, str]], str]]:
        contexts = context_of(dialogues, self.processor.context_turns)
        speakers = self.rows["speaker"] if "speaker" in self.rows else [None] * len(self.rows)
        texts = self.rows["text"] if "text" in self.modalities else [""] * len(self.rows)
        told = zip(texts, speakers, self.rows["utterance_id"], strict=True)
        return [(text, speaker, contexts.get(utterance, []), utterance) for text, speaker, utterance in told]

    def _tokens_of(
        self, text: str, speaker: str | None, context: list[dict[str, str]], utterance: str
    ) -> list[int] | None:
        try:
            return self.processor.encode_text(text, speaker, context)
        except ValueError as error:
            raise InputError(f"{utterance!r}: {error}") from None


def distributions(rows: pd.DataFrame, label2id: Mapping[str, int]) -> list[list[float]]:
    """The share of votes for each label, one list per row, summing to 1.

    Votes for what is none of the labels do not count; a row without a vote that counts has its own label alone.
    """
    found = []
    for votes, label in zip(rows["votes"], rows["label"], strict=True):
        cast = json.loads(votes) if votes else {}
        counts = [cast.get(name, 0) for name in label2id]
        total = sum(counts)
        found.append([count / total for count in counts] if total else [float(name == label) for name in label2id])
    return found


def have_votes(rows: pd.DataFrame, label2id: Mapping[str, int]) -> np.ndarray:
    """`(rows,)` bool: whether any vote is for one of the labels."""
    cast = [json.loads(votes) if votes else {} for votes in rows["votes"]]
    return np.array([any(votes.get(name) for name in label2id) for votes in cast])


def read_features(file: str | Path) -> np.ndarray:
    """`(length, width)`; one vector for the whole utterance is a sequence of length 1.

    Raises:
        InputError: no such file, or no .npy of vectors.
    """
    try:
        array = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as features ({error}); give an .npy file.") from None
    if array.ndim not in (1, 2) or not array.size or not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{file}: holds {array.dtype} {array.shape}; features are floats (length, width) or (width,).")
    return np.atleast_2d(array)


def feature_width(rows: pd.DataFrame, column: str) -> int | None:
    """The width of a column's vectors, None where there are none; only the head of each file is read.

    Raises:
        InputError: as [`read_features`], or they have several widths.
    """
    widths = {read_features(file).shape[1] for file in set(rows.get(column, ())) - {""}}
    if len(widths) > 1:
        raise InputError(f"{column}: holds vectors of several widths, {', '.join(map(str, sorted(widths)))}.")
    return next(iter(widths), None)


def given(rows: pd.DataFrame, modalities: Sequence[str], raw: Sequence[str]) -> pd.DataFrame:
    """Which of the modalities each row has, `(rows, modalities)` bool, under the names of the columns that are read.

    Args:
        raw: as [`readable`] takes it.
    """
    columns = [name if name in raw else f"{name}_features" for name in modalities]
    return rows.reindex(columns=columns, fill_value="") != ""


def readable(
    rows: pd.DataFrame, modalities: Sequence[str], raw: Sequence[str], where: str
) -> tuple[pd.DataFrame, list[str]]:
    """The rows that have any of the modalities as it is read, and a sentence about those that have none.

    Args:
        raw: the modalities that are read as sound or words; of the others it is features that are read.

    Raises:
        InputError: no row has any.
    """
    there = given(rows, modalities, raw)
    columns, readable = list(there.columns), there.any(axis=1)
    if not readable.any():
        raise InputError(
            f"{where}: no row has {' or '.join(columns)}, which is all that this model is to read; fill that column "
            f"of the manifest, or choose a model of another modality."
        )
    left_out = f"{where}: {(~readable).sum()} of {len(rows)} rows left out, they have no {' and no '.join(columns)}"
    return rows[readable].reset_index(drop=True), [] if readable.all() else [left_out]


def context_of(rows: pd.DataFrame, turns: int) -> dict[str, list[dict[str, str]]]:
    """For each utterance the turns before it in its dialogue, oldest first, as they were said.

    Raw turns, never contextualised ones: building context from context doubles it every turn.
    """
    if not turns or "dialogue" not in rows or "turn" not in rows:
        return {}
    contexts = {}
    for _, dialogue in rows[rows["dialogue"] != ""].sort_values("turn").groupby("dialogue", sort=False):
        said = dialogue.reindex(columns=["speaker", "text"]).to_dict("records")
        for number, utterance in enumerate(dialogue["utterance_id"]):
            contexts[utterance] = [turn for turn in said[max(number - turns, 0) : number] if turn["text"]]
    return contexts


class Collator:
    """Examples -> one padded batch, in the model's own argument names."""

    def __init__(self, processor: MerhanProcessor):
        self.processor = processor

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        batch = {"labels": torch.tensor(columns.pop("labels"))}
        if extras := columns.pop("extras", None):
            batch |= default_collate(extras)
        if "dimension_targets" in columns:
            batch["dimension_targets"] = torch.from_numpy(np.stack(columns.pop("dimension_targets")))
        for name in ("audio", "text"):
            features = columns.pop(f"{name}_features", ())
            if any(array is not None for array in features):
                batch[f"{name}_features"], batch[f"{name}_features_mask"] = pad_features(features)
        if columns:
            empty = [None] * len(examples)
            batch |= self.processor.pad(columns.get("audio", empty), columns.get("text", empty))
        return batch


def pad_features(features: Sequence[np.ndarray | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Arrays `(length, width)` -> `(batch, longest, width)` float32 and its mask; None becomes a masked row."""
    width = next(array.shape[1] for array in features if array is not None)
    arrays = [np.zeros((0, width)) if array is None else array for array in features]
    longest = max(max(len(array) for array in arrays), 1)
    batch, mask = torch.zeros(len(arrays), longest, width), torch.zeros(len(arrays), longest, dtype=torch.long)
    for row, array in enumerate(arrays):
        batch[row, : len(array)] = torch.from_numpy(np.array(array))
        mask[row, : len(array)] = 1
    return batch, mask
