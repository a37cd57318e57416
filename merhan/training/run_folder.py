"""The folder of a run: created whole, or resumed if recipe and data are the same."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from omegaconf import OmegaConf

from merhan.content_hashes import FILE as HASHES
from merhan.content_hashes import require_intact, write_hashes
from merhan.data.loading import Data
from merhan.data.manifest import write_manifest
from merhan.data.provenance import provenance, read_provenance, rows_hash
from merhan.errors import InputError
from merhan.files import (
    atomic_path,
    locked,
    remove_folder,
    remove_leftovers,
    require_writable,
    write_json,
    write_text,
)
from merhan.recipe.loading import recipe_errors, save_recipe
from merhan.recipe.schema import Recipe
from merhan.training.arguments import training_arguments


_HASHED = ("recipe.yaml", "manifest.parquet", "provenance.json")
# What may differ in the recipe of a resumed run: two sections, and where the run is.
_MAY_CHANGE = ("evaluation", "hub", "output_dir", "run_name")


def run_folder(recipe: Recipe) -> Path:
    """The folder of a recipe's run."""
    return Path(recipe.output_dir) / recipe.run_name


def is_started(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return (folder / "recipe.yaml").is_file()


def has_record(folder: Path) -> bool:
    """Whether a folder holds a run with the data that it was started with."""
    return all((folder / name).is_file() for name in _HASHED)


def own_run_folder(recipe: str | Path | Recipe, changes: Sequence[str]) -> Path | None:
    """The run in whose folder a recipe lies; None for other recipes, and where changes name another folder."""
    if isinstance(recipe, Recipe) or any(change.startswith(("output_dir=", "run_name=")) for change in changes):
        return None
    path = Path(recipe).absolute()
    return path.parent if path.name == "recipe.yaml" and has_record(path.parent) else None


def place_changes(folder: Path | None) -> list[str]:
    """The changes by which a run's own recipe means the folder where it is now, from any working folder."""
    if folder is None:
        return []
    return [f"output_dir={json.dumps(str(folder.parent))}", f"run_name={json.dumps(folder.name)}"]


def check_run_folder(recipe: Recipe, resume: bool, overwrite: bool):
    """Check, before any work is done, that the run may write into its folder and that its TrainingArguments are valid.

    Raises:
        InputError: `resume` with `overwrite`, invalid TrainingArguments, a folder that holds another run or something
            else, no run to resume, or a recipe that differs from the one of the run to resume.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite: a run is resumed, or deleted and started again; leave out one.")
    folder = run_folder(recipe)
    _check_training_arguments(recipe, folder)
    _check_processes()
    require_writable(folder, "folder", f"output_dir and run_name, {folder}")
    saved = folder / "recipe.yaml"
    if not saved.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: exists and is not the folder of a run; choose another --run_name.")
    if resume and not saved.is_file():
        raise InputError(
            f"--resume: there is no run in {folder.absolute()}; give the recipe in the folder of the run, as --config "
            f"RUN/recipe.yaml, or leave out --resume."
        )
    if not saved.is_file() or overwrite:
        return
    if not resume:
        raise InputError(
            f"{folder}: a run of this name exists; resume it with --resume, choose another --run_name, or delete it "
            f"with --overwrite."
        )
    require_intact(folder, "restore it, or start again with --overwrite", _HASHED)
    with recipe_errors(saved):
        differences = sorted(_different_keys(OmegaConf.load(saved), OmegaConf.structured(recipe)))
    differences = [key for key in differences if not key.startswith(_MAY_CHANGE)]
    if differences:
        raise InputError(
            f"--resume: the recipe differs from that of {folder} in {', '.join(differences)}; use the same recipe, or "
            f"another --run_name."
        )


@contextmanager
def held_run_folder(recipe: Recipe) -> Iterator[None]:
    """Hold the run's folder against other starts, resumptions and `--overwrite`; the first process does it for all.

    Raises:
        InputError: another run holds it.
    """
    with locked(run_folder(recipe)) if PartialState().is_main_process else nullcontext():
        yield


def open_run_folder(recipe: Recipe, data: Data, resume: bool = False, overwrite: bool = False) -> Path:
    """Create the run's folder with recipe, manifest and provenance, or open that of the run to resume.

    Every process must have passed [`check_run_folder`] before.

    Raises:
        InputError: the data differs from that of the run to resume.
    """
    folder = run_folder(recipe)
    if resume:
        _require_same_data(folder, data)  # in every process: one that failed alone would leave the others waiting
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        check_run_folder(recipe, resume, overwrite)  # again: another run may have ended since
        for place in (folder, folder.parent):
            remove_leftovers(place)
        if resume:
            _replace_recipe(folder, recipe)
        else:
            _create_run_folder(folder, recipe, data, overwrite)
    PartialState().wait_for_everyone()
    return folder


def _create_run_folder(folder: Path, recipe: Recipe, data: Data, overwrite: bool):
    """Create the folder atomically, so that a process that is killed here leaves none."""
    if overwrite:
        remove_folder(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        write_manifest(data.rows, temporary / "manifest.parquet")
        if recipe.data.context_turns:  # turns without a label are context, too
            write_manifest(data.dialogues, temporary / "dialogues.parquet")
        write_json(temporary / "provenance.json", provenance(recipe, data.rows, data.protocol))
        write_text(temporary / "command.txt", _command() + "\n")
        save_recipe(recipe, temporary / "recipe.yaml")
        write_hashes(temporary)


def _command() -> str:
    """The command that is running, without the folder of its program: a script, a package, or an installed program."""
    program = Path(sys.argv[0])
    words = [program.name]
    if program.name == "__main__.py":
        words = ["python", "-m", program.parent.name]
    elif program.suffix == ".py":
        words = ["python", program.name]
    return shlex.join([*words, *sys.argv[1:]])


def _replace_recipe(folder: Path, recipe: Recipe):
    """Write the recipe, whose evaluation and hub may have changed; the hashes go first, so that a process that is
    killed here leaves none that are wrong."""
    (folder / HASHES).unlink(missing_ok=True)
    with atomic_path(folder / "recipe.yaml") as temporary:
        save_recipe(recipe, temporary)
    write_hashes(folder, _HASHED)


def _check_training_arguments(recipe: Recipe, folder: Path):
    for stage in recipe.stages:
        options = {**recipe.trainer, **stage.trainer}
        try:
            training_arguments(folder / stage.name, options, stage.epochs, recipe.metric, 0)
        except (ValueError, TypeError, ImportError) as error:
            raise InputError(f"trainer, in stage {stage.name}: {' '.join(str(error).split())}") from None


def _require_same_data(folder: Path, data: Data):
    recorded = read_provenance(str(folder)).get("data", {}).get("fingerprint")
    if recorded != rows_hash(data.rows):
        raise InputError(
            f"--resume: the data differs from that of {folder} (see its manifest.parquet); restore it, or use "
            f"another --run_name."
        )


def _check_processes():
    """Without a GPU, accelerate lets every process of a launcher train alone unless it is asked for the CPU."""
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > 1 and PartialState().num_processes == 1:
        raise InputError(
            f"{launched} processes were launched on a machine without a GPU; set trainer.use_cpu: true in the recipe."
        )


def _different_keys(first: Any, second: Any, prefix: str = "") -> set[str]:
    """The keys at which two recipes differ."""
    if not (OmegaConf.is_dict(first) and OmegaConf.is_dict(second)):
        return set() if first == second else {prefix}
    keys: set[str] = set()
    for name in {*first, *second}:
        keys |= _different_keys(first.get(name), second.get(name), f"{prefix}.{name}".strip("."))
    return keys
