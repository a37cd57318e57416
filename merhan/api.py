"""What a notebook calls: train, evaluate and predict without a subprocess. `merhan` offers these names at its top.

import merhan

run = merhan.train("configs/quickstart.yaml")
results = merhan.evaluate(run)
scores = merhan.predict(run, "clips.csv")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import PartialState
from transformers import set_seed

from merhan.data.dataset import EmotionDataset
from merhan.data.leaks import require_accepted_leaks
from merhan.data.loading import Data, long_sound_notes
from merhan.data.loading import load_data as load_rows
from merhan.data.provenance import initial_weight_records
from merhan.errors import InputError
from merhan.evaluation.comparison import compare as compare_systems
from merhan.evaluation.comparison import read_system
from merhan.evaluation.evaluate import evaluate_conditions
from merhan.evaluation.model_and_data import open_evaluation, recorded_data, run_trainer
from merhan.hub.model_card import usage_example
from merhan.hub.model_folder import export_model_folder
from merhan.hub.publishing import publish
from merhan.logs import get_logger
from merhan.models.backbones import check_backbones
from merhan.models.building import build_model, build_processor
from merhan.models.inference import HALF_PRECISION, as_in_training, load_checkpoint, machine_defaults
from merhan.models.temperature_scaling import calibrate
from merhan.prediction.predict import Predictor
from merhan.prediction.timeline import Timeline
from merhan.prediction.timeline import timeline as make_timeline
from merhan.prediction.timeline_files import require_suffix as require_timeline_suffix
from merhan.prediction.timeline_files import write_timeline
from merhan.prediction.transcription import Recogniser, Transcriber, optional_transcriber
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import Recipe
from merhan.reporting.markdown_tables import scores_table
from merhan.training.preflight import check_evaluation, check_strategies
from merhan.training.run_folder import (
    check_run_folder,
    held_run_folder,
    open_run_folder,
    own_run_folder,
    place_changes,
)
from merhan.training.stage import train_stage
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


logger = get_logger(__name__)


def train(
    recipe: str | Path | Recipe,
    changes: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    source: str | Path | None = None,
) -> Path:
    """Train, evaluate and export a model.

    Args:
        recipe: a YAML file, or a recipe that is loaded already.
        changes: `key=value` changes of a YAML recipe, as `stages.0.epochs=3`.
        resume: resume an interrupted run of this recipe, in any stage. The `recipe.yaml` in a run's folder resumes that
            run with the data that it recorded, from any working folder.
        overwrite: delete an existing run of this name and start again.
        source: the folder where the recordings of a run that is resumed by its own `recipe.yaml` are now, if they were
            moved.

    Returns:
        The run's folder, with `model/` (complete, ready to publish) and `evaluation/`.

    Raises:
        InputError: anything is wrong with recipe or data; raised before any weight is loaded.
    """
    recorded = own_run_folder(recipe, changes) if resume else None
    if source is not None and recorded is None:
        raise InputError("--source: is for --resume with the recipe.yaml in the folder of a run; set data.source.")
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, [*place_changes(recorded), *changes])
    check_run_folder(recipe, resume, overwrite)
    with PartialState().main_process_first():
        data = recorded_data(recorded, source=source) if recorded else load_data(recipe)
    require_accepted_leaks(data.leaks, recipe.data.accept_leaks)
    check_evaluation(recipe, data)
    return train_on(recipe, data, resume, overwrite)


def load_data(recipe: str | Path | Recipe, changes: Sequence[str] = ()) -> Data:
    """The rows of a recipe's splits, with what was left out and what the splits share (`notes`, `leaks`)."""
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
    records = initial_weight_records(recipe.model)
    return load_rows(recipe.data, recipe.model.modalities, recipe.model.backbones, histories=records)


def train_on(recipe: Recipe, data: Data, resume: bool = False, overwrite: bool = False) -> Path:
    """From rows with splits to a model folder and its evaluation; what [`train`] does once the data is loaded."""
    train = data.rows[data.rows["split"] == "train"]
    check_strategies(recipe, train)
    model, processor = _build(recipe, train)
    datasets = _datasets(recipe, data, model, processor)
    with held_run_folder(recipe):
        folder = open_run_folder(recipe, data, resume, overwrite)
        _train_stages(recipe, data, model, processor, datasets, folder)
    return folder


