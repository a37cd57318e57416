"""One pass over every recording: can it be read, and what is in it? The doctor and the auditor both live on it."""

import hashlib
import math
import os
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torchaudio.functional
from tqdm.contrib.concurrent import thread_map

from merhan.errors import InputError
from processing_merhan import AudioError, decode_audio


# A fingerprint is the logarithm of the energy in 20 mel bands below 3.8 kHz and 64 stretches of time.
BANDS, CELLS = 20, 64


class Facts(NamedTuple):
    """What a recording is."""

    duration: float  # seconds
    rate: int  # samples per second
    channels: int
    peak: float  # largest absolute sample, 1 = full scale
    level: float  # root mean square in dB below full scale
    clipped: float  # share of the samples at full scale
    digest: str  # hash of the decoded samples
    fingerprint: np.ndarray  # (BANDS * CELLS,) float32, unit length


def inspect_audio(rows: pd.DataFrame) -> list[Facts | AudioError | None]:
    """The facts of every row's recording, its error where it cannot be read, None where the row has no audio."""
    segments = list(rows.reindex(columns=["audio", "start", "end"]).itertuples(index=False, name=None))
    # Threads suffice: decoding, numpy and torch all release the interpreter's lock.
    return thread_map(
        _inspect,
        segments,
        max_workers=os.cpu_count(),
        desc="checking audio",
        leave=False,
        disable=not any(rows["audio"]),
    )


def measure(rows: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[Facts | None]]:
    """The rows with their `duration` in seconds (0 without audio), and the facts behind it.

    Raises:
        InputError: some recording is unreadable, empty or not finite; names the first such row and counts the rest.
    """
    found = inspect_audio(rows)
    bad = [(number, one) for number, one in enumerate(found) if isinstance(one, AudioError)]
    if bad:
        number, error = bad[0]
        more = f" ({len(bad) - 1} more rows are unusable too)" if len(bad) > 1 else ""
        raise InputError(f"{where}, row {number + 1} ({rows['utterance_id'].iloc[number]!r}): {error}{more}")
    return rows.assign(duration=[0.0 if one is None else one.duration for one in found]), found


def segment(start: float, end: float) -> tuple[float | None, float | None]:
    """A table's empty cells are NaN; the audio door says None."""
    return (None if start is None or math.isnan(start) else start), (None if end is None or math.isnan(end) else end)


def facts_of(waveform: np.ndarray, rate: int) -> Facts:
    """Facts of decoded sound `(channels, samples)`."""
    peak = float(np.abs(waveform).max())
    mono = waveform.mean(axis=0, dtype=np.float32)
    return Facts(
        duration=waveform.shape[1] / rate,
        rate=rate,
        channels=waveform.shape[0],
        peak=peak,
        level=20 * math.log10(max(float(np.sqrt(np.mean(mono**2))), 1e-10)),
        clipped=float(np.mean(np.abs(waveform) >= 0.999)),
        digest=hashlib.blake2b(np.ascontiguousarray(waveform).tobytes(), digest_size=16).hexdigest(),
        fingerprint=fingerprint(mono, rate),
    )


def fingerprint(mono: np.ndarray, rate: int) -> np.ndarray:
    """What stays of a recording when it is resampled, made louder, compressed or mixed down; unit length.

    Copies have a cosine above 0.999 (RAVDESS resampled, as mp3, with noise 30 dB below), two takes of one sentence by
    one actor in one emotion stay below 0.98. Trimming breaks it: 50 ms off the start leave 0.89.
    """
    window = round(0.032 * rate)
    padded = torch.nn.functional.pad(torch.from_numpy(mono), (0, max(window - len(mono), 0)))
    hann = torch.hann_window(window)
    power = torch.stft(padded, window, window // 4, window=hann, center=False, return_complex=True).abs() ** 2
    bands = torch.nn.functional.adaptive_avg_pool1d((_filterbank(rate, window) @ power)[None], CELLS)[0]
    # 40 dB below the loudest cell is silence: what lies there is the microphone's, not the speaker's.
    shape = torch.log10((bands / bands.max().clamp(min=1e-20)).clamp(min=1e-4))
    shape = shape - shape.mean()
    return (shape / shape.norm().clamp(min=1e-9)).flatten().numpy()


@lru_cache(maxsize=8)
def _filterbank(rate: int, window: int) -> torch.Tensor:
    return torchaudio.functional.melscale_fbanks(window // 2 + 1, 100.0, 3800.0, BANDS, rate).T


def _inspect(row: tuple[str, float, float]) -> Facts | AudioError | None:
    audio, start, end = row
    if not audio:
        return None
    try:
        return facts_of(*decode_audio(audio, *segment(start, end)))
    except AudioError as error:
        return error
