"""Examples -> padded batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from processing_merhan import MerhanProcessor


class Collator:
    """Pad examples of [`EmotionDataset`] to one batch whose keys are the arguments of the model's `forward`.

    Args:
        processor: pads waveforms and token ids.
    """

    def __init__(self, processor: MerhanProcessor):
        self.processor = processor

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        batch = {"labels": torch.tensor(columns.pop("labels"))}
        extras = columns.pop("extras", None)
        if extras:
            batch |= default_collate(extras)
        if "dimension_targets" in columns:
            batch["dimension_targets"] = torch.from_numpy(np.stack(columns.pop("dimension_targets")))
        for name in ("audio", "text"):
            features = columns.pop(f"{name}_features", ())
            if any(array is not None for array in features):
                batch[f"{name}_features"], batch[f"{name}_features_mask"] = pad_features(features)
        if columns:
            empty = [None] * len(examples)
            # A modality that no row of the batch has is padded too: see `_read_features` of the data set.
            batch |= self.processor.pad(columns.get("audio", empty), columns.get("text", empty), always=list(columns))
        return batch


def pad_features(features: Sequence[np.ndarray | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad arrays `(length, width)` to `(batch, longest, width)` float32.

    Returns:
        the batch and its mask `(batch, longest)`, 1 for a real frame. None becomes a fully masked row.
    """
    width = next(array.shape[1] for array in features if array is not None)
    longest = max(max(len(array) for array in features if array is not None), 1)
    batch = torch.zeros(len(features), longest, width)
    mask = torch.zeros(len(features), longest, dtype=torch.long)
    for row, array in enumerate(features):
        if array is not None:
            batch[row, : len(array)] = torch.from_numpy(np.array(array))
            mask[row, : len(array)] = 1
    return batch, mask
