"""Named splits with asserted counts, as data: `configs/protocols/*.yaml`.

A protocol says which labels count (and what is merged), whether some rows are left out, and how the rest is split:
into folds of groups (one for test, the next for validation), by names, or as the corpus itself has it. Its counts are
asserted, and its hash goes into every result, so that two numbers can be compared by machine.

    name, version     what results are stamped with
    corpus            whose rows it is for
    label_column      a column to take as label in place of the emotion (sentiment)
    label_map         labels to merge, as {excitement: joy}
    labels            the labels that count; rows with another one are left out, and counted
    keep              column -> regular expression that must be found in it; other rows are left out, and counted
    leave_out         utterance id -> why (clips that are known to be wrong)
    group, folds      the folds, as lists of groups; or
    split             split -> column -> the values that belong to it, the other rows being train; or `official`, for
                      the manifest's own
    counts            label -> rows, or split -> label -> rows; group_counts: group -> label -> rows
    fold_size         rows of every fold
    published         who reported which number on exactly this test set
    weaker            who reported on something weaker or otherwise different, and how
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from omegaconf import OmegaConf

import modeling_merhan
from merhan.errors import InputError, nearest
from merhan.manifest import SPLITS, in_split


FOLDER = Path(modeling_merhan.__file__).parent / "configs" / "protocols"
_NOT_HASHED = ("published", "weaker")  # what others reported does not change what is measured


class Split(NamedTuple):
    """Rows with their splits, under a protocol."""

    rows: pd.DataFrame
    protocol: dict[str, Any]  # name, version, hash, and fold and folds where there are any
    notes: list[str]  # sentences about what the protocol leaves out


def split(rows: pd.DataFrame, protocol: str | None, fold: int, only: str | None = None) -> Split:
    """Give every row its split.

    Args:
        rows: a manifest.
        protocol: a name in `configs/protocols`; `loso:<column>` for folds of one group each in sorted order (speaker,
            session, ...); `loco` to leave one corpus out; None for the manifest's own `split` column.
        fold: which fold is tested, from 0; the next one (cyclically) is for validation.
        only: one split that is needed; by default all three are. A manifest without splits is then all of that split.

    Raises:
        InputError: unknown protocol, rows without a column that it needs, counts other than the protocol's, an empty
            split, or a label of validation or test that train lacks. (What leaks between splits is the auditor's
            business, merhan/leaks.py.)
    """
    spec = load_protocol(protocol, rows)
    _require_columns(rows, spec)
    rows, notes = _select(rows, spec)
    rows = _assign(rows, spec, fold, only)
    _check_counts(rows, spec)
    _check_splits(rows, (only,) if only else SPLITS)
    identity = {"name": spec["name"], "version": spec["version"], "hash": fingerprint(spec)}
    folds = {"fold": fold, "folds": len(spec["folds"])} if "folds" in spec else {}
    return Split(rows, identity | folds, notes)


def load_protocol(protocol: str | None, rows: pd.DataFrame) -> dict[str, Any]:
    """What a protocol says, for these rows."""
    if protocol is None:
        return {"name": "manifest-split", "version": 1}
    if protocol == "loco":
        return _leave_one_corpus_out(rows)
    if protocol.startswith("loso:"):
        return _leave_one_out(rows, protocol.removeprefix("loso:"))
    spec = named_protocol(protocol)
    corpora = set(rows["corpus"])
    if corpora != {spec["corpus"]}:
        raise InputError(f"data.protocol: {protocol} is for {spec['corpus']}, the rows are of {', '.join(corpora)}.")
    return spec


def named_protocol(name: str) -> dict[str, Any]:
    """What a file of `configs/protocols` says."""
    known = [path.stem for path in FOLDER.glob("*.yaml")]
    if name not in known:
        raise InputError(f"data.protocol: unknown protocol {name!r}{nearest(name, [*known, 'loco', 'loso:speaker'])}")
    return OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))


def labels_of(spec: Mapping[str, Any]) -> list[str]:
    """The labels that a protocol's rows have: those that it names, or else counts; none where it does neither."""
    counts = spec.get("counts", {})
    parts = [part for part in counts.values() if isinstance(part, Mapping)] or [counts]
    return sorted(spec.get("labels") or {label for part in parts for label in part})


def fingerprint(spec: Mapping[str, Any]) -> str:
    """Hash of what a protocol measures."""
    measured = {key: value for key, value in spec.items() if key not in _NOT_HASHED}
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:16]


