"""Long recordings, read in blocks, so that memory does not grow with their length."""

import itertools
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from merhan.errors import InputError
from processing_merhan import SAMPLING_RATE, AudioError, decode_audio, resample


_BLOCK_SECONDS = 32  # of sound in memory at a time
_PIECE_SECONDS = 256  # the same for formats that only FFmpeg reads, whose decoder starts anew for every piece
_OVERLAP = 0.2  # seconds; more than the tolerance of `decode_audio` at the end of a recording


class Track(NamedTuple):
    """Sound that is scored on its own."""

    path: Path  # soundfile reads it, and seeks in it
    speaker: str | None  # who is heard in it, if it is one channel of several


@contextmanager
def open_tracks(path: Path, by_channel: bool) -> Iterator[list[Track]]:
    """The sound of a recording: itself, where soundfile reads it; else a temporary copy. By channel: a copy of each.

    Raises:
        AudioError: it cannot be read.
        InputError: channels are asked for, and there is one.
    """
    is_readable = _is_readable(path)
    if is_readable and not by_channel:
        yield [Track(path, None)]
        return
    with tempfile.TemporaryDirectory() as folder:
        blocks = _blocks(path) if is_readable else _pieces(path)
        copies = _copy(blocks, Path(folder), path.stem, by_channel)
        if by_channel and len(copies) == 1:
            raise InputError(f"{path}: has one channel; leave `channels` out, or name its speakers in an RTTM file.")
        yield [Track(copy, f"channel {n}" if by_channel else None) for n, copy in enumerate(copies, start=1)]


def sound_blocks(path: Path) -> Iterator[np.ndarray]:
    """A file that soundfile reads at 16 kHz, in mono, a block at a time `(samples,)`."""
    resampler = Resampler(soundfile.info(str(path)).samplerate)
    for block, _ in _blocks(path):
        yield resampler.add(block.mean(axis=0, dtype=np.float32))
    yield resampler.finish()


class Resampler:
    """Sound of any rate, as it comes, to 16 kHz: what [`resample`] makes of the whole, in memory that does not grow.

    A sample is made as soon as all sound is there that its filter reads: seven samples after it at the lower of the two
    rates.

    Args:
        rate: in Hz.
    """

    def __init__(self, rate: int):
        self.rate = rate
        divisor = math.gcd(rate, SAMPLING_RATE)
        self.source, self.target = rate // divisor, SAMPLING_RATE // divisor
        self.reach = 7 * max(math.ceil(self.source / self.target), 1)  # of the filter to each side, in samples
        self.sound = np.zeros(0, np.float32)  # what later samples are made of
        self.start = 0  # number of its first sample, a multiple of `source`, where samples of both rates coincide
        self.made = 0  # samples at 16 kHz

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Read on `(samples,)` float32; returns the samples at 16 kHz that are ready."""
        if self.source == self.target:
            return samples
        self.sound = np.concatenate([self.sound, samples])
        length = self.start + len(self.sound) - self.reach
        return self._made_up_to(max(length * self.target // self.source, self.made))

    def finish(self) -> np.ndarray:
        """The last samples, before the end of the sound."""
        length = self.start + len(self.sound)
        return self._made_up_to(-(-length * self.target // self.source))

    def _made_up_to(self, end: int) -> np.ndarray:
        if end <= self.made:
            return np.zeros(0, np.float32)
        first = self.start // self.source * self.target
        made = resample(self.sound, self.rate)[self.made - first : end - first]
        self.made = end
        needed = end * self.source // self.target - self.reach
        start = max(needed // self.source * self.source, self.start)
        self.sound, self.start = self.sound[start - self.start :].copy(), start
        return made


def _is_readable(path: Path) -> bool:
    try:
        return soundfile.info(str(path)).frames > 0
    except (soundfile.LibsndfileError, TypeError):  # TypeError: the suffix .raw
        return False


def _blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks `(channels, samples)` of a file that soundfile reads, each with the sampling rate."""
    with soundfile.SoundFile(path) as file:
        for block in file.blocks(_BLOCK_SECONDS * file.samplerate, dtype="float32", always_2d=True):
            yield block.T, file.samplerate


def _pieces(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """The same of any recording. Its length is not known before its end: a piece that lies behind it is refused, and
    what is left is read as the last one."""
    for number in itertools.count():
        start = max(number * _PIECE_SECONDS - _OVERLAP, 0.0)
        try:
            piece, rate = decode_audio(path, start, (number + 1) * _PIECE_SECONDS)
            is_last = False
        except AudioError:
            piece, rate = decode_audio(path, start)
            is_last = True
        yield piece[:, round((number * _PIECE_SECONDS - start) * rate) :], rate
        if is_last:
            return


def _copy(blocks: Iterator[tuple[np.ndarray, int]], folder: Path, name: str, by_channel: bool) -> list[Path]:
    """Write sound as wav files without loss: the mean of its channels, or a file for each."""
    paths: list[Path] = []
    with ExitStack() as stack:
        files: list[soundfile.SoundFile] = []
        for block, rate in blocks:
            rows = block if by_channel else block.mean(axis=0, keepdims=True, dtype=np.float32)
            if not files:
                paths = [folder / f"{name}-{number}.wav" for number in range(1, len(rows) + 1)]
                # RF64: a wav file may not exceed 4 GiB.
                options = {"samplerate": rate, "channels": 1, "format": "RF64", "subtype": "FLOAT"}
                files = [stack.enter_context(soundfile.SoundFile(path, "w", **options)) for path in paths]
            for file, row in zip(files, rows, strict=True):
                file.write(row)
    return paths
