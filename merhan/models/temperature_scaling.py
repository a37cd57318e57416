"""Temperatures: fitted on validation rows, and applied to the logits of any rows."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from merhan.data.dataset import EmotionDataset
from merhan.data.loading import available_modalities
from merhan.metrics.calibration import fit_temperature, is_without_mistake
from merhan.models.inference import label_ids, predict_logits
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


def calibrate(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    validation: pd.DataFrame,
    dialogues: pd.DataFrame,
    batch_size: int = 16,
):
    """Fit the temperatures of the model's scores and store them in its config (`temperature`).

    There is one for each combination of modalities, fitted on the validation rows that have them, given them alone: a
    model without one of its modalities is wrong more often, and with a shared temperature would be overconfident.

    Args:
        validation: rows with labels.
        dialogues: rows that the dialogue context is taken from.
        batch_size: rows per batch.
    """
    fitted, faultless = {}, {}
    for modalities in _combinations(model.config.modalities):
        present = available_modalities(validation, modalities, processor.modalities).all(axis=1)
        if present.any():
            dataset = EmotionDataset(validation[present], processor, label_ids(model), modalities, dialogues)
            logits, _ = predict_logits(model, processor, dataset, batch_size)
            references, name = np.array(dataset.labels), "+".join(modalities)
            fitted[name] = fit_temperature(logits, references)
            if is_without_mistake(logits, references):
                faultless[name] = len(references)
    model.config.temperature, model.config.temperature_rows = fitted, faultless


def row_temperatures(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, rows: pd.DataFrame, modalities: Sequence[str]
) -> pd.DataFrame:
    """The modalities that each row is evaluated with, as `audio+text`, and the temperature of its scores.

    Args:
        modalities: what the model is given.

    Returns:
        `(rows,)` with the columns `modalities` and `value`; 1.0 where no temperature was fitted.
    """
    available = available_modalities(rows, modalities, processor.modalities).to_numpy()
    names = ["+".join(np.array(modalities)[present]) for present in available]
    values = [model.config.temperature.get(name, 1.0) for name in names]
    return pd.DataFrame({"modalities": names, "value": values})


def _combinations(modalities: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every non-empty combination, the single modalities first."""
    for size in range(1, len(modalities) + 1):
        yield from combinations(modalities, size)
