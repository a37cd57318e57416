"""Existing manifests: one file, or several that are joined."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merhan.data.corpora.base import Corpus
from merhan.data.manifest import declared_labels, normalise_columns, with_absolute_paths
from merhan.data.table_files import read_table
from merhan.errors import InputError
from merhan.files import home_path


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
    parts = [_read(file, root) for file in _files(source)]
    return Corpus(pd.concat(parts, ignore_index=True), [])


def declared(source: str | Path | Sequence[str]) -> list[str]:
    """The labels outside of the vocabulary that the manifests' `corpus.json` files declare."""
    return [label for file in _files(source) for label in declared_labels(file)]


def _files(source: str | Path | Sequence[str]) -> list[Path]:
    files = [source] if isinstance(source, str | Path) else source
    return [home_path(file) for file in files]


def _read(file: Path, root: str | Path | None) -> pd.DataFrame:
    return with_absolute_paths(normalise_columns(read_table(file), str(file)), root or file.parent)
