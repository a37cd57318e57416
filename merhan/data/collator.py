"""Examples -> padded batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from processing_merhan import SAMPLES_PER_FRAME, MerhanProcessor


class Collator:
    """Pad examples of [`EmotionDataset`] to one batch whose keys are the arguments of the model's `forward`.

    Lengths are by default on the processor's grid, see [`MerhanProcessor.shape`].

    Args:
        processor: pads waveforms and token ids.
        padding: of these, as in a call of the processor.
    """

    def __init__(self, processor: MerhanProcessor, padding: str = "grid"):
        self.processor = processor
        self.padding = padding

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        batch = {}
        if "labels" in columns:
            batch["labels"] = torch.tensor(columns.pop("labels"))
        extras = columns.pop("extras", None)
        if extras:
            batch |= default_collate(extras)
        if "dimension_targets" in columns:
            batch["dimension_targets"] = torch.from_numpy(np.stack(columns.pop("dimension_targets")))
        features = {name: columns.pop(f"{name}_features", ()) for name in ("audio", "text")}
        for name, length in self._feature_lengths(features).items():
            if length:
                batch[f"{name}_features"], batch[f"{name}_features_mask"] = pad_features(features[name], length)
        if columns:
            empty = [None] * len(examples)
            # A modality that no row of the batch has is padded too: see `_read_features` of the data set.
            sounds, tokens = columns.get("audio", empty), columns.get("text", empty)
            batch |= self.processor.pad(sounds, tokens, always=list(columns), padding=self.padding)
        return batch

    def _feature_lengths(self, features: Mapping[str, Sequence[np.ndarray | None]]) -> dict[str, int]:
        """The length on the grid that the features of each modality are padded to; 0 where no row has any."""
        longest = {
            name: max((max(len(array), 1) for array in arrays if array is not None), default=0)
            for name, arrays in features.items()
        }
        samples, tokens = self.processor.shape(SAMPLES_PER_FRAME * longest["audio"], longest["text"])
        return {"audio": samples // SAMPLES_PER_FRAME, "text": tokens}


def pad_features(features: Sequence[np.ndarray | None], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad arrays `(rows of any length, width)` to `(batch, length, width)` float32.

    Returns:
        the batch and its mask `(batch, length)`, 1 for a real frame. None becomes a fully masked row.
    """
    width = next(array.shape[1] for array in features if array is not None)
    batch = torch.zeros(len(features), length, width)
    mask = torch.zeros(len(features), length, dtype=torch.long)
    for row, array in enumerate(features):
        if array is not None:
            batch[row, : len(array)] = torch.from_numpy(np.array(array))
            mask[row, : len(array)] = 1
    return batch, mask
