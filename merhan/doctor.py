"""What is wrong with a manifest's recordings, found before anything is trained or written."""

import math
import os

import pandas as pd
from tqdm.contrib.concurrent import thread_map

from merhan.errors import InputError
from processing_merhan import AudioError, read_audio


def measure(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Decode every recording once; returns the rows with their `duration` in seconds (0 without audio).

    Raises:
        InputError: some recording is unreadable, empty or not finite; names the first such row and counts the rest.
    """
    segments = list(rows.reindex(columns=["audio", "start", "end"]).itertuples(index=False, name=None))
    # Threads suffice: decoding and numpy's arithmetic both release the interpreter's lock.
    found = thread_map(
        _duration,
        segments,
        max_workers=os.cpu_count(),
        desc="checking audio",
        leave=False,
        disable=not any(rows["audio"]),
    )
    bad = [(number, result) for number, result in enumerate(found) if isinstance(result, AudioError)]
    if bad:
        number, error = bad[0]
        more = f" ({len(bad) - 1} more rows are unusable too)" if len(bad) > 1 else ""
        raise InputError(f"{where}, row {number + 1} ({rows['utterance_id'].iloc[number]!r}): {error}{more}")
    return rows.assign(duration=found)


def segment(start: float, end: float) -> tuple[float | None, float | None]:
    """A table's empty cells are NaN; the audio door says None."""
    return (None if start is None or math.isnan(start) else start), (None if end is None or math.isnan(end) else end)


def _duration(row: tuple[str, float, float]) -> float | AudioError:
    audio, start, end = row
    if not audio:
        return 0.0
    try:
        waveform, rate = read_audio(audio, *segment(start, end))
    except AudioError as error:
        return error
    return len(waveform) / rate
