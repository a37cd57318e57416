"""One pass over every recording: whether it can be decoded, its properties, and a fingerprint to recognise copies.

`merhan doctor`, the leak checks and whatever needs durations use the results. They are kept in the cache folder: a
recording is decoded for them once, however many runs, folds and processes load its corpus.
"""

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torchaudio.functional

from merhan.data.facts_cache import FactsCache, Segment
from merhan.errors import InputError
from merhan.logs import progress
from processing_merhan import AudioError, decode_audio


# Resolution of the fingerprint: mel bands from 100 to 3800 Hz, and segments of time.
BANDS, SEGMENTS = 20, 32
BLOCK = 4096  # frames of its spectrum at a time


CHUNK = 1024  # rows whose recordings are measured before their facts are kept
VERSION = 1  # raise it when `audio_facts` gives other values for the same recording

# The facts of a recording. Those of many are one array of this type, because a million objects take more memory.
FACTS = np.dtype(
    [
        ("duration", np.float64),  # seconds; 0 where nothing was measured
        ("sampling_rate", np.int32),  # Hz
        ("channels", np.int32),
        ("peak", np.float64),  # largest absolute sample, 1 = full scale
        ("level", np.float64),  # root mean square in dB relative to full scale
        ("clipped_share", np.float64),  # share of the samples at full scale, 0 to 1
        ("digest", "S16"),  # hash of the decoded samples and their rate
        ("fingerprint", np.int8, BANDS * SEGMENTS),  # see `acoustic_fingerprint`
    ]
)


class Recordings(NamedTuple):
    """What was measured of the recordings of a manifest."""

    facts: np.ndarray  # `(rows,)` of FACTS, zeros for a row without audio and for one with an error
    errors: dict[int, AudioError]  # number of the row -> why its recording cannot be used


def inspect_audio(rows: pd.DataFrame, again: bool = False) -> Recordings:
    """Measure the recording of every row.

    Args:
        rows: a manifest with full paths.
        again: whether recordings that were measured before are decoded too, to see whether they are intact now.
    """
    recordings = Recordings(np.zeros(len(rows), FACTS), {})
    columns = rows.reindex(columns=["audio", "start", "end"])
    bar = progress((), total=int((rows["audio"] != "").sum()), desc="checking audio", unit="file", leave=False)
    # Threads are enough: decoding, numpy and torch release the interpreter's lock.
    with bar, FactsCache(f"{VERSION} {FACTS}") as cache, ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(rows), CHUNK):
            chunk = columns[first : first + CHUNK].itertuples(index=False, name=None)
            segments = [(audio, *segment_bounds(start, end)) for audio, start, end in chunk]
            distinct = [segment for segment in dict.fromkeys(segments) if segment[0]]
            known = {} if again else cache.read(distinct)
            bar.update(len(known))
            unknown = [segment for segment in distinct if segment not in known]
            measured = _measure(unknown, cache, pool, bar)
            _fill(recordings, first, segments, known | measured)
    return recordings


def _measure(
    segments: Sequence[Segment], cache: FactsCache, pool: ThreadPoolExecutor, bar: Any
) -> dict[Segment, bytes | AudioError]:
    """Decode segments, and keep their facts: facts by segment, or the error if it cannot be read."""
    begun = time.time()
    outcomes = {}
    for segment, outcome in zip(segments, pool.map(_inspect, segments), strict=True):
        outcomes[segment] = outcome
        bar.update()
    cache.write({segment: facts for segment, facts in outcomes.items() if isinstance(facts, bytes)}, begun)
    return outcomes


def _inspect(segment: Segment) -> bytes | AudioError:
    try:
        return audio_facts(*decode_audio(*segment)).tobytes()
    except AudioError as error:
        return error


def _fill(
    recordings: Recordings, first: int, segments: Sequence[Segment], outcomes: Mapping[Segment, bytes | AudioError]
):
    """Enter the outcomes of the rows from number `first` on."""
    for row, segment in enumerate(segments, start=first):
        outcome = outcomes.get(segment)
        if isinstance(outcome, AudioError):
            recordings.errors[row] = outcome
        elif outcome is not None:
            recordings.facts[row] = np.frombuffer(outcome, FACTS)[0]


