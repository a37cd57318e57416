"""Manifests that are there already: one, or several joined."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merhan.corpora import Corpus
from merhan.errors import InputError
from merhan.manifest import located, read_table, tidy


def read(source: str | Path | Sequence[str] | None, root: str | Path | None = None) -> Corpus:
    """`source`: the manifest file, or a list of them; `root`: the folder that paths are relative to, by default each
    manifest's own."""
    if not source:
        raise InputError("data.source: give the manifest's path.")
    files = source if isinstance(source, list) else [source]
    return Corpus(pd.concat([_read(Path(file), root) for file in files], ignore_index=True), [])


def _read(file: Path, root: str | Path | None) -> pd.DataFrame:
    return located(tidy(read_table(file), str(file)), root or file.parent)
