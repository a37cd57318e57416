"""`merhan predict` against decode plus forward by hand: clips per second of processor time, and their ratio.

python benchmarks/predict.py $MERHAN_CORPORA/ravdess $MERHAN_CORPORA/emodb

By hand: the clips in the order of their lengths, each decoded by soundfile, in padded batches, through the model. Both
ways run in turn, and the fastest run of each counts, in processor time, which other programs disturb less.
"""

import argparse
import os
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from common import command, hardware, publish
from full_width import word_tokenizer
from transformers import Wav2Vec2FeatureExtractor

from configuration_merhan import MerhanAudioConfig, MerhanConfig
from merhan.prediction.predict import Predictor
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


LABELS = ["anger", "joy", "neutral", "sadness"]
BATCH = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of wav and flac files at 16 kHz, with any folders below")
    parser.add_argument("--clips", type=int, help="how many of them, evenly chosen (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    files = sorted(
        path for folder in arguments.folders for path in folder.rglob("*") if path.suffix in (".wav", ".flac")
    )
    count = min(arguments.clips or len(files), len(files))
    paths = [str(files[number * len(files) // count]) for number in range(count)]
    torch.set_num_threads(1)  # threads that wait would count as work
    torch.manual_seed(0)
    processor = MerhanProcessor(Wav2Vec2FeatureExtractor(), word_tokenizer(["a"], 100), modalities=["audio"])
    config = MerhanConfig(
        audio_config=MerhanAudioConfig(),
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    model = MerhanForSequenceClassification(config).eval()
    predictor = Predictor(model, processor, batch_size=BATCH)
    by_hand, by_command = [], []
    for _ in range(arguments.repeats):
        by_hand.append(seconds(partial(score_by_hand, model, processor, paths)))
        with TemporaryDirectory() as folder:
            by_command.append(seconds(partial(predictor.file, paths, Path(folder, "out.parquet"))))
    repeats = arguments.repeats
    hand, ours = (len(paths) / min(times) for times in (by_hand, by_command))
    text = f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

{hardware()}, one thread, {len(paths)} clips, light backbone, batches of {BATCH}, the fastest of {repeats} runs:
{hand:.1f} clips per second of processor time by hand, {ours:.1f} by `merhan predict`, which is {ours / hand:.2f} of it.
"""
    publish("predict", text, arguments.write)


def score_by_hand(model: MerhanForSequenceClassification, processor: MerhanProcessor, paths: list[str]):
    """What a script of ten lines would do."""
    order = sorted(paths, key=lambda path: -soundfile.info(path).frames)
    for first in range(0, len(order), BATCH):
        clips = [soundfile.read(path, dtype="float32", always_2d=True)[0] for path in order[first : first + BATCH]]
        sounds = [clip.mean(axis=1) for clip in clips]
        padded = processor.pad([sound - sound.mean() for sound in sounds], [None] * len(sounds))
        with torch.inference_mode():
            np.asarray(model(**padded).logits.softmax(dim=1))


def seconds(work) -> float:
    """The processor time of a function."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
