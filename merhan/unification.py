"""`merhan prepare all`: every corpus below a folder, in one manifest with one training set and honest test sets.

Splits: `train`, `validation`, `test-acted` (speakers of the acted corpora, in no other split) and one `test-<corpus>`
for each corpus that brings a split of its own (`test-meld`). Which speakers are held out follows from their names
alone, so that it is the same wherever and whenever this runs. Corpora of sentiment are not joined: their `neutral` is
no emotion.
"""

import hashlib
import re
from pathlib import Path

import pandas as pd

from merhan.corpora import CORPORA, room
from merhan.emotions import SENTIMENTS
from merhan.errors import InputError
from merhan.manifest import SPLITS, context_only, in_split, read_manifest, write_manifest
from merhan.preparation import prepare
from merhan.report import markdown_table


# Shares of an acted corpus's groups that are held out; corpora with fewer groups than this go into train whole.
TEST, VALIDATION, FEWEST = 0.15, 0.10, 5


def prepare_all(root: Path, out: Path, strict: bool = False, workers: int | None = None) -> pd.DataFrame:
    """Prepare every corpus that has a folder of its name below `root`, and join them in `out/manifest.parquet`."""
    folders = find_corpora(root)
    if not folders:
        names = ", ".join(name for name in CORPORA if hasattr(room(name), "ABOUT"))
        raise InputError(f"{root}: no folder is named after a corpus; known are {names}.")
    for name, folder in folders.items():
        print(f"\n## {name}\n")
        prepare(name, folder, out / name, strict=strict, workers=workers)
    parts = [read_manifest(out / name / "manifest.parquet") for name in folders]
    rows = pd.concat([part.assign(split=unified_split(part)) for part in parts], ignore_index=True)
    check_words(rows)
    write_manifest(rows, out / "manifest.parquet")
    labelled = rows[~context_only(rows)]
    statistics(labelled).to_csv(out / "statistics.csv", index=False)
    print(f"\n## all\n\n{as_markdown(labelled)}\n\n{out / 'manifest.parquet'}: {len(rows)} utterances")
    return rows


def find_corpora(root: Path) -> dict[str, Path]:
    """Corpus -> its folder: a folder's name may differ in case and punctuation (`EmoV-DB`, `crema-d`)."""
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder; it should hold one folder per corpus.")
    plain = {re.sub(r"\W|_", "", path.name).lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    released = [name for name in CORPORA if hasattr(room(name), "ABOUT") and name != "demo"]
    released = [name for name in released if not set(SENTIMENTS) & set(room(name).LABELS.values())]
    return {name: plain[name.replace("_", "")] for name in released if name.replace("_", "") in plain}


def unified_split(rows: pd.DataFrame) -> pd.Series:
    """A corpus's own split, its test set under its name; for a corpus without one, held-out speakers."""
    name = rows["corpus"].iloc[0]
    if has_own_split(rows):
        return rows["split"].map(lambda split: split if split in SPLITS[:2] else f"test-{name}")
    # Both speakers of a session share the room and the script.
    group = rows["session"] if "session" in rows and (rows["session"] != "").all() else rows["speaker"]
    names = sorted(set(group), key=_draw)
    if len(names) < FEWEST:
        return pd.Series("train", rows.index)
    tested = max(round(TEST * len(names)), 1)
    chosen = max(round(VALIDATION * len(names)), 1)
    splits = dict.fromkeys(names, "train") | dict.fromkeys(names[:tested], "test-acted")
    splits |= dict.fromkeys(names[tested : tested + chosen], "validation")
    return group.map(splits)


def has_own_split(rows: pd.DataFrame) -> bool:
    """Whether every row has a split, and someone is tested whom train lacks: ESD's own tests the speakers of train."""
    if "split" not in rows or (rows["split"] == "").any():
        return False
    known = set(rows.loc[rows["split"] == "train", "speaker"]) - {""}
    return not rows.loc[in_split(rows, "test"), "speaker"].isin(known).all()


def _draw(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def check_words(rows: pd.DataFrame):
    """Stop where words give the corpus away: its name, alone or in a speaker's id or a tag in brackets."""
    for corpus, part in rows.groupby("corpus"):
        pattern = rf"\[[\w-]*{corpus}|\b{corpus}\b|\b{corpus}[-_]\w+"
        if (bad := part["text"].str.contains(pattern, case=False, regex=True)).any():
            row = part[bad].iloc[0]
            raise InputError(
                f"{row['utterance_id']!r}: its words {row['text'][:60]!r} give the corpus away ({bad.sum()} rows); a "
                f"model would learn the corpus in place of the emotion."
            )


def statistics(rows: pd.DataFrame) -> pd.DataFrame:
    """Labelled rows, hours, speakers and the weight that balances corpora, for each corpus and split."""
    table = rows.groupby(["corpus", "split"]).agg(
        utterances=("utterance_id", "size"),
        hours=("duration", lambda seconds: seconds.sum() / 3600),
        speakers=("speaker", lambda names: names[names != ""].nunique()),
    )
    table = table.reset_index()
    train = table[table["split"] == "train"].set_index("corpus")["utterances"]
    # With it, every corpus weighs as much in training as any other, and the mean weight is 1.
    weight = train.sum() / (len(train) * train)
    table["balancing_weight"] = table["corpus"].map(weight).where(table["split"] == "train")
    return table


def as_markdown(rows: pd.DataFrame) -> str:
    """Rows per corpus and split, and per label and corpus."""
    splits = rows.pivot_table(index="corpus", columns="split", values="utterance_id", aggfunc="size", fill_value=0)
    labels = rows.pivot_table(index="label", columns="corpus", values="utterance_id", aggfunc="size", fill_value=0)
    return "\n\n".join(
        markdown_table([table.index.name, *table.columns], table.reset_index().to_numpy().tolist())
        for table in (splits, labels)
    )
