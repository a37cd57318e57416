"""The plan of an experiment: which recipes are trained with which folds and seeds.

An experiment is a YAML file for `merhan experiment`:

    name: fusions                # runs and report are written to outputs/<name>/
    set: [data.max_seconds=6]    # changes of every row's recipe
    rows:
      hybrid: {config: ../quickstart.yaml}
      cross: {config: ../quickstart.yaml, set: [model.config.fusion=cross]}
      audio only: {config: ../quickstart.yaml, condition: audio, against: hybrid}
    folds: [0, 1]                # of the protocol; or `all`; omitted for data without folds
    seeds: [0, 1]
    metric: uar                  # the score that rows are compared by

Rows with the same recipe and changes share their runs: a `condition` only reads another evaluation of them. Every run
is a process of its own. Finished runs are kept, interrupted ones are resumed. Test rows select nothing: checkpoints are
selected on validation rows, if at all, and the file says what is compared, and by which score, before anything runs.

Predictions of all folds are pooled, so that every utterance is tested once, and intervals and paired tests resample
speakers (or dialogues) of all folds. Several seeds are pooled too: a row is paired with the same seed of the other row,
and a speaker is resampled with all of its seeds. Intervals and tests therefore describe the variation over speakers;
the standard deviation over runs includes that over seeds.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import MISSING, OmegaConf

from merhan.data.corpora.base import read_corpus
from merhan.data.manifest import is_context_only
from merhan.data.protocols import load_protocol
from merhan.errors import InputError, did_you_mean
from merhan.names import SCORES
from merhan.recipe.loading import load_recipe, named_file, recipe_errors
from merhan.recipe.schema import DataRecipe, Recipe


@dataclass
class ExperimentRow:
    """A row of the comparison."""

    config: str = MISSING  # recipe, relative to the experiment's file
    set: list[str] = field(default_factory=list)  # changes of the recipe, as `--set`
    condition: str | None = None  # `audio` or `text`: the model is given only that
    against: str | None = None  # the row to compare with; null = the first


@dataclass
class Experiment:
    """Content of an experiment's file."""

    name: str = MISSING
    rows: dict[str, ExperimentRow] = MISSING
    set: list[str] = field(default_factory=list)
    folds: Any = None  # a list, `all`, or null for data without folds
    seeds: list[int] = field(default_factory=lambda: [0])
    metric: str = "uar"
    output_dir: str = "outputs"


class Run(NamedTuple):
    """One training run."""

    config: str
    changes: tuple[str, ...]
    conditions: frozenset[str]  # the evaluations that the report needs; "" is the one on all modalities
    folder: Path


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's file; the paths of recipes become relative to the working directory.

    Raises:
        InputError: as for a recipe; also a value out of range, or a row that is compared with an unknown row.
    """
    path = named_file(path, "experiment")
    with recipe_errors(path, Experiment):
        merged = OmegaConf.merge(OmegaConf.structured(Experiment), OmegaConf.load(path))
        experiment = cast(Experiment, OmegaConf.to_object(merged))
    rows = experiment.rows
    if not rows or experiment.metric not in SCORES:
        raise InputError(f"{path}: needs rows, and a metric of {', '.join(SCORES)}.")
    _check_ranges(experiment, path)
    for name, row in rows.items():
        row.config = os.path.normpath(Path(path).parent / row.config)
        row.against = row.against or next(iter(rows))
        if row.against not in rows:
            raise InputError(f"{path}: rows.{name}.against: no row {row.against!r}{did_you_mean(row.against, rows)}")
    return experiment


def _check_ranges(experiment: Experiment, path: str | Path):
    name, folds = experiment.name, experiment.folds
    rules = {
        "name": (Path(name).name == name not in ("", ".."), "a plain folder's name, without / and .."),
        "folds": (
            folds in (None, "all") or _are_different_integers(folds),
            "a list of different numbers, as [0, 1], or `all`, or omitted",
        ),
        "seeds": (_are_different_integers(experiment.seeds), "a list of one or more different numbers, as [0]"),
    }
    for key, (holds, expected) in rules.items():
        if not holds:
            raise InputError(f"{path}: {key}: is {getattr(experiment, key)!r}, should be {expected}.")


def _are_different_integers(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    return all(type(value) is int for value in values) and len(values) == len(set(values))


def plan_runs(experiment: Experiment) -> dict[str, list[Run]]:
    """Row -> its runs, ordered by seed, then by fold; rows with the same recipe and changes have the same runs.

    Raises:
        InputError: a recipe is wrong, there are no folds, or two rows would write to the same folder.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, row in experiment.rows.items():
        groups.setdefault((row.config, *row.set), []).append(name)
    first = next(iter(experiment.rows.values()))
    folds = _folds(experiment.folds, load_recipe(first.config, [*experiment.set, *first.set]).data)
    plan: dict[str, list[Run]] = {}
    for names in groups.values():
        runs = [_run(experiment, names, fold, seed) for seed in experiment.seeds for fold in folds]
        plan |= dict.fromkeys(names, runs)
    _require_separate_folders(plan)
    return {name: plan[name] for name in experiment.rows}