def measure_recordings(rows: pd.DataFrame, where: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Measure every recording.

    Args:
        rows: a manifest with full paths.
        where: name of the data, for messages.

    Returns:
        the rows with their `duration` in seconds (0 without audio), and the facts of each row's recording.

    Raises:
        InputError: a recording is unreadable, empty or has samples that are not finite; names the first such row and
            counts the others.
    """
    facts, errors = inspect_audio(rows)
    if errors:
        number, error = next(iter(errors.items()))
        name = rows["utterance_id"].iloc[number]
        more = ""
        if len(errors) > 1:
            more = f" ({len(errors) - 1} more rows are unusable too)"
        raise InputError(f"{where}, row {rows.index[number] + 1} ({name!r}): {error}{more}")
    return rows.assign(duration=facts["duration"].copy()), facts


def segment_bounds(start: float | None, end: float | None) -> tuple[float | None, float | None]:
    """The cells `start` and `end` of a manifest as arguments of `load_audio`: empty cells (NaN) become None."""
    return _seconds(start), _seconds(end)


def _seconds(cell: float | None) -> float | None:
    if cell is None or math.isnan(cell):
        return None
    return cell


def audio_facts(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """The facts of decoded audio `(channels, samples)`, a scalar of FACTS."""
    magnitudes = np.abs(waveform)
    mono = waveform.mean(axis=0, dtype=np.float32)
    root_mean_square = float(np.sqrt(np.mean(mono**2)))
    digest = hashlib.blake2b(str(sampling_rate).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(waveform).data)
    facts = np.zeros((), FACTS)
    facts["duration"] = waveform.shape[1] / sampling_rate
    facts["sampling_rate"] = sampling_rate
    facts["channels"] = waveform.shape[0]
    facts["peak"] = magnitudes.max()
    facts["level"] = 20 * math.log10(max(root_mean_square, 1e-10))
    facts["clipped_share"] = np.mean(magnitudes >= 0.999)
    facts["digest"] = digest.digest()
    facts["fingerprint"] = acoustic_fingerprint(mono, sampling_rate)
    return facts


def acoustic_fingerprint(mono: np.ndarray, sampling_rate: int) -> np.ndarray:
    """A vector that changes little when a recording is resampled, amplified, compressed or mixed down.

    It holds the logarithm of the energy in `BANDS` mel bands and `SEGMENTS` segments of time. On RAVDESS, copies
    (resampled to 8 kHz, as mp3, with noise at 30 dB SNR) have a cosine above 0.998; two takes of one sentence by one
    actor in one emotion stay below 0.988. It does not recognise trimmed copies: without the first 50 ms the cosine is
    0.96. A byte per number is enough: rounding changes a cosine by 0.001 at most.

    Args:
        mono: `(samples,)`.
        sampling_rate: in Hz.

    Returns:
        `(BANDS * SEGMENTS,)` int8, the largest magnitude 127; zeros for silence.
    """
    window = round(0.032 * sampling_rate)
    padded = torch.nn.functional.pad(torch.from_numpy(mono), (0, max(window - len(mono), 0)))
    energy = torch.nn.functional.adaptive_avg_pool1d(_mel_energy(padded, sampling_rate, window)[None], SEGMENTS)[0]
    # Everything 40 dB below the loudest cell is treated as silence, so that background noise does not count.
    logarithm = torch.log10((energy / energy.max().clamp(min=1e-20)).clamp(min=1e-4))
    centred = logarithm - logarithm.mean()
    return (127 * centred / centred.abs().max().clamp(min=1e-9)).round().to(torch.int8).flatten().numpy()


def _mel_energy(samples: torch.Tensor, sampling_rate: int, window: int) -> torch.Tensor:
    """`(BANDS, frames)`; by about 30 seconds at a time, because the spectrum of an hour takes gigabytes."""
    hop, hann = window // 4, torch.hann_window(window)
    parts = []
    for first in range(0, len(samples) - window + 1, BLOCK * hop):
        part = samples[first : first + (BLOCK - 1) * hop + window]
        power = torch.stft(part, window, hop, window=hann, center=False, return_complex=True).abs() ** 2
        parts.append(_filterbank(sampling_rate, window) @ power)
    return torch.cat(parts, dim=1)


@lru_cache(maxsize=8)
def _filterbank(sampling_rate: int, window: int) -> torch.Tensor:
    return torchaudio.functional.melscale_fbanks(window // 2 + 1, 100.0, 3800.0, BANDS, sampling_rate).T
