"""From a model and rows to predictions, figures, a picture and a report, each a file complete in itself."""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments

from merhan.dataset import Collator, Data, EmotionDataset, distributions, given, have_votes, load_data, readable
from merhan.errors import InputError, require_finite
from merhan.feature_cache import digest_of_weights
from merhan.leaks import known_leaks
from merhan.manifest import DIMENSIONS
from merhan.metrics import (
    EmotionMetrics,
    calibration,
    dimension_scores,
    distribution_scores,
    fit_temperature,
    intervals,
    risk_coverage,
    score,
)
from merhan.provenance import record_of, write_json
from merhan.recipe import DataRecipe, change_data, load_recipe
from merhan.report import confusion_picture, reliability_picture, write_page, write_report
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


MODALITIES = ("audio", "text")

# Carried along from the manifest, for whoever groups or pairs predictions later.
CARRIED = ("corpus", "speaker", "session", "dialogue", "gender", "language", "duration", *DIMENSIONS)

# What figures are given apart for, and the bands of seconds.
GROUPED = ("speaker", "corpus", "gender", "language")
BANDS = (-1.0, 1.0, 2.0, 4.0, 8.0, float("inf"))
FEWEST_ROWS = 10  # that a group needs to be called the worst
BAND_NAMES = ("under 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s", "over 8 s")


def evaluate_split(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    data: Data,
    split: str,
    folder: Path,
    condition: str | None = None,
    batch_size: int = 16,
    again: bool = True,
    **spoil: Any,
) -> dict[str, Any]:
    """Evaluate one split, and write `predictions.parquet`, `metrics.json`, two pictures, `report.html` and `report.md`.

    Args:
        data: what was read; the context of a turn comes from all of it.
        folder: the evaluation folder; results go to `folder/<split>` or `folder/<split>--<condition>`.
        condition: `audio` or `text` to give the model that modality alone; None gives it all that it reads. Anything
            else is the name of what `spoil` does, or of what was done to the data.
        again: whether to do it again where the folder holds the same weights' result on the same rows. A sweep says no,
            and has a progress bar of its own.
        spoil: `augmentation` and `transcript_noise` of the data set.

    Returns:
        What `metrics.json` holds.
    """
    modalities = [condition] if condition in MODALITIES else model.config.modalities
    if not set(modalities) <= set(model.config.modalities):
        raise InputError(
            f"This model reads {' and '.join(model.config.modalities)}; it cannot be given {condition} alone."
        )
    part = data.rows[data.rows["split"] == split]
    if part.empty:
        raise InputError(f"The {split} split is empty; there are {', '.join(sorted(data.rows['split'].unique()))}.")
    part, left_out = readable(part, modalities, processor.modalities, f"{split} split")
    if unknown := sorted(set(part["label"]) - set(model.config.label2id)):
        raise InputError(
            f"The {split} split has labels that the model never learnt: {', '.join(unknown)}. It knows "
            f"{', '.join(model.config.label2id)}; map or drop them with data.label_map."
        )
    name = f"{split}--{condition.replace(' ', '-')}" if condition else split
    made_of = _made_of(model, processor, data, part, [condition, spoil])
    if not again and (saved := _saved(folder / name / "metrics.json")).get("made_of") == made_of:
        return saved
    dataset = EmotionDataset(part, processor, model.config.label2id, modalities, data.dialogues, **spoil)
    logits, dimensions = estimate(model, processor, dataset, batch_size, quiet=not again)
    names = names_of(part, modalities, processor.modalities)
    temperatures = {name: model.config.temperature.get(name, 1.0) for name in sorted(set(names))}
    divisors = np.array([temperatures[name] for name in names])
    predictions = table_of(part, logits, model.config.id2label).assign(temperature=divisors)
    for number, dimension in enumerate(model.config.dimensions):
        predictions[f"{dimension}_prediction"] = dimensions[:, number]
    metrics = {"split": split, "condition": condition or "+".join(modalities), "folder": name}
    metrics |= {"made_of": made_of, "notes": left_out, "protocol": data.protocol} | figures(
        predictions, list(model.config.label2id)
    )
    references = np.array(dataset.labels)
    calibrated = logits / divisors[:, None]
    metrics["temperatures"] = temperatures
    metrics["calibration"] = calibration(calibrated, references)
    metrics["uncalibrated"] = calibration(logits, references)
    metrics["risk_coverage"] = risk_coverage(calibrated, references)
    if "votes" in part and (voted := have_votes(part, model.config.label2id)).any():
        shares = distributions(part[voted], model.config.label2id)
        metrics["votes"] = distribution_scores(calibrated[voted], np.array(shares))
    if model.config.dimensions:
        metrics["dimensions"] = figures_of_dimensions(predictions, model.config.dimensions)
    if PartialState().is_main_process:
        (folder / name).mkdir(parents=True, exist_ok=True)
        predictions.to_parquet(folder / name / "predictions.parquet", index=False)
        confusion_picture(metrics, folder / name / "confusion.png")
        reliability_picture(metrics, folder / name / "reliability.png")
        write_report(metrics, folder / name / "report.md")
        write_page(metrics, predictions, part, folder.parent, folder / name / "report.html")
        write_json(folder / name / "metrics.json", metrics)
    PartialState().wait_for_everyone()
    return metrics