def _leave_one_out(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    if column not in rows or (rows[column].astype(str) == "").any():
        raise InputError(f"data.protocol: loso:{column} needs a {column} in every row of the manifest.")
    groups = sorted(rows[column].unique())
    if len(groups) < 3:
        raise InputError(f"data.protocol: train, validation and test need three {column}s, there are {len(groups)}.")
    return {"name": f"loso:{column}", "version": 1, "group": column, "folds": [[group] for group in groups]}


def _leave_one_corpus_out(rows: pd.DataFrame) -> dict[str, Any]:
    """One corpus is tested; of the others, each speaker whose name falls into one tenth of the hashes validates."""
    corpora = sorted(rows["corpus"].unique())
    if len(corpora) < 2:
        raise InputError(f"data.protocol: loco needs rows of several corpora, there is only {corpora[0]}.")
    if "speaker" not in rows:
        raise InputError("data.protocol: loco needs a speaker column, to validate on other speakers than it trains on.")
    common = set.intersection(*(set(part["label"]) for _, part in rows.groupby("corpus")))
    if len(common) < 2:
        raise InputError(
            f"data.protocol: loco: {', '.join(corpora)} have no two labels in common; merge some (data.label_map)."
        )
    folds = [[corpus] for corpus in corpora]
    return {"name": "loco", "version": 1, "group": "corpus", "folds": folds, "labels": sorted(common)}


def _require_columns(rows: pd.DataFrame, spec: Mapping[str, Any]):
    named = spec.get("split", "official")
    columns = [spec[key] for key in ("label_column", "group") if key in spec] + list(spec.get("keep", {}))
    columns += [column for rule in named.values() for column in rule] if isinstance(named, Mapping) else []
    if missing := [column for column in columns if column not in rows]:
        raise InputError(
            f"data.protocol: {spec['name']} needs the column {missing[0]!r}, which the rows lack; read or prepare "
            f"the release of {spec.get('corpus', 'the corpora')} anew."
        )


def _select(rows: pd.DataFrame, spec: Mapping[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """The rows that a protocol is about, under its labels."""
    notes = []

    def keep(rows: pd.DataFrame, kept: pd.Series, why: str) -> pd.DataFrame:
        if not kept.all():
            notes.append(f"{(~kept).sum()} left out by {spec['name']}: {why}")
        return rows[kept]

    if column := spec.get("label_column"):
        rows = rows.assign(label=rows[column])
    merged = spec.get("label_map", {})
    rows = rows.assign(label=rows["label"].map(lambda label: merged.get(label, label)))
    if labels := spec.get("labels"):
        rows = keep(rows, rows["label"].isin(labels), f"label is none of {', '.join(labels)}")
    for column, pattern in spec.get("keep", {}).items():
        rows = keep(rows, rows[column].str.contains(pattern), f"{column} does not match {pattern!r}")
    bad = spec.get("leave_out", {})
    for why in dict.fromkeys(bad.values()):
        rows = keep(rows, ~rows["utterance_id"].isin([row for row, reason in bad.items() if reason == why]), why)
    return rows.reset_index(drop=True), notes


def _assign(rows: pd.DataFrame, spec: Mapping[str, Any], fold: int, only: str | None) -> pd.DataFrame:
    """The rows, each with its split."""
    require_fold(spec, fold)
    if "folds" in spec:
        return rows.assign(split=_by_fold(rows, spec, fold))
    if isinstance(spec.get("split"), Mapping):
        return rows.assign(split=_by_name(rows, spec["split"]))
    if only and ("split" not in rows or (rows["split"] == "").all()):
        return rows.assign(split=only)
    if "split" not in rows or (rows["split"] == "").any():
        raise InputError(
            "data: some rows have no split; fill the manifest's `split` column with train, validation and test, or "
            "set data.protocol, as `loso:speaker`."
        )
    return rows


def _by_name(rows: pd.DataFrame, rules: Mapping[str, Mapping[str, Sequence[str]]]) -> pd.Series:
    splits = pd.Series("train", rows.index)
    for name, rule in rules.items():
        for column, values in rule.items():
            splits = splits.mask(rows[column].isin(values), name)
    return splits


def require_fold(spec: Mapping[str, Any], fold: int):
    """Refuse a fold that a protocol does not have."""
    if "folds" in spec and not 0 <= fold < len(spec["folds"]):
        raise InputError(f"data.fold: {spec['name']} has folds 0 to {len(spec['folds']) - 1}, not {fold}.")
    if "folds" not in spec and fold:
        raise InputError(f"data.fold: {spec['name']} has no folds; leave data.fold at 0, or set data.protocol.")


def _by_fold(rows: pd.DataFrame, spec: Mapping[str, Any], fold: int) -> list[str]:
    folds = spec["folds"]
    test, validation = set(folds[fold]), set(folds[(fold + 1) % len(folds)])
    group = rows[spec["group"]]
    if strangers := sorted(set(group) - {name for names in folds for name in names}):
        raise InputError(f"data.protocol: {spec['name']} knows no {spec['group']} {', '.join(strangers[:5])}.")
    if spec["group"] == "corpus":
        validating = rows["speaker"].map(lambda name: int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0)
        return [
            "test" if name in test else "validation" if v else "train"
            for name, v in zip(group, validating, strict=True)
        ]
    return ["test" if name in test else "validation" if name in validation else "train" for name in group]


def _check_counts(rows: pd.DataFrame, spec: Mapping[str, Any]):
    """The published counts: another number means another corpus."""
    expected = spec.get("counts", {})
    if isinstance(next(iter(expected.values()), None), Mapping):
        for part, counts in expected.items():
            _compare(rows.loc[rows["split"] == part, "label"].value_counts(), counts, part, spec)
    elif expected:
        _compare(rows["label"].value_counts(), expected, "the corpus", spec)
    for group, counts in spec.get("group_counts", {}).items():
        _compare(rows.loc[rows[spec["group"]] == group, "label"].value_counts(), counts, group, spec)
    if size := spec.get("fold_size"):
        for number, names in enumerate(spec["folds"]):
            _compare({"rows": rows[spec["group"]].isin(names).sum()}, {"rows": size}, f"fold {number}", spec)


def _compare(found: Mapping[str, int], expected: Mapping[str, int], part: str, spec: Mapping[str, Any]):
    different = [
        f"{name} {found.get(name, 0)} instead of {expected.get(name, 0)}"
        for name in dict.fromkeys([*expected, *found.keys()])
        if found.get(name, 0) != expected.get(name, 0)
    ]
    if different:
        raise InputError(
            f"data: {spec['name']} asserts its counts, and {part} differs: {'; '.join(different)}. Complete the "
            f"release, or use another protocol (data.protocol)."
        )


def _check_splits(rows: pd.DataFrame, needed: Sequence[str]):
    present = {name: rows[in_split(rows, name)] for name in dict.fromkeys((*SPLITS, *needed))}
    if empty := [name for name in needed if present[name].empty]:
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
