"""`merhan timeline` on recordings whose utterances are known: borders, labels, speed and memory.

python benchmarks/timeline.py $MERHAN_CORPORA/ravdess outputs/ravdess-fold0

The recording is built of clips of RAVDESS, whose sentences are known: pocketsphinx aligns their words, and a clip is
cut to them, with 0.1 s before and after. Two speakers take turns, with silence, or noise and silence, between. It is
scored as a whole, and every clip alone.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
import torch
from common import command, hardware, publish
from pocketsphinx import Decoder

from merhan.models.inference import load_checkpoint
from merhan.prediction.predict import Predictor
from merhan.prediction.timeline import timeline
from processing_merhan import SAMPLING_RATE, load_audio


MINUTES = 20
TOLERANCE = 0.3  # seconds by which a border may be wrong
MARGIN = 0.1  # seconds of a clip before and after its words
SENTENCES = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}  # by the file name's 5th part


class Call(NamedTuple):
    """A recording with its utterances."""

    path: Path
    clips: list[np.ndarray]  # `(samples,)` each
    borders: list[tuple[float, float]]  # of the words, in seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="RAVDESS: a folder for each actor")
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model, processor = load_checkpoint(arguments.checkpoint)
    with TemporaryDirectory() as folder:
        call = build_call(arguments.corpus, Path(folder, "call.wav"))
        agreement = compare(Predictor(model, processor), call)
        hour = Path(folder, "hour.wav")
        repeat(call.path, hour, 60 // MINUTES)
        peaks = [peak_memory(arguments.checkpoint, path) for path in (call.path, hour)]
        begun = time.perf_counter()
        timeline(Predictor(model, processor), hour)
        seconds = time.perf_counter() - begun
    hidden = {"MERHAN_CORPORA": os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"), "RUN": arguments.checkpoint}
    text = f"""`{command(**hidden)}`

{hardware()}, two threads. {MINUTES} minutes with {len(call.clips)} utterances of two speakers at a time, silence and
noise between:

| | |
| --- | ---: |
| utterances with both borders within {TOLERANCE:g} s | {agreement["borders"]:.1%} |
| utterances with the label of the clip alone | {agreement["labels"]:.1%} |
| stretches that are no utterance | {agreement["extra"]} |
| an hour of sound takes | {seconds:.0f} s, {3600 / seconds:.0f} times as fast as it lasts |
| peak memory, {MINUTES} minutes and an hour | {peaks[0]:.0f} MiB, {peaks[1]:.0f} MiB |
"""
    publish("timeline", text, arguments.write)


def build_call(corpus: Path, path: Path, minutes: float = MINUTES, seed: int = 0) -> Call:
    """Write a recording of clips of random speakers, two at a time."""
    generator = np.random.default_rng(seed)
    speakers = [sorted(folder.glob("*.*")) for folder in sorted(corpus.iterdir()) if folder.is_dir()]
    aligner = Decoder(lm=None, loglevel="FATAL")
    clips, borders, position = [], [], 0
    with soundfile.SoundFile(path, "w", SAMPLING_RATE, 1, "FLOAT") as file:
        while position < 60 * minutes * SAMPLING_RATE:
            pair = generator.choice(len(speakers), 2, replace=False)
            for speaker in (*pair, *pair):
                gap, clip = _gap(generator), _spoken(aligner, generator.choice(speakers[speaker]))
                if clip is None:
                    continue
                file.write(np.concatenate([gap, clip]))
                first, position = position + len(gap), position + len(gap) + len(clip)
                borders.append((first / SAMPLING_RATE + MARGIN, position / SAMPLING_RATE - MARGIN))
                clips.append(clip)
        file.write(_gap(generator))
    return Call(path, clips, borders)


def compare(predictor: Predictor, call: Call) -> dict[str, float]:
    """The shares of utterances with the right borders, and with the label of the clip alone; the number of others."""
    utterances = timeline(predictor, call.path).utterances
    times = utterances[["start", "end"]].to_numpy(float)
    overlaps = np.array([_overlap(times, *border) for border in call.borders])
    best = overlaps.argmax(axis=1)
    alone = _labels_alone(predictor, call.clips)
    return {
        "borders": (np.abs(times[best] - call.borders).max(axis=1) < TOLERANCE).mean(),
        "labels": np.mean(utterances["prediction"].to_numpy()[best] == alone),
        "extra": int((overlaps.max(axis=0) <= 0).sum()),
    }


def repeat(path: Path, out: Path, times: int):
    """Write a recording several times in a row."""
    samples, rate = soundfile.read(path, dtype="float32")
    with soundfile.SoundFile(out, "w", rate, 1, "FLOAT") as file:
        for _ in range(times):
            file.write(samples)


def peak_memory(checkpoint: str, path: Path) -> float:
    """The most memory in MiB that `merhan timeline` held; measured in the order of the lengths."""
    words = ["-m", "merhan", "timeline", checkpoint, str(path), "--out", str(path.with_suffix(".json"))]
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _spoken(aligner: Decoder, path: Path) -> np.ndarray | None:
    """A clip from its first word to its last, with a margin; None if the aligner does not recognise the sentence."""
    sound = load_audio(str(path))
    aligner.set_align_text(SENTENCES[path.stem.split("-")[4]])
    aligner.start_utt()
    aligner.process_raw((0.9 * 2**15 * sound / np.abs(sound).max()).astype(np.int16).tobytes(), full_utt=True)
    aligner.end_utt()
    words = [part for part in aligner.seg() or () if part.word[0] not in "<["]
    if len(words) < 6:
        return None
    first, last = words[0].start_frame / 100 - MARGIN, (words[-1].end_frame + 1) / 100 + MARGIN  # frames of 10 ms
    padded = np.pad(sound, round(MARGIN * SAMPLING_RATE))  # a word may begin with the clip
    return padded[round((first + MARGIN) * SAMPLING_RATE) : round((last + MARGIN) * SAMPLING_RATE)]


def _gap(generator: np.random.Generator) -> np.ndarray:
    """0.6 s to 3 s of silence, or of silence around faint noise."""
    gap = np.zeros(int(generator.uniform(0.6, 3) * SAMPLING_RATE), np.float32)
    if generator.random() < 0.5:
        noise = generator.standard_normal(len(gap) // 2) * 10 ** (generator.uniform(-60, -30) / 20)
        gap[len(gap) // 4 : len(gap) // 4 + len(noise)] = noise
    return gap


def _overlap(times: np.ndarray, start: float, end: float) -> np.ndarray:
    """Seconds that each of the stretches `(stretches, 2)` shares with this one; negative without any."""
    return np.minimum(times[:, 1], end) - np.maximum(times[:, 0], start)


def _labels_alone(predictor: Predictor, clips: Sequence[np.ndarray]) -> np.ndarray:
    cells = [{"array": clip, "sampling_rate": SAMPLING_RATE} for clip in clips]
    return predictor.table(pd.DataFrame({"audio": cells}))["prediction"].to_numpy()


if __name__ == "__main__":
    main()
