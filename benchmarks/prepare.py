"""`merhan prepare` against two bare processes of soundfile and torchaudio that do nothing else.

    python benchmarks/prepare.py $MERHAN_CORPORA/ravdess_original     any part of RAVDESS as released, at 48 kHz

Both decode, average channels, resample to 16 kHz and write FLAC; `merhan prepare` also checks and lists the recordings.
Imports are not counted. Both run twenty times in turn, because one call takes a fraction of a second.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import soundfile
import torch
import torchaudio
from common import command, hardware, publish

from merhan.data.preparation import prepare
from merhan.reporting.markdown_tables import markdown_table


TURNS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a RAVDESS release, or a part of it")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    files = sorted(arguments.source.rglob("*.wav"))
    with multiprocessing.get_context("spawn").Pool(2) as pool, tempfile.TemporaryDirectory() as temporary:
        pool.map(bare, [([], None)] * 2)  # imports
        ours, theirs = [], []
        for turn in range(TURNS):
            start = time.perf_counter()
            prepare("ravdess", arguments.source, Path(temporary) / f"ours{turn}")
            ours.append(time.perf_counter() - start)
            folder = Path(temporary) / f"bare{turn}"
            folder.mkdir()
            start = time.perf_counter()
            pool.map(bare, [(files[0::2], folder), (files[1::2], folder)])
            theirs.append(time.perf_counter() - start)
    ratios = [bare / own for own, bare in zip(ours, theirs, strict=True)]
    rows = [["median", f"{statistics.median(ratios):.2f}"], ["minimum", f"{min(ratios):.2f}"]]
    text = f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

{len(files)} recordings of 48 kHz, {TURNS} turns, {hardware()}.
Throughput of `merhan prepare` relative to that of the two bare processes.

{markdown_table(["", "ratio"], rows)}
"""
    publish("prepare", text, arguments.write)


def bare(job: tuple[list[Path], Path | None]):
    """Decode, average, resample, write; one thread."""
    torch.set_num_threads(1)
    files, folder = job
    resamplers: dict[int, torchaudio.transforms.Resample] = {}
    for path in files:
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
        resample = resamplers.setdefault(rate, torchaudio.transforms.Resample(rate, 16_000))
        soundfile.write(folder / f"{path.stem}.flac", resample(torch.from_numpy(waveform.mean(axis=1))).numpy(), 16_000)


if __name__ == "__main__":
    main()
