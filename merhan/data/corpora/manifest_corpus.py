"""Existing manifests: one file, or several that are joined."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merhan.data.corpora.base import Corpus
from merhan.data.manifest import normalise_columns, with_absolute_paths
from merhan.data.table_files import read_table
from merhan.errors import InputError


def read(source: str | Path | Sequence[str] | None, root: str | Path | None = None) -> Corpus:
    """Read manifests.

    Args:
        source: a manifest file, or a list of them.
        root: the folder that their paths are relative to, by default each manifest's own.

    Raises:
        InputError: a file cannot be read, or a required column is missing.
    """
    if not source:
        raise InputError("data.source: give the path of the manifest.")
    files = [source] if isinstance(source, str | Path) else source
    return Corpus(pd.concat([_read(Path(file), root) for file in files], ignore_index=True), [])


def _read(file: Path, root: str | Path | None) -> pd.DataFrame:
    return with_absolute_paths(normalise_columns(read_table(file), str(file)), root or file.parent)
