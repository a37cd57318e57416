"""Named evaluation protocols with asserted counts, one YAML file each in `configs/protocols`.

A protocol says which labels are used (and which are merged), which rows are left out, and how the other rows are
split: into folds of groups (one fold for test, the next one for validation), by explicit values, or by the corpus's
official split. The number of rows is asserted, and the hash of the protocol is stored with every result, so that a
program can tell whether two results are comparable.

    name, version     identify the protocol in results
    corpus            the corpus that it is for
    label_column      a column to use as the label in place of the emotion (sentiment)
    label_map         labels to merge, as {excitement: joy}
    labels            the labels that are used; rows with another one are left out, and counted
    keep              column -> regular expression that must match in it; other rows are left out, and counted
    leave_out         utterance id -> reason (recordings that are known to be wrong)
    group, folds      the folds, as lists of values of the column `group`; or
    split             split -> column -> the values that belong to it, all other rows being train; or `official`, the
                      split of the manifest
    counts            label -> rows, or split -> label -> rows; group_counts: group -> label -> rows
    fold_size         number of rows of every fold
    published         results that were reported on exactly this test set
    weaker            results that were reported under other or less strict conditions, and what differs
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import pandas as pd
from omegaconf import OmegaConf

from merhan.data.divisions import divide_at_random, divide_by_groups
from merhan.data.manifest import SPLITS, in_split
from merhan.errors import InputError, did_you_mean
from merhan.files import resource
from merhan.recipe.schema import SharesRecipe


FOLDER = resource("configs/protocols")

_NOT_HASHED = ("published", "weaker")  # the results of others do not change what is measured


class Split(NamedTuple):
    """Rows with their splits under a protocol."""

    rows: pd.DataFrame
    protocol: dict[str, Any]  # name, version and hash; fold and folds if the protocol has folds
    notes: list[str]  # sentences about rows that the protocol leaves out


def split(
    rows: pd.DataFrame,
    protocol: str | None,
    fold: int,
    only: str | None = None,
    shares: SharesRecipe | None = None,
    accepted: Sequence[str] = (),
) -> Split:
    """Assign every row to a split.

    Args:
        rows: the labelled rows of a manifest.
        protocol: the name of a file in `configs/protocols`; `loso:<column>` for leave-one-group-out over the sorted
            values of a column (speaker, session, ...); `loco` for leave-one-corpus-out; `grouped:<column>` for shares
            of the rows with no value of the column in two splits; `random` for shares of the rows; None for the
            manifest's column `split`.
        fold: the fold that is tested, counted from 0. The next one, cyclically, is for validation.
        only: the one split that is needed; by default train, validation and test are. A manifest without splits then
            belongs to that split as a whole.
        shares: of `grouped` and `random`, by default those of a recipe.
        accepted: the leaks that the recipe accepts; `random` needs `speaker` among them.

    Raises:
        InputError: the protocol is unknown, a column that it needs is missing, the counts differ from its own, a split
            is empty, or a label of validation or test is absent from train. Leaks between the splits are checked in
            merhan.data.leaks.
    """
    spec = load_protocol(protocol, rows, shares, accepted)
    remarks = spec.pop("remarks", [])
    _require_columns(rows, spec)
    rows, notes = _select(rows, spec)
    rows = _assign(rows, spec, fold, only)
    _check_counts(rows, spec)
    _check_splits(rows, (only,) if only else SPLITS)
    identity = {"name": spec["name"], "version": spec["version"], "hash": protocol_hash(spec)}
    if "folds" in spec:
        identity |= {"fold": fold, "folds": len(spec["folds"])}
    return Split(rows, identity, [*notes, *remarks])


def load_protocol(
    protocol: str | None, rows: pd.DataFrame, shares: SharesRecipe | None = None, accepted: Sequence[str] = ()
) -> dict[str, Any]:
    """The keys of a protocol; folds and divisions that depend on the rows are computed.

    `remarks` are sentences on what the result of a division is worth.

    Args:
        protocol, shares, accepted: as in [`split`].
        rows: the labelled rows of a manifest.

    Raises:
        InputError: the protocol is unknown or is not applicable to the rows.
    """
    if protocol is None:
        return {"name": "manifest-split", "version": 1}
    if protocol == "loco":
        return _leave_one_corpus_out(rows)
    if protocol.startswith("loso:"):
        return _leave_one_out(rows, protocol.removeprefix("loso:"))
    if protocol == "random":
        return _at_random(rows, shares or SharesRecipe(), accepted)
    if protocol.startswith("grouped:"):
        return _by_groups(rows, protocol.removeprefix("grouped:"), shares or SharesRecipe())
    spec = named_protocol(protocol)
    corpora = set(rows["corpus"])
    if corpora != {spec["corpus"]}:
        raise InputError(f"data.protocol: {protocol} is for {spec['corpus']}, the rows are of {', '.join(corpora)}.")
    return spec


def named_protocol(name: str) -> dict[str, Any]:
    """The keys of a file in `configs/protocols`.

    Raises:
        InputError: there is no such file.
    """
    known = [path.stem for path in FOLDER.glob("*.yaml")]
    if name not in known:
        suggestion = did_you_mean(name, [*known, "loco", "loso:speaker", "grouped:speaker", "random"])
        raise InputError(f"data.protocol: unknown protocol {name!r}{suggestion}")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")))


def protocol_labels(spec: Mapping[str, Any]) -> list[str]:
    """The sorted labels of a protocol: those of `labels`, or else those of `counts`; empty if it has neither."""
    if spec.get("labels"):
        return sorted(spec["labels"])
    counts = spec.get("counts", {})
    by_split = [labels for labels in counts.values() if isinstance(labels, Mapping)]
    return sorted({label for labels in by_split or [counts] for label in labels})


def protocol_hash(spec: Mapping[str, Any]) -> str:
    """Hash of the keys of a protocol that determine what is measured."""
    measured = {key: value for key, value in spec.items() if key not in _NOT_HASHED}
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:16]


def require_fold(spec: Mapping[str, Any], fold: int):
    """Check that a protocol has a fold.

    Raises:
        InputError: it has fewer folds, or none and the fold is not 0.
    """
    if "folds" in spec and not 0 <= fold < len(spec["folds"]):
        raise InputError(f"data.fold: {spec['name']} has folds 0 to {len(spec['folds']) - 1}, not {fold}.")
    if "folds" not in spec and fold:
        raise InputError(f"data.fold: {spec['name']} has no folds; leave data.fold at 0, or set data.protocol.")


# --- protocols for any manifest ---


def is_computed(protocol: str) -> bool:
    """Whether a protocol is computed from the rows, and is not a file."""
    return protocol in ("loco", "random") or protocol.startswith(("loso:", "grouped:"))


def _by_groups(rows: pd.DataFrame, column: str, shares: SharesRecipe) -> dict[str, Any]:
    missing = rows.get(column, pd.Series("", rows.index)).astype(str) == ""
    if missing.any():
        raise InputError(
            f"data.protocol: grouped:{column} needs a {column} in every row, {missing.sum()} of {len(rows)} have none; "
            f"fill the column, or use `random` with data.accept_leaks: [speaker], whose result is for known voices."
        )
    division = divide_by_groups(rows, column, shares)
    return {
        "name": f"grouped:{column}",
        "version": 1,
        "shares": asdict(shares),
        "split": division.rules,
        "remarks": division.remarks,
    }


def _at_random(rows: pd.DataFrame, shares: SharesRecipe, accepted: Sequence[str]) -> dict[str, Any]:
    if "speaker" not in accepted:
        raise InputError(
            "data.protocol: random puts utterances of a speaker into several splits, so its result is for known voices "
            "alone; use grouped:speaker, or accept that with data.accept_leaks: [speaker]."
        )
    division = divide_at_random(rows, shares)
    return {
        "name": "random",
        "version": 1,
        "shares": asdict(shares),
        "split": division.rules,
        "remarks": division.remarks,
    }


def _leave_one_out(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    if column not in rows or (rows[column].astype(str) == "").any():
        raise InputError(f"data.protocol: loso:{column} needs a {column} in every row of the manifest.")
    groups = sorted(rows[column].unique())
    if len(groups) < 3:
        raise InputError(f"data.protocol: train, validation and test need three {column}s, there are {len(groups)}.")
    return {"name": f"loso:{column}", "version": 1, "group": column, "folds": [[group] for group in groups]}


def _leave_one_corpus_out(rows: pd.DataFrame) -> dict[str, Any]:
    """One corpus is tested. Of the others, about a tenth of the speakers is for validation, see `_by_fold`."""
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


# --- which rows are used ---


def _require_columns(rows: pd.DataFrame, spec: Mapping[str, Any]):
    columns = [spec[key] for key in ("label_column", "group") if key in spec]
    columns += spec.get("keep", {})
    rules = spec.get("split", "official")
    if isinstance(rules, Mapping):
        columns += [column for rule in rules.values() for column in rule]
    missing = [column for column in columns if column not in rows]
    if missing:
        raise InputError(
            f"data.protocol: {spec['name']} needs the column {missing[0]!r}, which the rows lack; read or prepare "
            f"the release of {spec.get('corpus', 'the corpora')} again."
        )


def _select(rows: pd.DataFrame, spec: Mapping[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """The rows that a protocol uses, with its labels, and sentences about the other rows."""
    rows = rows.assign(label=_labels(rows, spec)).reset_index(drop=True)
    notes = []
    for used, reason in _selections(rows, spec):
        used = used[rows.index]
        if not used.all():
            notes.append(f"{(~used).sum()} left out by {spec['name']}: {reason}")
        rows = rows[used]
    return rows.reset_index(drop=True), notes


def _labels(rows: pd.DataFrame, spec: Mapping[str, Any]) -> pd.Series:
    labels = rows[spec.get("label_column") or "label"]
    return labels.replace(spec.get("label_map", {}))


def _selections(rows: pd.DataFrame, spec: Mapping[str, Any]) -> list[tuple[pd.Series, str]]:
    """Each condition on the rows, `(rows,)` bool, with the reason why the others are left out."""
    selections = []
    labels = spec.get("labels")
    if labels:
        selections.append((rows["label"].isin(labels), f"label is none of {', '.join(labels)}"))
    for column, pattern in spec.get("keep", {}).items():
        selections.append((rows[column].str.contains(pattern), f"{column} does not match {pattern!r}"))
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in spec.get("leave_out", {}).items():
        names_by_reason.setdefault(reason, []).append(name)
    for reason, names in names_by_reason.items():
        selections.append((~rows["utterance_id"].isin(names), reason))
    return selections


# --- which split a row belongs to ---


def _assign(rows: pd.DataFrame, spec: Mapping[str, Any], fold: int, only: str | None) -> pd.DataFrame:
    """The rows with the column `split`."""
    require_fold(spec, fold)
    if "folds" in spec:
        return rows.assign(split=_by_fold(rows, spec, fold))
    if isinstance(spec.get("split"), Mapping):
        return rows.assign(split=_by_value(rows, spec["split"]))
    if only and ("split" not in rows or (rows["split"] == "").all()):
        return rows.assign(split=only)
    if "split" not in rows or (rows["split"] == "").any():
        raise InputError(
            "data: some rows have no split; fill the manifest's `split` column with train, validation and test, or "
            "set data.protocol, as `loso:speaker`."
        )
    return rows


def _by_value(rows: pd.DataFrame, rules: Mapping[str, Mapping[str, Sequence[str]]]) -> pd.Series:
    splits = pd.Series("train", rows.index)
    for name, rule in rules.items():
        for column, values in rule.items():
            splits = splits.mask(rows[column].isin(values), name)
    return splits


def _by_fold(rows: pd.DataFrame, spec: Mapping[str, Any], fold: int) -> pd.Series:
    folds, groups = spec["folds"], rows[spec["group"]]
    unknown = sorted(set(groups) - {name for names in folds for name in names})
    if unknown:
        raise InputError(f"data.protocol: {spec['name']} has no {spec['group']} {', '.join(unknown[:5])}.")
    if spec["group"] == "corpus":
        validated = rows["speaker"].map(_validates).astype(bool)
    else:
        validated = groups.isin(folds[(fold + 1) % len(folds)])
    splits = pd.Series("train", rows.index).mask(validated, "validation")
    return splits.mask(groups.isin(folds[fold]), "test")


def _validates(speaker: str) -> bool:
    """Whether leave-one-corpus-out uses a speaker for validation: one in ten, by the hash of the name."""
    return int(hashlib.sha256(speaker.encode()).hexdigest(), 16) % 10 == 0


# --- assertions ---


def _check_counts(rows: pd.DataFrame, spec: Mapping[str, Any]):
    """Compare the number of rows with the published counts: if they differ, the corpus is another one."""
    expected = spec.get("counts", {})
    if isinstance(next(iter(expected.values()), None), Mapping):
        for part, counts in expected.items():
            _compare(_label_counts(rows[rows["split"] == part]), counts, part, spec)
    elif expected:
        _compare(_label_counts(rows), expected, "the corpus", spec)
    for group, counts in spec.get("group_counts", {}).items():
        _compare(_label_counts(rows[rows[spec["group"]] == group]), counts, group, spec)
    size = spec.get("fold_size")
    if size:
        for number, names in enumerate(spec["folds"]):
            observed = int(rows[spec["group"]].isin(names).sum())
            _compare({"rows": observed}, {"rows": size}, f"fold {number}", spec)


def _label_counts(rows: pd.DataFrame) -> dict[str, int]:
    return rows["label"].value_counts().to_dict()


def _compare(observed: Mapping[str, int], expected: Mapping[str, int], part: str, spec: Mapping[str, Any]):
    different = [
        f"{name} {observed.get(name, 0)} instead of {expected.get(name, 0)}"
        for name in dict.fromkeys([*expected, *observed])
        if observed.get(name, 0) != expected.get(name, 0)
    ]
    if different:
        raise InputError(
            f"data: {spec['name']} asserts its counts, and {part} differs: {'; '.join(different)}. Complete the "
            f"release, or use another protocol (data.protocol)."
        )


def _check_splits(rows: pd.DataFrame, needed: Sequence[str]):
    columns = rows[["utterance_id", "label"]]
    parts = {name: columns[in_split(rows, name)] for name in dict.fromkeys((*SPLITS, *needed))}
    empty = [name for name in needed if parts[name].empty]
    if empty:
        sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        raise InputError(f"data: the {' and '.join(empty)} split is empty (rows: {sizes}); fill the `split` column.")
    if needed == SPLITS:
        _check_labels(parts)


def _check_labels(parts: Mapping[str, pd.DataFrame]):
    """Refuse labels of validation and test that train lacks."""
    known = set(parts["train"]["label"])
    for name in SPLITS[1:]:
        unseen = parts[name][~parts[name]["label"].isin(known)]
        if len(unseen):
            first = unseen.iloc[0]
            raise InputError(
                f"data: label {first['label']!r} of the {name} split ({first['utterance_id']!r}, {len(unseen)} rows in "
                f"all) is absent from train; a model cannot learn it. Move rows, or drop it with data.label_map."
            )
