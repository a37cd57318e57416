"""Damaged files of nine formats: each gives finite sound or an AudioError, soon, in bounded memory, without a crash.

python tests/test_audio_fuzz.py 100000 2     this many files, in so many processes; prints what failed
"""

import functools
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from test_audio import wave, written

from processing_merhan import AudioError, load_audio


FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "caf", "m4a", "webm", "aac")
SECONDS = 5.0  # that one file may take
MEMORY = 12 * 2**30  # of address space, of which torch has reserved most


@functools.cache
def original(kind: str) -> bytes:
    return written(kind, wave(seconds=0.2))


def damaged(seed: int) -> bytes:
    """A file of one of the formats with some changes, most of them near its begin or end, where the headers are."""
    rng = np.random.default_rng(seed)
    content = bytearray(original(FORMATS[seed % len(FORMATS)]))
    changes = (_flip, _number, _cut, _delete, _repeat, _splice)
    for change in rng.choice(changes, size=rng.integers(1, 6), p=(0.4, 0.35, 0.05, 0.08, 0.08, 0.04)):
        if content:
            change(content, _place(rng, len(content)), rng)
    return bytes(content)


def _place(rng: np.random.Generator, size: int) -> int:
    share = rng.random() ** rng.choice([1, 4, 12])
    return int((share if rng.random() < 0.85 else 1 - share) * (size - 1))


def _flip(content: bytearray, place: int, rng: np.random.Generator):
    content[place] ^= 1 << rng.integers(8)


def _number(content: bytearray, place: int, rng: np.random.Generator):
    """A number that is often a bound."""
    width = int(rng.choice([1, 2, 4, 8]))
    values = [0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1]
    values.append(int(rng.integers(2**63)) % 2 ** (8 * width))
    value = values[rng.integers(len(values))]
    content[place : place + width] = value.to_bytes(width, ["little", "big"][rng.integers(2)])


def _cut(content: bytearray, place: int, rng: np.random.Generator):
    del content[place:]


def _delete(content: bytearray, place: int, rng: np.random.Generator):
    del content[place : place + rng.integers(1, 64)]


def _repeat(content: bytearray, place: int, rng: np.random.Generator):
    content[place:place] = content[place : place + rng.integers(1, 64)]


def _splice(content: bytearray, place: int, rng: np.random.Generator):
    other = original(FORMATS[rng.integers(len(FORMATS))])
    content[place:] = other[_place(rng, len(other)) :]


def outcome(seed: int) -> str:
    """`sound`, `refused`, or what went wrong."""
    content = damaged(seed)
    begun = time.monotonic()
    try:
        result = "sound" if np.isfinite(load_audio(content, max_seconds=12.0)).all() else "not finite"
    except AudioError as error:
        result = str(error) if error.__cause__ else "refused"  # a cause is an exception that nobody thought of
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    if time.monotonic() - begun > SECONDS:
        result = f"{result}, after {time.monotonic() - begun:.1f} s"
    return result


def outcomes(seeds: Sequence[int]) -> list[tuple[int, str]]:
    return [(seed, outcome(seed)) for seed in seeds]


def _limit_memory():
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def failures(seeds: Sequence[int], processes: int = 1, chunk: int = 100) -> list[tuple[int, str]]:
    """The seeds whose file crashes, hangs or gives anything but sound or AudioError.

    Decoded in other processes, so that a crash does not end the tests.
    """
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    wrong: list[tuple[int, str]] = []
    counts: Counter[str] = Counter()
    chunks = [seeds[first : first + chunk] for first in range(0, len(seeds), chunk)]
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_limit_memory) as pool:
        futures = [pool.submit(outcomes, part) for part in chunks]
        for part, future in zip(chunks, futures, strict=True):
            try:
                results = future.result()
            except BrokenProcessPool:
                results = [(part[0], f"a crash, of one of {len(part)} from here, or of those at the same time")]
            counts.update(text for _, text in results)
            wrong += [result for result in results if result[1] not in ("sound", "refused")]
    assert len(seeds) < 1000 or min(counts["sound"], counts["refused"]) > len(seeds) / 20, "the changes reach both"
    return wrong


def test_damaged_files_are_sound_or_refused():
    assert failures(range(270)) == []


@pytest.mark.slow
def test_many_damaged_files_are_sound_or_refused():
    assert failures(range(1000, 11_000), processes=2) == []


if __name__ == "__main__":
    begun = time.monotonic()
    for seed, text in failures(range(int(sys.argv[1])), int(sys.argv[2])):
        print(seed, FORMATS[seed % len(FORMATS)], text)
    print(f"{sys.argv[1]} files in {time.monotonic() - begun:.0f} s")