def _train_stages(
    recipe: Recipe,
    data: Data,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    datasets: tuple[EmotionDataset, EmotionDataset],
    folder: Path,
):
    """From an initial model to the model folder and its evaluation."""
    notes = [*data.notes, *(f"accepted leak: {leak}" for leak in data.leaks)]
    for split in ("train", "validation"):
        notes += long_sound_notes(data.rows[data.rows["split"] == split], processor, split)
    for note in notes:
        logger.warning(f"note: {note}")
    for number, stage in enumerate(recipe.stages):
        seed = recipe.seed + number
        model = train_stage(recipe, stage, seed, model, processor, *datasets, folder / stage.name)
    with as_in_training(recipe.trainer):
        calibrate(model, processor, data.rows[data.rows["split"] == "validation"], data.dialogues)
        results = _evaluate_run(recipe, folder, model.eval(), processor, data)
    if PartialState().is_main_process:
        export_model_folder(folder, recipe, model, processor, results)
        logger.info(_closing_message(folder, recipe))
        if recipe.hub.repo_id:
            publish(folder, recipe.hub.repo_id, recipe.hub.private)


def evaluate(
    checkpoint: str | Path,
    *,
    manifest: str | Path | None = None,
    recipe: str | Path | None = None,
    changes: Sequence[str] = (),
    split: str = "test",
    modalities: Sequence[str] = ("both",),
    output_dir: str | Path | None = None,
    batch_size: int = 16,
    source: str | Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate a model, and write predictions, metrics, plots and reports.

    Args:
        checkpoint: a run's folder, a model folder, or a Hub id.
        manifest, recipe: the data, one of the two; by default the data of the run itself.
        changes: `key=value` changes of the recipe.
        split: `train`, `validation`, `test` or `test-<name>`.
        modalities: what the model is given, one evaluation each: `both` (all that it reads), `audio`, `text`.
        output_dir: folder of the results; by default `evaluation/` of the run.
        batch_size: utterances per batch.
        source: the folder where the recordings of the run are now, if they were moved.

    Returns:
        Evaluation, as `test, audio+text` -> the content of its `metrics.json`.
    """
    model, processor, data, folder = open_evaluation(checkpoint, manifest, recipe, changes, split, output_dir, source)
    conditions = [None if name == "both" else name for name in modalities]
    with as_in_training(run_trainer(checkpoint)):
        return evaluate_conditions(model, processor, data, [split], conditions, folder, batch_size)


def predict(
    checkpoint: str | Path,
    rows: Any,
    batch_size: int = 16,
    *,
    out: str | Path | None = None,
    min_score: float = 0.0,
    workers: int | None = None,
    columns: Mapping[str, str | None] | None = None,
    overwrite: bool = False,
    transcribe: Recogniser | None = None,
    language: str | None = None,
) -> pd.DataFrame | None:
    """Calibrated scores for unlabelled utterances.

    Args:
        checkpoint: a run's folder, a model folder, or a Hub id.
        rows: a recording, a folder of recordings, a table (Parquet, CSV, TSV, JSONL, .xlsx) or a data frame with the
            columns `audio` (paths; of a file relative to its folder), `text`, or both, a folder of `datasets`, or a
            list of these. Of tables also read: `utterance_id, speaker, dialogue, turn, start, end`.
        batch_size: utterances per batch and process.
        out: a .parquet, .csv or .jsonl file to write the result to, in parts: the same call resumes an interrupted one.
        min_score: answers whose highest score is lower are marked as `abstained`.
        workers: processes that decode ahead; by default on a GPU one for each core, at most 8, else none.
        columns: manifest column -> column of the tables, as `{"audio": "path"}`.
        overwrite: replace `out` and what an interrupted call left.
        transcribe, language: find the words of utterances without text, as in [`timeline`].

    Returns:
        None if `out` is named; else one row per utterance: `utterance_id`, `prediction`, a column `score_<label>` per
        label, summing to 1, `given`, `seconds`, `seconds_used`, `transcript`, `abstained`, and `error` where it cannot
        be read.
    """
    predictor = _predictor(checkpoint, batch_size, min_score, workers, optional_transcriber(transcribe, language))
    if out is None:
        return predictor.table(rows, columns)
    predictor.file(rows, Path(out), columns, overwrite)
    return None


def timeline(
    checkpoint: str | Path,
    recording: str | Path,
    batch_size: int = 16,
    min_score: float = 0.0,
    *,
    speakers: str | Path | None = None,
    channels: bool = False,
    transcribe: Recogniser | None = None,
    language: str | None = None,
    out: str | Path | Sequence[str | Path] = (),
) -> Timeline:
    """Calibrated scores along a recording of any length, for each utterance between two pauses and for each second.

    Args:
        checkpoint: a run's folder, a model folder, or a Hub id.
        recording: a file.
        batch_size: utterances per batch.
        min_score: utterances whose highest score is lower are marked as `abstained`.
        speakers: an RTTM file that says who speaks when.
        channels: each channel is a speaker, and is read on its own.
        transcribe: finds the words: a Hub id or folder of a recogniser of transformers, or a function, see
            `merhan.prediction.transcription.Transcriber`.
        language: of the words that the model reads; those of another language are not used, if the recogniser says so.
        out: files to write, in the formats of their suffixes: .csv, .json, .srt, .vtt, .rttm, .eaf, .txt, .html.

    Returns:
        `recording`, its length `seconds`, `labels`, `transcribed_by`, and three tables. `utterances`: `start` and
        `end` in seconds, `speaker`, `text`, `prediction`, a column `score_<label>` per label, `given` (`audio+text`
        where the text was used), `abstained`, and `error` where one has no scores. `curve`: the smoothed scores of each
        second, empty where they are left open. `words`: each with its times.
    """
    paths = [Path(path) for path in ([out] if isinstance(out, str | Path) else out)]
    for path in paths:
        require_timeline_suffix(path)
    transcriber = optional_transcriber(transcribe, language)
    predictor = _predictor(checkpoint, batch_size, min_score)
    result = make_timeline(predictor, recording, speakers, channels, transcriber)
    for path in paths:
        write_timeline(result, path)
    return result


def _predictor(
    checkpoint: str | Path,
    batch_size: int,
    min_score: float,
    workers: int | None = None,
    transcriber: Transcriber | None = None,
) -> Predictor:
    """A model with the precision and, unless told otherwise, the loader workers of its training."""
    model, processor = load_checkpoint(str(checkpoint))
    with as_in_training(run_trainer(checkpoint)) as speed:
        speed = speed._replace(workers=speed.workers if workers is None else workers)
    return Predictor(model, processor, batch_size, min_score, speed, transcriber)


def compare(*runs: str | Path, split: str = "test", resamples: int = 5000, seed: int = 0) -> pd.DataFrame:
    """Compare two or more systems on the same rows: a row per pair and score, with 95 % interval and p-values.

    Args:
        runs: run folders, evaluation folders, or `predictions.parquet` files.
        split: the split of run folders.
        resamples: bootstrap and permutation draws.
        seed: seed of these draws.
    """
    systems = [read_system(run, split) for run in runs]
    return pd.DataFrame(compare_systems(systems, resamples, seed))


def _build(recipe: Recipe, train: pd.DataFrame) -> tuple[MerhanForSequenceClassification, MerhanProcessor]:
    labels = sorted(train["label"].unique())
    set_seed(recipe.seed)
    with PartialState().main_process_first():  # one process downloads, the others read its cache
        processor = build_processor(recipe.model, recipe.data, train)
        model = build_model(recipe.model, labels, train)
        check_backbones(model, processor, recipe.model, _half_precisions(recipe))
    return model, processor


def _half_precisions(recipe: Recipe) -> dict[str, torch.dtype]:
    """The half precisions that the stages compute in, by name."""
    precisions: dict[str, torch.dtype] = {}
    for stage in recipe.stages:
        options = {**recipe.trainer, **stage.trainer}
        options = {**machine_defaults(options), **options}
        if torch.cuda.is_available() or options.get("use_cpu"):
            precisions |= {name: dtype for name, dtype in HALF_PRECISION.items() if options.get(name)}
    return precisions


def _datasets(
    recipe: Recipe, data: Data, model: MerhanForSequenceClassification, processor: MerhanProcessor
) -> tuple[EmotionDataset, EmotionDataset]:
    """The training and the validation set; only the first is augmented."""
    common: dict[str, Any] = {
        "processor": processor,
        "label2id": model.config.label2id,
        "modalities": recipe.model.modalities,
        "dialogues": data.dialogues,
        "seed": recipe.seed,
        "dimensions": model.config.dimensions,
    }
    train = EmotionDataset(
        data.rows[data.rows["split"] == "train"],
        augmentation=recipe.data.augmentation,
        transcript_noise=recipe.data.transcript_noise,
        soft_labels=recipe.data.soft_labels,
        **common,
    )
    return train, EmotionDataset(data.rows[data.rows["split"] == "validation"], **common)


def _evaluate_run(
    recipe: Recipe, folder: Path, model: MerhanForSequenceClassification, processor: MerhanProcessor, data: Data
) -> dict[str, dict[str, Any]]:
    """Every split and condition that the recipe names."""
    batch_size = recipe.trainer.get("per_device_eval_batch_size", 16)
    splits, conditions = recipe.evaluation.splits, [None, *recipe.evaluation.conditions]
    results = evaluate_conditions(model, processor, data, splits, conditions, folder / "evaluation", batch_size)
    logger.info(f"\n{scores_table(results)}\n")
    return results


def _closing_message(folder: Path, recipe: Recipe) -> str:
    """Where the results are, and how the model is used."""
    return (
        f"report:       {folder / 'evaluation' / recipe.evaluation.splits[0] / 'report.html'}\n"
        f"model folder: {folder / 'model'}\n\n"
        f"{usage_example((folder / 'model').as_posix(), recipe.model)}"
    )
