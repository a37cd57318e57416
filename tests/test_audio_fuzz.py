"""Damaged files of nine formats: each gives finite sound or an AudioError, soon, in bounded memory, without a crash."""

import functools

import numpy as np
import pytest
from fuzzing import change_bytes, run
from test_audio import wave, written

from processing_merhan import AudioError, load_audio


FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "caf", "m4a", "webm", "aac")


@functools.cache
def original(kind: str) -> bytes:
    return written(kind, wave(seconds=0.2))


def damaged(seed: int) -> bytes:
    """A file of one of the formats with some changes."""
    others = [original(kind) for kind in FORMATS]
    return change_bytes(others[seed % len(FORMATS)], np.random.default_rng(seed), others)


def outcome(seed: int) -> str:
    """`accepted`, `refused`, or what went wrong."""
    content = damaged(seed)
    try:
        return "accepted" if np.isfinite(load_audio(content, max_seconds=12.0)).all() else "not finite"
    except AudioError as error:
        return str(error) if error.__cause__ else "refused"  # a cause is an exception that nobody thought of
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_damaged_files_are_sound_or_refused():
    counts, failures = run(outcome, range(270))
    assert failures == [] and min(counts["accepted"], counts["refused"]) > 13, "the changes reach both"


@pytest.mark.slow
def test_many_damaged_files_are_sound_or_refused():
    counts, failures = run(outcome, range(1000, 11_000), processes=2)
    assert failures == [] and min(counts["accepted"], counts["refused"]) > 500, "the changes reach both"
