"""Precomputed feature vectors, stored as one .npy file per utterance."""

from pathlib import Path

import numpy as np
import pandas as pd

from merhan.errors import InputError


def read_features(file: str | Path) -> np.ndarray:
    """Read features as `(length, width)`; a single vector per utterance becomes a sequence of length 1.

    The file is memory-mapped, so that reading the shape alone is cheap.

    Raises:
        InputError: the file cannot be read, is empty or holds something other than float vectors.
    """
    try:
        array = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as features ({error}); give an .npy file.") from None
    if array.ndim not in (1, 2) or not array.size or not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"{file}: holds {array.dtype} {array.shape}; features must be floats (length, width) or (width,)."
        )
    return np.atleast_2d(array)


def feature_width(rows: pd.DataFrame, column: str) -> int | None:
    """The width of the feature vectors that a manifest column lists, None where it lists no file.

    Raises:
        InputError: see [`read_features`]; or the files differ in width.
    """
    widths = {read_features(file).shape[1] for file in set(rows.get(column, ())) - {""}}
    if len(widths) > 1:
        raise InputError(f"{column}: holds vectors of several widths, {', '.join(map(str, sorted(widths)))}.")
    return next(iter(widths), None)
