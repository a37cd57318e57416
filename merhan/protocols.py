"""Named splits with asserted counts, as data: `configs/protocols/*.yaml`.

A protocol either cuts the corpus into folds of groups (speakers, sessions), one for test and the next for validation,
or takes the corpus's own split. Validation and test are never the same rows.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

import modeling_merhan
from merhan.errors import InputError, nearest
from merhan.manifest import SPLITS


FOLDER = Path(modeling_merhan.__file__).parent / "configs" / "protocols"


def split(
    rows: pd.DataFrame, protocol: str | None, fold: int, only: str | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give every row its split.

    Args:
        rows: a manifest.
        protocol: a name in `configs/protocols`, or `leave-one-out:<column>` for folds of one group each in sorted
            order, or `None` for the manifest's own `split` column.
        fold: which fold is tested, from 0; the next one (cyclically) is for validation.
        only: one split that is needed; by default all three are. A manifest without splits is then all of that split.

    Returns:
        The rows, and what identifies the protocol: `name, version, hash, fold, folds`.

    Raises:
        InputError: unknown protocol, counts other than the protocol's, an empty split, or a label of validation or test
            that train lacks. (What leaks between splits is the auditor's business, merhan/leaks.py.)
    """
    spec = _load(protocol, rows)
    rows = rows.copy()
    if "folds" in spec:
        rows["split"] = _by_fold(rows, spec, fold)
    elif only and ("split" not in rows or (rows["split"] == "").all()):
        rows["split"] = only
    elif "split" not in rows or (rows["split"] == "").any():
        raise InputError(
            "data: some rows have no split; fill the manifest's `split` column with train, validation and test, or "
            "set data.protocol, as `leave-one-out:speaker`."
        )
    _check_counts(rows, spec)
    _check_splits(rows, (only,) if only else SPLITS)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    name = {"name": spec["name"], "version": spec["version"], "hash": digest}
    return rows, name | ({"fold": fold, "folds": len(spec["folds"])} if "folds" in spec else {})


def _load(protocol: str | None, rows: pd.DataFrame) -> dict[str, Any]:
    if protocol is None:
        return {"name": "manifest-split", "version": 1}
    if protocol.startswith("leave-one-out:"):
        return _leave_one_out(rows, protocol.removeprefix("leave-one-out:"))
    known = [path.stem for path in FOLDER.glob("*.yaml")]
    if protocol not in known:
        raise InputError(f"data.protocol: unknown protocol {protocol!r}{nearest(protocol, known)}")
    spec = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{protocol}.yaml"))
    corpora = set(rows["corpus"])
    if corpora != {spec["corpus"]}:
        raise InputError(f"data.protocol: {protocol} is for {spec['corpus']}, the rows are of {', '.join(corpora)}.")
    return spec


def _leave_one_out(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    if column not in rows or (rows[column].astype(str) == "").any():
        raise InputError(f"data.protocol: leave-one-out:{column} needs a {column} in every row of the manifest.")
    groups = sorted(rows[column].unique())
    if len(groups) < 3:
        raise InputError(f"data.protocol: train, validation and test need three {column}s, there are {len(groups)}.")
    return {
        "name": f"leave-one-out:{column}",
        "version": 1,
        "group": column,
        "folds": [[group] for group in groups],
    }


def _by_fold(rows: pd.DataFrame, spec: Mapping[str, Any], fold: int) -> list[str]:
    folds = spec["folds"]
    if not 0 <= fold < len(folds):
        raise InputError(f"data.fold: {spec['name']} has folds 0 to {len(folds) - 1}, not {fold}.")
    test, validation = set(folds[fold]), set(folds[(fold + 1) % len(folds)])
    group = rows[spec["group"]]
    if strangers := sorted(set(group) - {name for names in folds for name in names}):
        raise InputError(f"data.protocol: {spec['name']} knows no {spec['group']} {', '.join(strangers[:5])}.")
    return ["test" if name in test else "validation" if name in validation else "train" for name in group]


def _check_counts(rows: pd.DataFrame, spec: Mapping[str, Any]):
    """The published counts, per class or per split and class: another number means another corpus."""
    expected = spec.get("counts", {})
    if expected and not isinstance(next(iter(expected.values())), Mapping):
        expected = {"all": expected}
    for part, counts in expected.items():
        found = rows[rows["split"] == part] if part in SPLITS else rows
        found = found["label"].value_counts().to_dict()
        different = [
            f"{label} {found.get(label, 0)} instead of {count}"
            for label, count in counts.items()
            if found.get(label, 0) != count
        ]
        different += [f"{label} {found[label]} instead of 0" for label in sorted(set(found) - set(counts))]
        if different:
            raise InputError(
                f"data: {spec['name']} asserts its counts, and {part} differs: {'; '.join(different)}. Complete the "
                f"release, or use another protocol (data.protocol)."
            )


def _check_splits(rows: pd.DataFrame, needed: Sequence[str]):
    present = {name: rows[rows["split"] == name] for name in SPLITS}
    if empty := [name for name in needed if name not in present or present[name].empty]:
        there = ", ".join(f"{name} {len(part)}" for name, part in present.items())
        raise InputError(f"data: the {' and '.join(empty)} split is empty (rows: {there}); fill the `split` column.")
    if needed == SPLITS:
        _check_labels(present)


def _check_labels(present: Mapping[str, pd.DataFrame]):
    known = set(present["train"]["label"])
    for name in SPLITS[1:]:
        part = present[name]
        if len(unseen := part[~part["label"].isin(known)]):
            first = unseen.iloc[0]
            raise InputError(
                f"data: label {first['label']!r} of the {name} split ({first['utterance_id']!r}, {len(unseen)} rows in "
                f"all) is absent from train; a model cannot learn it. Move rows, or drop it with data.label_map."
            )
