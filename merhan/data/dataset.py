"""Manifest rows -> examples, which [`Collator`] pads to batches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from merhan.data.audio_facts import segment_bounds
from merhan.data.augmentation import BABBLE_VOICES, add_word_errors, augment
from merhan.data.stored_features import read_features
from merhan.data.votes import vote_shares
from merhan.errors import InputError
from merhan.logs import progress
from merhan.recipe.schema import AugmentationRecipe, TranscriptNoiseRecipe
from processing_merhan import SAMPLING_RATE, MerhanProcessor


# Number of the random generator for word errors; the effects on the sound use 0 to 4, see `augment`.
_WORD_ERRORS_STREAM = 5


class Turn(NamedTuple):
    """What the text input of a row is made of."""

    text: str
    speaker: str | None
    context: list[dict[str, str]]  # earlier turns of the dialogue, oldest first, as {"speaker": ..., "text": ...}
    utterance_id: str


class EmotionDataset(Dataset):
    """Utterances of a manifest. Audio is decoded, and augmented, whenever a row is read.

    An example has `labels` (a class id, or a distribution over the labels) and, for each modality, either the raw
    input (`audio`: `(samples,)`, `text`: token ids) or features (`audio_features`: `(length, width)`). A modality that
    the row lacks is None. It may also have `dimension_targets` and `extras`.

    Args:
        rows: the utterances, usually of one split.
        processor: loads audio and encodes text.
        label2id: label -> class id.
        modalities: the modalities that examples contain, some of `audio` and `text`.
        dialogues: rows from which the context of a turn is taken, by default `rows`.
        augmentation: random changes of the audio, drawn anew in every epoch.
        transcript_noise: random word errors in the text and its context, drawn anew in every epoch. Substitutes are
            words of `rows`.
        seed: seed of these draws, together with the epoch and the row.
        dimensions: manifest columns that a regression head predicts, as `valence`; an empty cell has no target.
        soft_labels: whether the targets are the distributions of the raters' votes. The attribute `labels` holds class
            ids in either case.
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
        self.targets: Sequence[Any] = self.labels
        if soft_labels:
            self.targets = vote_shares(self.rows, label2id)
        self.dimensions = self._dimension_targets(dimensions)
        self.augmentation = augmentation or AugmentationRecipe()
        self.transcript_noise = transcript_noise
        self.seed = seed
        # In shared memory, so that persistent workers of a data loader see the epoch that their process sets.
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()
        # Modality -> one .npy file per row, read in place of the raw input; filled by merhan.training.feature_cache.
        self.features: dict[str, list[Path | None]] = {}
        # The same for the modalities that no backbone reads: the feature columns of the manifest.
        self.manifest_features = self._manifest_features()
        # Name -> `(rows,)` tensor; its values are passed through to the batch for a training strategy.
        self.extras: dict[str, torch.Tensor] = {}
        self.segments = list(self.rows.reindex(columns=["audio", "start", "end"]).itertuples(index=False, name=None))
        self.rows_with_audio = np.array([row for row, (audio, *_) in enumerate(self.segments) if audio])
        self.words = [word for text in self.rows["text"] for word in text.split()]
        self.turns = self._turns(self.rows if dialogues is None else dialogues)
        self.tokens = [self._encode(turn) for turn in progress(self.turns, desc="encoding text", leave=False, delay=2)]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def epoch(self) -> int:
        """Number of the epoch, from which augmentation and word errors are drawn."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, number: int):
        self._epoch.fill_(number)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example: dict[str, Any] = {"labels": self.targets[index]}
        if self.extras:
            example["extras"] = {name: values[index] for name, values in self.extras.items()}
        if self.dimensions is not None:
            example["dimension_targets"] = self.dimensions[index]
        features = self.manifest_features | self.features
        for name, files in features.items():
            example[f"{name}_features"] = _read_features(files, index)
        if "audio" in self.modalities and "audio" not in features:
            example["audio"] = self._audio(index)
        if "text" in self.modalities and "text" not in features:
            example["text"] = self._text(index)
        return example

    @property
    def shapes(self) -> np.ndarray:
        """`(rows, 2)`: the numbers of samples and tokens that each row alone is padded to; 0 = the model reads none."""
        samples, tokens = np.zeros(len(self), dtype=int), [0] * len(self)
        if "audio" in self.modalities and self.rows["duration"].any():
            seconds = (
                self.rows["duration"].fillna(0.0).clip(self.processor.min_seconds, self.processor.max_seconds or np.inf)
            )
            samples = np.ceil(seconds.to_numpy() * SAMPLING_RATE).astype(int)
        if "text" in self.modalities:
            tokens = [len(ids or ()) for ids in self.tokens]
        pairs = zip(samples.tolist(), tokens, strict=True)
        return np.array([self.processor.shape(*pair) for pair in pairs])

    @property
    def cells(self) -> np.ndarray:
        """`(rows,)`: the cell of the length grid that each row belongs to, to batch rows that are padded alike."""
        return grid_cells(self.shapes)

    @property
    def changing(self) -> set[str]:
        """Modalities whose input is random and so differs between epochs; their features cannot be cached."""
        modalities = set()
        if any(vars(self.augmentation).values()):
            modalities.add("audio")
        if self.transcript_noise is not None:
            modalities.add("text")
        return modalities

    def waveform(self, index: int) -> np.ndarray | None:
        """The unaugmented audio of a row, `(samples,)` float32 at 16 kHz, or None."""
        audio, start, end = self.segments[index]
        if not audio:
            return None
        return self.processor.load_audio(audio, *segment_bounds(start, end))

    def _dimension_targets(self, names: Sequence[str]) -> np.ndarray | None:
        """`(rows, dimensions)` float32, NaN where a row is not annotated."""
        if not names:
            return None
        return self.rows.reindex(columns=names).to_numpy(np.float32)

    def _manifest_features(self) -> dict[str, list[str]]:
        """Modality that no backbone reads -> the feature file of each row, empty where it has none."""
        columns = {name: f"{name}_features" for name in self.modalities if name not in self.processor.modalities}
        empty = pd.Series("", self.rows.index)
        return {name: self.rows.get(column, empty).tolist() for name, column in columns.items()}

    def _audio(self, index: int) -> np.ndarray | None:
        """The augmented audio of a row, `(samples,)`, or None."""
        waveform = self.waveform(index)
        if waveform is None:
            return None

        def draw_voices(rng: np.random.Generator) -> list[np.ndarray]:
            others = self.rows_with_audio[self.rows_with_audio != index]
            drawn = rng.choice(others, size=min(BABBLE_VOICES, len(others)), replace=False)
            waveforms = (self.waveform(row) for row in drawn)
            return [voice for voice in waveforms if voice is not None]

        return augment(waveform, self.augmentation, (self.seed, self.epoch, index), draw_voices)

    def _text(self, index: int) -> list[int] | None:
        """The token ids of a row and its context, with word errors if the recipe asks for them."""
        if self.transcript_noise is None:
            return self.tokens[index]
        turn = self._with_word_errors(self.turns[index], self.transcript_noise, index)
        try:
            return self._encode(turn)
        except InputError:  # the substitutes were longer, and the turn no longer fits into the text backbone
            return self.tokens[index]

    def _with_word_errors(self, turn: Turn, noise: TranscriptNoiseRecipe, index: int) -> Turn:
        rng = np.random.default_rng([self.seed, self.epoch, index, _WORD_ERRORS_STREAM])
        low, high = noise.error_rate
        rate = rng.uniform(low, high)

        def corrupt(text: str) -> str:
            return add_word_errors(text, rate, noise.deletions, self.words, rng)

        # The context is drawn before the turn: published results depend on this order.
        context = [{**earlier, "text": corrupt(earlier["text"])} for earlier in turn.context]
        return turn._replace(context=context, text=corrupt(turn.text))

    def _turns(self, dialogues: pd.DataFrame) -> list[Turn]:
        contexts = dialogue_context(dialogues, self.processor.context_turns)
        names = self.rows["utterance_id"]
        texts: Sequence[str] = [""] * len(names)
        speakers: Sequence[str | None] = [None] * len(names)
        if "text" in self.modalities:
            texts = self.rows["text"].tolist()
        if "speaker" in self.rows:
            speakers = self.rows["speaker"].tolist()
        return [
            Turn(text, speaker, contexts.get(name, []), name)
            for text, speaker, name in zip(texts, speakers, names, strict=True)
        ]

    def _encode(self, turn: Turn) -> list[int] | None:
        """Token ids, None without text; an error names the utterance."""
        try:
            return self.processor.encode_text(turn.text, turn.speaker, turn.context)
        except ValueError as error:
            raise InputError(f"{turn.utterance_id!r}: {error}") from None


def dialogue_context(rows: pd.DataFrame, turns: int) -> dict[str, list[dict[str, str]]]:
    """The preceding turns of each utterance in its dialogue.

    Args:
        rows: a manifest; without the columns `dialogue` and `turn` there is no context.
        turns: the number of preceding turns; those without text are skipped.

    Returns:
        utterance id -> turns as `{"speaker": ..., "text": ...}`, oldest first. Their texts are the original ones: if
        they contained context themselves, the input would grow with every turn.
    """
    if not turns or "dialogue" not in rows or "turn" not in rows:
        return {}
    named = rows[rows["dialogue"] != ""]
    dialogues = pd.factorize(named["dialogue"])[0]
    order = np.lexsort((named["turn"].to_numpy(), dialogues))
    named, dialogues = named.iloc[order], dialogues[order]
    columns = [named.get(name, pd.Series(np.nan, named.index)).tolist() for name in ("speaker", "text")]
    records = [{"speaker": speaker, "text": text} for speaker, text in zip(*columns, strict=True)]
    contexts = {}
    first = 0
    for number, utterance in enumerate(named["utterance_id"].tolist()):
        if dialogues[number] != dialogues[first]:
            first = number
        preceding = records[max(number - turns, first) : number]
        contexts[utterance] = [turn for turn in preceding if turn["text"]]
    return contexts


def grid_cells(shapes: np.ndarray) -> np.ndarray:
    """A number per row `(rows,)`: equal where rows are padded to the same lengths, close where to similar ones.

    Args:
        shapes: the samples and tokens that each row is padded to, `(rows, 2)`, see [`EmotionDataset.shapes`].

    Cells are in the order of the samples. From each length to the next, the order of the tokens is reversed, so that a
    batch that straddles two lengths has rows with similar numbers of tokens; the longest one ends with the most.
    """
    lengths, audio = np.unique(shapes[:, 0], return_inverse=True)
    counts, text = np.unique(shapes[:, 1], return_inverse=True)
    ascending = (len(lengths) - 1 - audio) % 2 == 0
    return audio * len(counts) + np.where(ascending, text, len(counts) - 1 - text)


def _read_features(files: Sequence[Path | str | None], index: int) -> np.ndarray | None:
    """The vectors of a row, `(length, width)`; `(0, width)` for a row without; None if no row of the data set has any.

    So the shapes of a batch do not depend on what its rows have, on which DDP with gradient checkpointing fails.
    """
    file = files[index]
    if file:
        return read_features(file)
    some = next((other for other in files if other), None)
    if some is None:
        return None
    return np.zeros((0, read_features(some).shape[1]), dtype=np.float32)
