"""Which checkpoint is evaluated, on which data, and where the results go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from merhan.content_hashes import require_intact
from merhan.data.leaks import known_leaks
from merhan.data.loading import Data, load_data
from merhan.data.manifest import moved_paths, normalise_columns, with_absolute_paths
from merhan.data.provenance import read_provenance
from merhan.data.table_files import read_table
from merhan.errors import InputError, did_you_mean
from merhan.files import file_name
from merhan.hub_ids import split_revision
from merhan.logs import get_logger
from merhan.models.inference import load_checkpoint
from merhan.recipe.loading import load_recipe, override_data
from merhan.recipe.schema import DataRecipe
from merhan.training.run_folder import has_record
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


logger = get_logger(__name__)

_REMEDY = "restore it, or delete hashes.json there if the change is meant"


class Evaluation(NamedTuple):
    """Everything that an evaluation needs."""

    model: MerhanForSequenceClassification
    processor: MerhanProcessor
    data: Data
    folder: Path  # of the results


def open_evaluation(
    checkpoint: str | Path,
    manifest: str | Path | None = None,
    recipe: str | Path | None = None,
    changes: Sequence[str] = (),
    split: str = "test",
    output_dir: str | Path | None = None,
    source: str | Path | None = None,
) -> Evaluation:
    """Load a checkpoint and the data to evaluate it on, and log notes on rows left out and on leaks.

    Args:
        checkpoint: a run folder, a model folder, or a Hub id.
        manifest, recipe: the data, one of the two; by default the data of the run itself.
        changes: `data.key=value` changes of the recipe.
        split: the split that will be evaluated.
        output_dir: folder of the results; by default `evaluation/` of the run, or a folder in `outputs/evaluation`.
        source: the folder where the recordings of the run are now, if they were moved.

    Raises:
        InputError: there is no such checkpoint or data, or neither arguments nor checkpoint name the data.
    """
    if is_run_folder(checkpoint) and not (manifest or recipe or changes):
        data = recorded_data(checkpoint, split, source)
        model, processor = load_checkpoint(str(checkpoint))
    else:
        if source is not None:
            raise InputError(
                "--source: is where the recordings that a run recorded are now, and these are other data; give their "
                "own paths, or leave it out."
            )
        data_recipe = evaluation_data(checkpoint, manifest, recipe, changes)
        model, processor = load_checkpoint(str(checkpoint))
        data = load_data(data_recipe, model.config.modalities, processor.modalities, only=split)
    data.protocol["leaks"] = known_leaks(read_provenance(str(checkpoint)), data.rows)
    for note in [*data.notes, *(f"leak: {leak}" for leak in data.protocol["leaks"])]:
        logger.warning(f"note: {note}")
    return Evaluation(model, processor, data, Path(output_dir or default_folder(checkpoint, manifest or recipe)))


def evaluation_data(
    checkpoint: str | Path,
    manifest: str | Path | None = None,
    recipe: str | Path | None = None,
    changes: Sequence[str] = (),
) -> DataRecipe:
    """The data part of a recipe: of a manifest, of a recipe, or of the run itself.

    Args:
        checkpoint, manifest, recipe, changes: as in [`open_evaluation`].

    Raises:
        InputError: neither arguments nor checkpoint name the data.
    """
    if manifest:
        return override_data(DataRecipe(corpus="manifest", source=str(manifest)), changes)
    if recipe is None and is_run_folder(checkpoint):
        recipe = _run_recipe(checkpoint)
    if recipe is None:
        raise InputError("evaluate: give --manifest or --recipe, or a run's folder as checkpoint.")
    return load_recipe(recipe, changes).data


def recorded_data(checkpoint: str | Path, split: str | None = None, source: str | Path | None = None) -> Data:
    """The rows that a run recorded in its folder; the corpus is not read again.

    Args:
        checkpoint: the run's folder.
        split: the split whose recordings must be there; by default all of them.
        source: the folder where its recordings are now, if they were moved.

    Raises:
        InputError: the checkpoint is not a run folder, has no such split, or a recording is not where it was.
    """
    folder = Path(checkpoint).resolve()
    if not (is_run_folder(folder) or has_record(folder)):
        raise InputError(f"{checkpoint}: is not a run folder, so there is no data to find --utterance in.")
    names = ("manifest.parquet", "dialogues.parquet")
    require_intact(folder, _REMEDY, (*names, "provenance.json"))
    tables = [folder / name for name in names if (folder / name).is_file()]
    if len(tables) < 2 and load_recipe(_run_recipe(folder)).data.context_turns:
        raise InputError(
            f"{checkpoint}: an earlier version recorded this run without the turns that are only context; evaluate "
            f"with --recipe {Path(checkpoint) / 'recipe.yaml'}, which reads the corpus again, or resume it by the "
            f"recipe that it was started with."
        )
    recorded = [with_absolute_paths(normalise_columns(read_table(path), str(path)), folder) for path in tables]
    if source is not None:
        recorded = [moved_paths(rows, source) for rows in recorded]
    rows = recorded[0]
    splits = sorted(rows["split"].unique())
    if split is not None and split not in splits:
        raise InputError(f"{tables[0]}: there are no rows of the split {split!r}{did_you_mean(split, splits)}")
    _require_recordings(rows[rows["split"].isin([split] if split else splits)], checkpoint)
    return Data(rows, recorded[-1], dict(read_provenance(str(checkpoint)).get("protocol", {})), [], [])


def _require_recordings(rows: pd.DataFrame, checkpoint: str | Path):
    missing = [path for path in rows["audio"] if path and not Path(path).is_file()]
    if missing:
        raise InputError(
            f"{checkpoint}: {missing[0]}: no such recording, as {len(missing)} of {(rows['audio'] != '').sum()}; say "
            f"where they are now with --source."
        )


def default_folder(checkpoint: str | Path, source: str | Path | None = None) -> Path:
    """`evaluation/` of a run on its own data; for other data a folder named after checkpoint and data."""
    if is_run_folder(checkpoint) and source is None:
        return Path(checkpoint) / "evaluation"
    repository, revision = split_revision(checkpoint)
    names = [Path(repository).name]
    if revision is not None:
        names = [file_name(f"{names[0]}@{revision}")]
    if source is not None:
        names.append(Path(source).stem)
    return Path("outputs") / "evaluation" / "-".join(names)


def run_trainer(checkpoint: str | Path) -> dict[str, Any]:
    """The section `trainer` of the recipe of a run; empty for a model without a run folder."""
    if not is_run_folder(checkpoint):
        return {}
    return load_recipe(_run_recipe(checkpoint)).trainer


def _run_recipe(run: str | Path) -> Path:
    """The recipe of a run, with which its data is read."""
    require_intact(run, _REMEDY, ("recipe.yaml",))
    return Path(run) / "recipe.yaml"


def is_run_folder(path: str | Path) -> bool:
    """Whether a path is the folder of a finished run."""
    return (Path(path) / "model").is_dir()
