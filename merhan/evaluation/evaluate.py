"""Evaluation of a model on the splits of a corpus: predictions, metrics, plots and reports."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import PartialState

from merhan.content_hashes import FILE, write_hashes
from merhan.data.dataset import EmotionDataset
from merhan.data.loading import Data, keep_readable, long_sound_notes
from merhan.data.votes import has_votes, vote_shares
from merhan.errors import InputError
from merhan.evaluation.prediction_table import prediction_table, read_metrics, score_dimensions, score_predictions
from merhan.evaluation.report import write_page, write_report
from merhan.evaluation.run_description import ModelSource, describe_model, model_source
from merhan.files import atomic_path, remove_folder, remove_leftovers, write_json
from merhan.logs import get_logger
from merhan.metrics.annotations import vote_scores
from merhan.metrics.calibration import calibration_scores, risk_coverage
from merhan.models.inference import label_ids, predict_logits, weights_digest
from merhan.models.temperature_scaling import row_temperatures
from merhan.names import MODALITIES
from merhan.recipe.checks import require_folder_name
from merhan.reporting.matplotlib_plots import plot_confusion_matrix, plot_reliability
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


logger = get_logger(__name__)

# What the folder of an evaluation holds.
FILES = ("predictions.parquet", "metrics.json", "confusion.png", "reliability.png", "report.html", "report.md", FILE)


def evaluate_conditions(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    data: Data,
    splits: Sequence[str],
    conditions: Sequence[str | None],
    folder: Path,
    batch_size: int = 16,
) -> dict[str, dict[str, Any]]:
    """Run [`evaluate_split`] for every split and condition; returns the metrics by name, as `test, audio+text`."""
    results = {}
    for split in splits:
        for condition in conditions:
            metrics = evaluate_split(model, processor, data, split, folder, condition, batch_size)
            results[f"{split}, {metrics['condition']}"] = metrics
    return results


def evaluate_split(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    data: Data,
    split: str,
    folder: Path,
    condition: str | None = None,
    batch_size: int = 16,
    reuse: bool = False,
    **corruption: Any,
) -> dict[str, Any]:
    """Evaluate one split, and write `predictions.parquet`, `metrics.json`, two plots, `report.html` and `report.md`.

    Args:
        data: the loaded data, of all splits because dialogue context is taken from all rows.
        folder: the evaluation folder; results go to `folder/<split>` or `folder/<split>--<condition>`.
        condition: `audio` or `text` to give the model that modality only; None for all that it reads. Any other name
            only labels what `corruption` does, or what was done to the data.
        batch_size: utterances per batch.
        reuse: return the saved metrics if they were computed with the same weights on the same rows; also hides the
            progress bar.
        corruption: `augmentation` and `transcript_noise` of [`EmotionDataset`].

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: the split is empty, has labels that the model does not know, or the model does not read `condition`.
    """
    modalities = _input_modalities(model, condition)
    require_folder_name(split, "split")
    rows, notes = _rows_to_evaluate(model, processor, data, split, modalities)
    name = folder_name(split, condition)
    content_hash = _content_hash(model, processor, data, rows, [condition, corruption])
    if reuse:
        saved = _saved_metrics(folder / name)
        if saved.get("content_hash") == content_hash:
            return saved
    _require_replaceable(folder / name)
    dataset = EmotionDataset(rows, processor, label_ids(model), modalities, data.dialogues, **corruption)
    outputs = predict_logits(model, processor, dataset, batch_size, quiet=reuse)
    temperatures = row_temperatures(model, processor, rows, modalities)
    predictions = _predictions(model, rows, outputs, temperatures)
    source = model_source(model, folder.parent)
    metrics: dict[str, Any] = {"split": split, "condition": condition or "+".join(modalities), "folder": name}
    metrics |= {"content_hash": content_hash, "notes": notes, **_description(model, data, rows, modalities, source)}
    metrics |= {"temperatures": _temperatures_by_modalities(temperatures)}
    metrics |= {"temperature_rows": model.config.temperature_rows}
    metrics |= _compute_metrics(model, rows, predictions, np.array(dataset.labels))
    if PartialState().is_main_process:
        _write_results(folder / name, metrics, predictions, rows, source)
    PartialState().wait_for_everyone()
    return metrics


def folder_name(split: str, condition: str | None) -> str:
    """`test`, or `test--audio`; spaces of a condition become hyphens."""
    if condition is None:
        return split
    return f"{split}--{condition.replace(' ', '-')}"


def _input_modalities(model: MerhanForSequenceClassification, condition: str | None) -> list[str]:
    """The modalities that the model is given under a condition."""
    known = model.config.modalities
    if condition not in MODALITIES:
        return known
    if condition not in known:
        raise InputError(f"This model reads {' and '.join(known)}; it cannot be evaluated on {condition} only.")
    return [condition]


def _rows_to_evaluate(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    data: Data,
    split: str,
    modalities: Sequence[str],
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a split that have any of the modalities, a note on the others, and one on sound that is not read."""
    rows = data.rows[data.rows["split"] == split]
    if rows.empty:
        known = ", ".join(sorted(data.rows["split"].unique()))
        raise InputError(f"The {split} split is empty; the data has {known}.")
    rows, notes = keep_readable(rows, modalities, processor.modalities, f"{split} split")
    labels = label_ids(model)
    unknown = sorted(set(rows["label"]) - set(labels))
    if unknown:
        raise InputError(
            f"The {split} split has labels that the model was not trained on: {', '.join(unknown)}. It knows "
            f"{', '.join(labels)}; map or drop them with data.label_map."
        )
    if "audio" in modalities:
        notes += long_sound_notes(rows, processor, f"{split} split")
    return rows, notes


