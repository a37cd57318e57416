"""Emotions along a long recording: where there is speech, split at pauses into utterances, each with its scores."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from merhan.errors import InputError
from merhan.prediction.predict import Predictor
from processing_merhan import SAMPLING_RATE, read_audio, resample


_WINDOW = 512  # samples that silero-vad reads at a time
_BLOCK_SECONDS = 32  # of sound in memory at a time; a whole number of windows
_PAUSE = 0.3  # seconds without speech that end an utterance
_LONGEST = 12.0  # seconds of an utterance, for a model without a limit of its own


def timeline(predictor: Predictor, recording: str | Path) -> pd.DataFrame:
    """Scores of each utterance of a recording.

    Returns:
        One row per utterance in the order of time: `start` and `end` in seconds, `prediction`, a column
        `score_<label>` per label, `abstained`, and `error` where an utterance has no scores. No rows for a recording
        without speech.

    Raises:
        InputError: the model reads no sound.
        AudioError: the recording cannot be read.
    """
    if "audio" not in predictor.processor.modalities:
        raise InputError("timeline: this model reads no sound; choose one that does.")
    with _readable_in_blocks(Path(recording)) as path:
        regions = speech_regions(path, predictor.processor.max_seconds or _LONGEST)
        rows = pd.DataFrame(regions, columns=["start", "end"]).assign(audio=str(path.resolve()))
        scores = predictor.table(rows)
    scores = scores.drop(columns=["utterance_id", "given", "seconds", "seconds_used"])
    return pd.concat([rows[["start", "end"]], scores], axis=1)


def speech_regions(path: Path, longest: float) -> list[tuple[float, float]]:
    """Start and end in seconds of the stretches of speech, none longer than `longest` seconds: those are split at
    their longest pause.

    Args:
        path: a file that soundfile reads.

    Raises:
        ImportError: silero-vad is not installed.
    """
    silero = _silero()
    model = silero.load_silero_vad()
    model.reset_states()
    probabilities: list[float] = []
    for block in _blocks(path):
        padded = torch.nn.functional.pad(block, (0, -len(block) % _WINDOW))
        with torch.inference_mode():
            probabilities += [model(window, SAMPLING_RATE).item() for window in padded.split(_WINDOW)]
    stretches = silero.get_speech_timestamps_from_probs(
        probabilities,
        max_speech_duration_s=longest,
        min_silence_duration_ms=round(1000 * _PAUSE),
    )
    duration = soundfile.info(str(path)).duration
    times = [(stretch["start"] / SAMPLING_RATE, stretch["end"] / SAMPLING_RATE) for stretch in stretches]
    return [(round(start, 3), round(min(end, duration), 3)) for start, end in times if start < duration]


def _silero():
    """silero-vad, which sets the number of threads of PyTorch to one when it is imported."""
    threads = torch.get_num_threads()
    try:
        import silero_vad
    finally:
        torch.set_num_threads(threads)
    return silero_vad


def _blocks(path: Path) -> Iterator[torch.Tensor]:
    """The recording at 16 kHz, in mono, a block at a time `(samples,)`."""
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        for block in file.blocks(_BLOCK_SECONDS * rate, dtype="float32", always_2d=True):
            yield torch.from_numpy(resample(block.mean(axis=1, dtype=np.float32), rate))


@contextmanager
def _readable_in_blocks(path: Path) -> Iterator[Path]:
    """The recording, or its sound as a temporary wav file, where it is in a format that is only decoded as a whole."""
    try:
        is_readable = soundfile.info(str(path)).frames > 0
    except (soundfile.LibsndfileError, TypeError):
        is_readable = False
    if is_readable:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        waveform, rate = read_audio(path)
        copy = Path(folder, f"{path.stem}.wav")
        soundfile.write(copy, waveform, rate, subtype="FLOAT")
        del waveform
        yield copy