def _made_of(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, data: Data, part: pd.DataFrame, how: Any
) -> str:
    """Hash of what a result depends on: weights, temperatures, preparation, rows, and what was done to them. Of the
    recordings it holds what the manifest says of them, not their bytes."""
    prepared = {key: value for key, value in vars(processor).items() if isinstance(value, str | int | float | None)}
    rows = part.drop(columns="audio").to_csv(index=False)
    temperatures = sorted(model.config.temperature.items())  # which a saved config orders anew
    told = [digest_of_weights(model).hexdigest(), temperatures, prepared, rows, data.protocol, how]
    return hashlib.sha256(repr([*told, data.dialogues["text"].tolist()]).encode()).hexdigest()[:16]


def _saved(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def calibrate(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    validation: pd.DataFrame,
    dialogues: pd.DataFrame,
    batch_size: int = 16,
):
    """Fit the temperatures that the pipeline's scores have, into the model's config.

    One for each choice of modalities, on the validation rows that have them all and with the others taken away: a model
    that misses one is wrong more often, and does not know by how much.
    """
    read, fitted = model.config.modalities, {}
    for names in (chosen for size in range(1, len(read) + 1) for chosen in combinations(read, size)):
        rows = validation[given(validation, names, processor.modalities).all(axis=1)]
        if len(rows):
            dataset = EmotionDataset(rows, processor, model.config.label2id, names, dialogues)
            logits, _ = estimate(model, processor, dataset, batch_size)
            fitted["+".join(names)] = fit_temperature(logits, np.array(dataset.labels))
    model.config.temperature = fitted


def names_of(rows: pd.DataFrame, modalities: Sequence[str], raw: Sequence[str]) -> list[str]:
    """What each row has of the modalities that the model is given, as `audio+text`."""
    return ["+".join(np.array(modalities)[there]) for there in given(rows, modalities, raw).to_numpy()]


def estimate(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    dataset: EmotionDataset,
    batch_size: int,
    quiet: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(rows, num_labels)` and dimensions `(rows, config.dimensions)`, in the data set's order.

    Rows of like length share a batch; the order is put back.
    """
    order = np.argsort(dataset.lengths, kind="stable")
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        use_cpu=PartialState().device.type == "cpu",  # as training had it: another device would begin a new state
        per_device_eval_batch_size=batch_size,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=quiet,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(model, arguments, data_collator=Collator(processor))
    found = trainer.predict(Subset(dataset, order.tolist())).predictions
    found = np.concatenate(found, axis=1) if isinstance(found, tuple) else found
    outputs = np.empty((len(dataset), model.config.num_labels + len(model.config.dimensions)), dtype=np.float32)
    outputs[order] = found
    logits, dimensions = np.split(require_finite(outputs), [model.config.num_labels], axis=1)
    return logits, dimensions


def table_of(rows: pd.DataFrame, logits: np.ndarray, id2label: Mapping[int, str]) -> pd.DataFrame:
    """One row per utterance: id, label, prediction, logits, and what groups it."""
    return pd.DataFrame(
        {
            "utterance_id": rows["utterance_id"].to_numpy(),
            "label": rows["label"].to_numpy(),
            "prediction": [id2label[number] for number in logits.argmax(axis=1)],
            "logits": list(logits),
            **{column: rows[column].to_numpy() for column in CARRIED if column in rows},
        }
    )


def figures(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """Scores of a prediction table, with 95 % intervals over speakers (over dialogues where speakers recur)."""
    ids = {label: number for number, label in enumerate(labels)}
    guessed = predictions["prediction"].map(ids).to_numpy()
    references = predictions["label"].map(ids).to_numpy()
    metric = EmotionMetrics()
    found = metric.compute(predictions=guessed, references=references, num_labels=len(labels))
    cluster = cluster_column(predictions)
    return found | {
        "labels": labels,
        "intervals": intervals(guessed, references, predictions[cluster].to_numpy(), len(labels)),
        "interval_clusters": cluster.removesuffix("_id") + "s",
        "groups": by_group(predictions, guessed, references, len(labels)),
    }


def figures_of_dimensions(predictions: pd.DataFrame, dimensions: Sequence[str]) -> dict[str, dict | None]:
    """CCC, Pearson and RMSE of each dimension over the rows that are annotated with it; None where no row is."""
    found = {}
    for name in dimensions:
        known = predictions[predictions[name].notna()] if name in predictions else predictions[:0]
        found[name] = dimension_scores(known[f"{name}_prediction"], known[name]) if len(known) else None
    return found


def by_group(
    predictions: pd.DataFrame, guessed: np.ndarray, references: np.ndarray, num_labels: int
) -> dict[str, list[dict[str, Any]]]:
    """n, WAR and UAR of every speaker, corpus, gender, language and band of duration, the worst by UAR first; groups of
    few rows, whose scores say little, behind the others."""
    columns = {name: predictions[name].fillna("") for name in GROUPED if name in predictions}
    if "duration" in predictions and predictions["duration"].any():
        columns["duration"] = pd.cut(predictions["duration"], BANDS, labels=BAND_NAMES).astype(object).fillna("")
    found = {}
    for column, values in columns.items():
        names = sorted(set(values) - {""})
        if len(names) > 1:
            scores = {name: score(guessed[values == name], references[values == name], num_labels) for name in names}
            groups = [{"name": name, **{key: one[key] for key in ("n", "war", "uar")}} for name, one in scores.items()]
            found[column] = sorted(groups, key=lambda group: (group["n"] < FEWEST_ROWS, group["uar"]))
    return found


def cluster_column(rows: pd.DataFrame) -> str:
    """What the intervals draw: dialogues where a corpus has them, else speakers, else single utterances."""
    for column in ("dialogue", "speaker"):
        if column in rows and (rows[column] != "").all():
            return column
    return "utterance_id"


def load_checkpoint(name: str) -> tuple[MerhanForSequenceClassification, MerhanProcessor]:
    """A run folder, a model folder or a Hub id -> model and processor.

    Raises:
        InputError: there is no such model.
    """
    folder = Path(name) / "model" if (Path(name) / "model").is_dir() else Path(name)
    source = str(folder) if folder.is_dir() else name
    try:
        model = MerhanForSequenceClassification.from_pretrained(source, dtype=torch.float32)
        # The code and the config are here; else reading the tokenizer would ask whether to run the checkpoint's own.
        return model.eval(), MerhanProcessor.from_pretrained(source, config=model.config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint: {name!r} is neither a run, nor a model folder, nor a model on the Hub "
            f"({str(error).strip().splitlines()[0]})"
        ) from None
    except StrictDataclassError as error:
        said = " ".join(str(error).split())
        raise InputError(
            f"checkpoint: {source}/config.json is not for this version ({said}); mend that key, or train again."
        ) from None


# --- what the programs that evaluate a checkpoint share ---------------------------------------------------------------


def add_source_options(parser: argparse.ArgumentParser):
    """On what to evaluate, and where to write."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--manifest", help="manifest to evaluate on (Parquet, CSV, JSONL)")
    source.add_argument("--recipe", help="recipe whose data to evaluate on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--output_dir", help="default: evaluation/ in the run's folder")
    parser.add_argument("--batch_size", type=int, default=16, help="utterances per batch (default: 16)")


def open_evaluation(
    arguments: argparse.Namespace,
) -> tuple[MerhanForSequenceClassification, MerhanProcessor, Data, Path]:
    """A checkpoint, the data to evaluate it on, with what leaks, and the evaluation folder. Prints the notes."""
    recipe = data_of(arguments)
    model, processor = load_checkpoint(arguments.checkpoint)
    data = load_data(recipe, model.config.modalities, processor.modalities, only=arguments.split)
    data.protocol["leaks"] = known_leaks(record_of(arguments.checkpoint), data.rows)
    for note in [*data.notes, *(f"leak: {leak}" for leak in data.protocol["leaks"])]:
        print(f"note: {note}")
    return model, processor, data, Path(arguments.output_dir or default_folder(arguments))


def data_of(arguments: argparse.Namespace) -> DataRecipe:
    """What to evaluate on: a manifest, a recipe's data, or the data of the run itself."""
    if arguments.manifest:
        return change_data(DataRecipe(corpus="manifest", source=arguments.manifest), arguments.set)
    own = Path(arguments.checkpoint) / "recipe.yaml"
    recipe = arguments.recipe or (own if (Path(arguments.checkpoint) / "model").is_dir() else None)
    if recipe is None:
        raise InputError("evaluate on what? Give --manifest, or --recipe, or a run's folder as checkpoint.")
    return load_recipe(recipe, arguments.set).data


def default_folder(arguments: argparse.Namespace) -> Path:
    """A run on its own data: beside its other results. Anything else: under outputs/, by model and data."""
    checkpoint, data = Path(arguments.checkpoint), arguments.manifest or arguments.recipe
    if (checkpoint / "model").is_dir() and not data:
        return checkpoint / "evaluation"
    return Path("outputs") / "evaluation" / "-".join([checkpoint.name, *([Path(data).stem] if data else [])])
