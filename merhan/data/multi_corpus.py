"""`merhan prepare all`: every corpus below a folder, joined in one manifest with one train split and several test sets.

Splits: `train`, `validation`, `test-acted` (speakers of the acted corpora who are in no other split) and
`test-<corpus>` for each corpus that has an official split (`test-meld`). Held-out speakers are chosen by the hash of
their names, so that every run chooses the same. Sentiment corpora are not joined, because their label `neutral` does
not mean a neutral emotion.
"""

import hashlib
import re
from pathlib import Path

import pandas as pd

from merhan.data.corpora import CORPORA
from merhan.data.corpora.base import corpus_reader
from merhan.data.manifest import SPLITS, in_split, is_context_only, read_manifest, write_manifest
from merhan.data.preparation import Prepared, prepare
from merhan.errors import InputError
from merhan.logs import get_logger
from merhan.names import SENTIMENTS
from merhan.reporting.markdown_tables import markdown_table


logger = get_logger(__name__)

# Shares of an acted corpus's speakers (or sessions) that are held out. A corpus with fewer than MIN_GROUPS of them
# belongs to train as a whole.
TEST_SHARE, VALIDATION_SHARE, MIN_GROUPS = 0.15, 0.10, 5


def prepare_all(root: Path, out: Path, strict: bool = False, workers: int | None = None) -> Prepared:
    """Prepare every corpus that has a folder of its name below `root`, and join them in `out/manifest.parquet`.

    Args:
        root: folder with one raw release per subfolder.
        out: folder to write; each corpus is also prepared on its own in `out/<corpus>`.
        strict, workers: as in [`prepare`].

    Returns:
        the rows of the joined manifest, and the counts of all corpora.

    Raises:
        InputError: there is no such folder, or a corpus cannot be prepared.
    """
    folders = find_corpora(root)
    if not folders:
        names = ", ".join(name for name in CORPORA if hasattr(corpus_reader(name), "ABOUT"))
        raise InputError(f"{root}: no folder is named after a corpus; known are {names}.")
    recordings = failed = 0
    for name, folder in folders.items():
        logger.info(f"\n## {name}\n")
        prepared = prepare(name, folder, out / name, strict=strict, workers=workers)
        recordings, failed = recordings + prepared.recordings, failed + prepared.failed
    parts = [read_manifest(out / name / "manifest.parquet") for name in folders]
    rows = pd.concat([part.assign(split=unified_split(part)) for part in parts], ignore_index=True)
    refuse_corpus_names(rows)
    write_manifest(rows, out / "manifest.parquet")
    labelled = rows[~is_context_only(rows)]
    statistics(labelled).to_csv(out / "statistics.csv", index=False)
    logger.info(f"\n## all\n\n{count_tables(labelled)}\n\n{out / 'manifest.parquet'}: {len(rows)} utterances")
    return Prepared(rows, recordings, failed)


def find_corpora(root: Path) -> dict[str, Path]:
    """The corpora that have a folder below `root`, whose name may differ in case and punctuation (`EmoV-DB`).

    Raises:
        InputError: `root` is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder; it should hold one folder per corpus.")
    folders = {re.sub(r"\W|_", "", path.name).lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    corpora = {}
    for name in CORPORA:
        plain_name = name.replace("_", "")
        if plain_name in folders and _can_be_joined(name):
            corpora[name] = folders[plain_name]
    return corpora


def _can_be_joined(name: str) -> bool:
    """Whether a reader is of a published corpus with emotion labels."""
    reader = corpus_reader(name)
    return name != "demo" and hasattr(reader, "ABOUT") and not set(SENTIMENTS) & set(reader.LABELS.values())


def unified_split(rows: pd.DataFrame) -> pd.Series:
    """The split of each row of a corpus in the joined manifest.

    A usable official split stays, its test set as `test-<corpus>`. Otherwise speakers are held out, or sessions where
    there are any, because the speakers of a session share acoustics and script.
    """
    if has_usable_split(rows):
        test = f"test-{rows['corpus'].iloc[0]}"
        return rows["split"].where(rows["split"].isin(SPLITS[:2]), test)
    groups = rows["speaker"]
    if "session" in rows and (rows["session"] != "").all():
        groups = rows["session"]
    names = sorted(set(groups), key=_hash)
    if len(names) < MIN_GROUPS:
        return pd.Series("train", rows.index)
    tested = max(round(TEST_SHARE * len(names)), 1)
    validated = max(round(VALIDATION_SHARE * len(names)), 1)
    splits = dict.fromkeys(names, "train") | dict.fromkeys(names[:tested], "test-acted")
    splits |= dict.fromkeys(names[tested : tested + validated], "validation")
    return groups.map(splits)


def has_usable_split(rows: pd.DataFrame) -> bool:
    """Whether every row has an official split whose test set has a speaker that train lacks.

    The official split of ESD, for example, tests the speakers of train.
    """
    if "split" not in rows or (rows["split"] == "").any():
        return False
    known = set(rows.loc[rows["split"] == "train", "speaker"]) - {""}
    return not rows.loc[in_split(rows, "test"), "speaker"].isin(known).all()


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def refuse_corpus_names(rows: pd.DataFrame):
    """Check that no text contains the name of its corpus, alone, in a speaker's id or in a tag in brackets.

    Raises:
        InputError: one does; a model could then recognise the corpus, and with it the frequent labels.
    """
    for corpus, part in rows.groupby("corpus"):
        pattern = rf"\[[\w-]*{corpus}|\b{corpus}\b|\b{corpus}[-_]\w+"
        matches = part[part["text"].str.contains(pattern, case=False, regex=True)]
        if len(matches):
            row = matches.iloc[0]
            raise InputError(
                f"{row['utterance_id']!r}: the text {row['text'][:60]!r} names its corpus ({len(matches)} rows), from "
                f"which a model could guess the label; remove the name from the text."
            )


def statistics(rows: pd.DataFrame) -> pd.DataFrame:
    """Utterances, hours, speakers and `balancing_weight` for each corpus and split.

    With the weight, which only train rows have, every corpus has the same total weight in training, and the mean
    weight of a row is 1.
    """
    table = rows.groupby(["corpus", "split"]).agg(
        utterances=("utterance_id", "size"),
        hours=("duration", lambda seconds: seconds.sum() / 3600),
        speakers=("speaker", lambda names: names[names != ""].nunique()),
    )
    table = table.reset_index()
    train = table[table["split"] == "train"].set_index("corpus")["utterances"]
    weights = train.sum() / (len(train) * train)
    table["balancing_weight"] = table["corpus"].map(weights).where(table["split"] == "train")
    return table


def count_tables(rows: pd.DataFrame) -> str:
    """Two Markdown tables: rows per corpus and split, and rows per label and corpus."""
    splits = rows.pivot_table(index="corpus", columns="split", values="utterance_id", aggfunc="size", fill_value=0)
    labels = rows.pivot_table(index="label", columns="corpus", values="utterance_id", aggfunc="size", fill_value=0)
    return "\n\n".join(
        markdown_table([table.index.name, *table.columns], table.reset_index().to_numpy().tolist())
        for table in (splits, labels)
    )