def _predictions(
    model: MerhanForSequenceClassification,
    rows: pd.DataFrame,
    outputs: tuple[np.ndarray, np.ndarray],
    temperatures: pd.DataFrame,
) -> pd.DataFrame:
    """The prediction table, with a column for each estimated dimension."""
    logits, dimensions = outputs
    predictions = prediction_table(rows, logits, temperatures["value"], list(label_ids(model)))
    for number, dimension in enumerate(model.config.dimensions):
        predictions[f"{dimension}_prediction"] = dimensions[:, number]
    return predictions


def _description(
    model: MerhanForSequenceClassification,
    data: Data,
    rows: pd.DataFrame,
    modalities: Sequence[str],
    source: ModelSource,
) -> dict[str, Any]:
    """What was evaluated, and when; the date is the only content of `metrics.json` that differs between reruns."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": describe_model(model, source.provenance),
        "modalities": list(modalities),
        "corpora": sorted(rows["corpus"].unique()),
        "protocol": data.protocol,
    }


def _temperatures_by_modalities(temperatures: pd.DataFrame) -> dict[str, float]:
    """Modalities, as `audio+text` -> temperature of the rows that have them."""
    unique = temperatures.drop_duplicates().sort_values("modalities")
    return dict(zip(unique["modalities"], unique["value"].tolist(), strict=True))


def _compute_metrics(
    model: MerhanForSequenceClassification, rows: pd.DataFrame, predictions: pd.DataFrame, references: np.ndarray
) -> dict[str, Any]:
    """Every metric of a prediction table."""
    labels = label_ids(model)
    logits = np.stack(predictions["logits"].to_list())
    calibrated = logits / predictions["temperature"].to_numpy()[:, None]
    metrics = {
        **score_predictions(predictions, list(labels)),
        "calibration": calibration_scores(calibrated, references),
        "uncalibrated": calibration_scores(logits, references),
        "risk_coverage": risk_coverage(calibrated, references),
    }
    voted = has_votes(rows, labels)
    if voted.any():
        shares = vote_shares(rows[voted], labels)
        metrics["votes"] = vote_scores(calibrated[voted], np.array(shares))
    if model.config.dimensions:
        metrics["dimensions"] = score_dimensions(predictions, model.config.dimensions)
    return metrics


def _write_results(
    folder: Path, metrics: dict[str, Any], predictions: pd.DataFrame, rows: pd.DataFrame, source: ModelSource
):
    """Write all files of an evaluation into a new folder, which then takes the place of an earlier one."""
    remove_leftovers(folder.parent)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        predictions.to_parquet(temporary / "predictions.parquet", index=False)
        plot_confusion_matrix(metrics, temporary / "confusion.png")
        plot_reliability(metrics, temporary / "reliability.png")
        write_report(metrics, source.name, temporary / "report.md")
        write_page(metrics, predictions, rows, source, temporary / "report.html")
        write_json(temporary / "metrics.json", metrics)
        write_hashes(temporary)
        remove_folder(folder)


def _require_replaceable(folder: Path):
    """Check that a folder has no files but those of an evaluation, because it is replaced as a whole.

    Raises:
        InputError: names one of them.
    """
    if not folder.is_dir():
        return
    foreign = sorted(path for path in folder.iterdir() if path.name not in FILES and not path.name.startswith("."))
    if foreign:
        raise InputError(
            f"{foreign[0]}: is not of an evaluation, whose folder would be replaced; move it, or choose another "
            f"--output_dir."
        )


def _content_hash(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, data: Data, rows: pd.DataFrame, condition: Any
) -> str:
    """Hash of all that a result depends on: weights, temperatures, preprocessing, rows and condition.

    Recordings are represented by their manifest columns, not by their bytes.
    """
    settings = {key: value for key, value in vars(processor).items() if isinstance(value, str | int | float | None)}
    content = [
        weights_digest(model).hexdigest(),
        sorted(model.config.temperature.items()),  # their order changes when a config is saved
        settings,
        rows.drop(columns="audio").to_csv(index=False),
        data.protocol,
        condition,
        data.dialogues["text"].tolist(),
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _saved_metrics(folder: Path) -> dict[str, Any]:
    """Content of the `metrics.json` of an evaluation; empty if there is none that is whole, or if an older version
    wrote it without a description."""
    if not (folder / "metrics.json").is_file():
        return {}
    try:
        metrics = read_metrics(folder)
    except InputError as error:
        logger.warning(f"note: computed again: {error}")
        return {}
    if "date" not in metrics:
        return {}
    return metrics