def _require_separate_folders(plan: Mapping[str, Sequence[Run]]):
    owners: dict[Path, tuple[str, Run]] = {}
    for name, (run, *_) in plan.items():
        owner, owner_run = owners.setdefault(run.folder, (name, run))
        if owner_run != run:
            raise InputError(f"rows: {owner!r} and {name!r} would both run in {run.folder}; rename one of them.")


def _folds(folds: Any, data: DataRecipe) -> list[int | None]:
    """The numbers of the folds; `[None]` for data without folds."""
    if folds is None:
        return [None]
    if folds != "all":
        return list(folds)
    rows = read_corpus(data.corpus, data.source, data.label_map, data.own_labels, **data.options).rows
    protocol = load_protocol(data.protocol, rows[~is_context_only(rows)], data.shares, data.accept_leaks)
    if "folds" not in protocol:
        raise InputError(f"folds: the protocol {protocol['name']} has none; omit `folds`.")
    return list(range(len(protocol["folds"])))


def _run(experiment: Experiment, names: Sequence[str], fold: int | None, seed: int) -> Run:
    row = experiment.rows[names[0]]
    name, fold_changes = _slug(names[0]), []
    if fold is not None:
        name += f"-fold{fold}"
        fold_changes = [f"data.fold={fold}"]
    name += f"-seed{seed}"
    folder = Path(experiment.output_dir) / experiment.name
    changes = [*experiment.set, *row.set, f"seed={seed}", f'run_name="{name}"', f"output_dir={json.dumps(str(folder))}"]
    conditions = frozenset(experiment.rows[sharing].condition or "" for sharing in names)
    changes = [*changes, *fold_changes, *condition_changes(conditions)]
    return Run(row.config, tuple(changes), conditions, folder / name)


def _slug(name: str) -> str:
    """A row's name as part of a folder's name."""
    return "".join(_safe_character(character) for character in name)


def _safe_character(character: str) -> str:
    if character.isalnum() or character in "._+-":
        return character
    return "-"


def condition_changes(conditions: Iterable[str]) -> list[str]:
    """The change of a recipe that makes a run evaluate these conditions."""
    names = sorted(set(conditions) - {""})
    if not names:
        return []
    return [f"evaluation.conditions=[{', '.join(names)}]"]


def row_recipe(config: str, changes: Sequence[str]) -> Recipe:
    """Load the recipe of a row.

    Raises:
        InputError: the recipe is wrong, or its runs would not evaluate the test split, which the report reads.
    """
    recipe = load_recipe(config, changes)
    if "test" not in recipe.evaluation.splits:
        raise InputError(
            f"{config}: evaluation.splits: is {recipe.evaluation.splits}, and an experiment compares `test`; give "
            f"the experiment `set: ['evaluation.splits=[test]']`, which covers every test set."
        )
    return recipe


def predictions_file(run: Run, condition: str | None) -> Path:
    """The predictions of a run under a condition."""
    name = "test"
    if condition:
        name = f"test--{condition}"
    return run.folder / "evaluation" / name / "predictions.parquet"


def is_finished(run: Run) -> bool:
    """Whether a run has its model and all evaluations that the report needs."""
    metrics = [predictions_file(run, condition).with_name("metrics.json") for condition in run.conditions]
    return (run.folder / "model" / "README.md").is_file() and all(file.is_file() for file in metrics)
