"""Recordings for synthetic releases: a tenth of a second of a tone, many files from one by hard links."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile


def write(path: Path, rate: int = 16_000, seconds: float = 0.1, **options: str) -> Path:
    """Write a tone and the folders that lead to it; `options` are soundfile's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be one file with many others
    wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate, **options)
    return path


def write_all(paths: Iterable[Path], rate: int = 16_000):
    """The same tone under every path."""
    first, *others = paths
    write(first, rate)
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)
