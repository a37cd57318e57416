"""Batch shapes of ten epochs, and how much of the batches is padding, on MELD's real durations and words.

python benchmarks/padding.py $MERHAN_CORPORA/meld

A GPU takes up to a second for each shape that it has not seen before.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import command, publish
from full_width import word_tokenizer
from transformers import Wav2Vec2FeatureExtractor

from merhan.data.dataset import EmotionDataset
from merhan.reporting.markdown_tables import markdown_table
from merhan.training.sampling import LengthBucketSampler, batch_shapes
from processing_merhan import SAMPLING_RATE, MerhanProcessor


EPOCHS = 10
Shapes = list[list[tuple[int, int, int]]]  # rows, samples and tokens of the batches of every epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with train_sent_emo.csv and media_durations.csv")
    parser.add_argument("--utterances", type=int, help="a random part of them, to see what a small corpus gives")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    rows = meld_rows(arguments.folder)
    processor = MerhanProcessor(
        Wav2Vec2FeatureExtractor(), word_tokenizer(rows["text"].tolist(), 8000), context_turns=3, use_speaker=True
    )
    part = rows.sample(arguments.utterances or len(rows), random_state=0)
    data = EmotionDataset(part, processor, {"": 0}, ["audio", "text"], dialogues=rows)
    table = [line for batch_size in (16, 32, 64) for line in lines(data, processor, batch_size)]
    columns = ["batch", "", "shapes in an epoch", "in ten epochs", "padding of sound", "of tokens"]
    text = f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

{len(data)} utterances, at most {processor.max_seconds:g} s; three turns of context and the speaker, at most
{processor.max_tokens} tokens of a tokenizer trained on these words; seed 0. "Shapes" are distinct pairs of samples and
tokens. Rows that fill the last batch count as padding.

{markdown_table(columns, table)}
"""
    publish("padding", text, arguments.write)


def lines(data: EmotionDataset, processor: MerhanProcessor, batch_size: int) -> list[list[str]]:
    """Random batches and sorted ones, both padded to the longest row alone, and sorted ones on the grid."""
    samples = (data.rows["duration"].clip(processor.min_seconds, processor.max_seconds) * SAMPLING_RATE).to_numpy()
    lengths = np.stack([np.ceil(samples).astype(int), [len(ids or ()) for ids in data.tokens]], axis=1)

    def longest(order: list[int]) -> list[tuple[int, int, int]]:
        batches = torch.as_tensor(lengths)[torch.as_tensor(order)].split(batch_size)
        return [(len(batch), *batch.amax(dim=0).tolist()) for batch in batches]

    def on_grid(order: list[int]) -> list[tuple[int, int, int]]:
        shapes = batch_shapes(processor, data.shapes, order, batch_size)
        return [(batch_size, *shape[1:]) for shape in shapes]

    kinds: list[tuple[str, bool, Callable]] = [
        ("random", False, longest),
        ("by length", True, longest),
        ("by length, on the grid", True, on_grid),
    ]
    return [
        [str(batch_size), name, *summary(epochs(data, batch_size, by_length, shapes_of), lengths.sum(axis=0))]
        for name, by_length, shapes_of in kinds
    ]


def epochs(data: EmotionDataset, batch_size: int, by_length: bool, shapes_of: Callable) -> Shapes:
    """The batch shapes of every epoch."""
    sampler = LengthBucketSampler(data.cells, batch_size, by_length=by_length)
    shapes = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        shapes.append(shapes_of(list(sampler)))
    return shapes


def summary(shapes: Shapes, real: Iterable[int]) -> list[str]:
    """The cells of a line, from the real numbers of samples and tokens of an epoch."""
    distinct = [{shape[1:] for shape in epoch} for epoch in shapes]
    padded = np.array([[rows * samples, rows * tokens] for epoch in shapes for rows, samples, tokens in epoch])
    shares = 1 - EPOCHS * np.array(real) / padded.sum(axis=0)
    counts = [max(map(len, distinct)), len(set.union(*distinct))]
    return [*map(str, counts), *(f"{share:.1%}" for share in shares)]


def meld_rows(folder: Path) -> pd.DataFrame:
    """MELD's training rows as far as lengths depend on them."""
    words = pd.read_csv(folder / "train_sent_emo.csv", keep_default_na=False)
    durations = pd.read_csv(folder / "media_durations.csv").query("split == 'train'").drop(columns="split")
    keys = {"Dialogue_ID": "dialogue_id", "Utterance_ID": "utterance_id"}
    names = {
        "Utterance": "text",
        "Speaker": "speaker",
        "dialogue_id": "dialogue",
        "utterance_id": "turn",
        "duration_s": "duration",
    }
    rows = words.rename(columns=keys).merge(durations, on=list(keys.values())).rename(columns=names)
    names_of_rows = rows["dialogue"].astype(str) + " " + rows["turn"].astype(str)
    return rows.assign(dialogue=rows["dialogue"].astype(str), utterance_id=names_of_rows, label="", audio="noise.wav")


if __name__ == "__main__":
    main()
