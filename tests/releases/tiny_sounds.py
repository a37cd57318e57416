"""Recordings for synthetic releases: short tones; several paths are hard links to one file."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile


def write(path: Path, rate: int = 16_000, seconds: float = 0.1, **options: str) -> Path:
    """Write a tone, making its folder; `options` are those of soundfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a hard link to a shared file
    wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate, **options)
    return path


def write_all(paths: Iterable[Path], rate: int = 16_000):
    """Write the same tone to every path, as hard links."""
    first, *others = paths
    write(first, rate)
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)
