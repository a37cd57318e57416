"""Utterances -> padded batches, made in the workers of a data loader ahead of the device."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from merhan.data.collator import Collator
from merhan.data.dataset import grid_cells
from merhan.data.stored_features import read_features
from merhan.prediction.inputs import Utterance
from processing_merhan import SAMPLES_PER_FRAME, SAMPLING_RATE, MerhanProcessor, fit_length, load_audio


class Window(NamedTuple):
    """A part of an input, batched by length."""

    number: int  # of the part
    rows: list[dict[str, Any]]  # utterance_id, given, seconds, seconds_used, transcript, error
    batches: list[tuple[list[int], dict[str, torch.Tensor]]]  # positions in `rows`, and arguments of the model


Part = tuple[int, Sequence[Utterance]]  # numbered


def read_windows(
    parts: Iterable[Part],
    processor: MerhanProcessor,
    modalities: Sequence[str],
    batch_size: int,
    workers: int = 0,
) -> Iterator[Window]:
    """Decode, tokenise and batch parts of an input, in their order.

    Args:
        modalities: what the model reads.
        batch_size: utterances per batch.
        workers: processes that do it ahead of the caller; 0 = the caller's own.
    """
    on_gpu = torch.cuda.is_available()
    options: dict[str, Any] = {"prefetch_factor": 1} if workers else {}
    # Only a GPU is slow at shapes that it has not seen before; elsewhere the grid would be padding for nothing.
    collator = Collator(processor, "grid" if on_gpu else "longest")
    loader = DataLoader(
        _Preparation(collator, modalities, batch_size),
        sampler=parts,  # the "indices" are the utterances themselves, so that one process reads the input
        batch_size=None,
        collate_fn=_unchanged,  # type: ignore[arg-type]  # there is no list without a batch size
        num_workers=workers,
        pin_memory=on_gpu,
        **options,
    )
    yield from loader


class _Preparation(Dataset):
    """Part -> window."""

    def __init__(self, collator: Collator, modalities: Sequence[str], batch_size: int):
        self.collator, self.processor = collator, collator.processor
        self.modalities, self.batch_size = list(modalities), batch_size

    def __getitem__(self, part: Part) -> Window:
        number, utterances = part
        rows, examples = [], {}
        for position, utterance in enumerate(utterances):
            row, example = self._read(utterance)
            rows.append(row)
            if row["error"] is None:
                examples[position] = example
        order = self._longest_first(examples)
        batches = []
        for first in range(0, len(order), self.batch_size):
            batches += self._padded(order[first : first + self.batch_size], examples, rows)
        return Window(number, rows, batches)

    def _read(self, utterance: Utterance) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts about an utterance, and its example for the collator, incomplete where it has an error."""
        row = dict.fromkeys(("given", "seconds", "seconds_used"))
        row = {"utterance_id": utterance.utterance_id, **row}
        row |= {"transcript": utterance.transcript, "error": utterance.error}
        example: dict[str, Any] = {}
        try:
            if utterance.error is None:
                for name in self.modalities:
                    example |= self._modality(name, utterance, row)
                row["given"] = "+".join(_given(example))
                row["error"] = None if row["given"] else f"has no {' and no '.join(self.modalities)}"
        except (ValueError, OSError) as error:
            row["error"] = " ".join(str(error).split())
        return row, example

    def _modality(self, name: str, utterance: Utterance, row: dict[str, Any]) -> dict[str, Any]:
        """One modality of an example, as `EmotionDataset` makes it; None where the utterance lacks it."""
        if name not in self.processor.modalities:
            file = utterance.features.get(name)
            return {f"{name}_features": read_features(file) if file else None}
        if name == "text":
            return {name: self.processor.encode_text(utterance.text, utterance.speaker, utterance.context)}
        if utterance.audio is None:
            return {name: None}
        limits = self.processor
        whole = load_audio(utterance.audio, utterance.start, utterance.end, 0.0, None, limits.trim_silence)
        waveform = fit_length(whole, limits.min_seconds, limits.max_seconds)
        row["seconds"] = len(whole) / SAMPLING_RATE
        row["seconds_used"] = min(len(whole), len(waveform)) / SAMPLING_RATE
        return {name: waveform}

    def _longest_first(self, examples: dict[int, dict[str, Any]]) -> list[int]:
        """The positions of the examples, those that are padded alike side by side."""
        if not examples:
            return []
        lengths = np.array([_lengths(example) for example in examples.values()])
        cells = grid_cells(np.array([self.processor.shape(*pair) for pair in lengths.tolist()]))
        order = np.lexsort((-lengths[:, 1], -lengths[:, 0], -cells))
        return np.array(list(examples))[order].tolist()

    def _padded(
        self, positions: list[int], examples: dict[int, dict[str, Any]], rows: list[dict[str, Any]]
    ) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
        """The batch of these rows; where one is longer than the backbone reads, it has an error and the others are
        batches of their own."""
        try:
            return [(positions, self.collator([examples[position] for position in positions]))]
        except ValueError as error:
            if len(positions) == 1:
                rows[positions[0]]["error"] = " ".join(str(error).split())
                return []
            return [batch for position in positions for batch in self._padded([position], examples, rows)]


def _given(example: dict[str, Any]) -> list[str]:
    return [name.removesuffix("_features") for name, value in example.items() if value is not None]


def _lengths(example: dict[str, Any]) -> tuple[int, int]:
    """Samples and tokens of an example; a vector of features counts as the frame or token that it stands for."""
    counts = {name: 0 if value is None else len(value) for name, value in example.items()}
    samples = counts.get("audio", 0) + SAMPLES_PER_FRAME * counts.get("audio_features", 0)
    return samples, counts.get("text", 0) + counts.get("text_features", 0)


def _unchanged(window: Window) -> Window:
    return window
