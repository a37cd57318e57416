"""The latency of `StreamingRecogniser` on clips of a corpus, in chunks of 20 ms.

python benchmarks/streaming.py $MERHAN_CORPORA/ravdess outputs/ravdess-fold0
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from common import command, hardware, publish
from timeline import build_call

from merhan.models.inference import load_checkpoint
from merhan.prediction.predict import Predictor
from merhan.prediction.streaming import StreamingRecogniser
from processing_merhan import SAMPLING_RATE


CHUNK = round(0.02 * SAMPLING_RATE)
PADDING = 0.1  # seconds of an utterance after its speech


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="RAVDESS: a folder for each actor")
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id")
    parser.add_argument("--minutes", type=float, default=5, help="of sound (default: 5)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stream = StreamingRecogniser(Predictor(*load_checkpoint(arguments.checkpoint)), every=0.5)
    with TemporaryDirectory() as folder:
        call = build_call(arguments.corpus, Path(folder, "call.wav"), arguments.minutes)
        sound, _ = soundfile.read(call.path, dtype="float32")
    plain, early, final, waits = [], [], [], []
    for first in range(0, len(sound), CHUNK):
        begun = time.perf_counter()
        answers = stream.add(sound[first : first + CHUNK])
        seconds = time.perf_counter() - begun
        if not answers:
            plain.append(seconds)
        elif answers[0].is_final:
            final.append(seconds)
            waits.append(stream.segmenter.length / SAMPLING_RATE - answers[0].end + PADDING)
        else:
            early.append(seconds)
    hidden = {"MERHAN_CORPORA": os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"), "RUN": arguments.checkpoint}
    total = sum(plain + early + final)
    text = f"""`{command(**hidden)}`

{hardware()}, one thread, {arguments.minutes:g} minutes in chunks of 20 ms, {len(final)} utterances, an answer every
0.5 s while one lasts:

| | median | 99 % |
| --- | ---: | ---: |
| from the end of the speech to its final answer, of sound (algorithmic) | {quantiles(waits)} |
| computation: a chunk without an answer | {quantiles(plain)} |
| computation: a chunk with an answer on the way | {quantiles(early)} |
| computation: a chunk with a final answer | {quantiles(final)} |

All of it takes {total / (60 * arguments.minutes):.3f} of the time that the sound lasts.
"""
    publish("streaming", text, arguments.write)


def quantiles(seconds: list[float]) -> str:
    """Median and 99 % as cells of a table."""
    return " | ".join(f"{1000 * value:.1f} ms" for value in np.quantile(seconds, [0.5, 0.99]))


if __name__ == "__main__":
    main()
