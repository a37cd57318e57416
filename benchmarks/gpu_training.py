"""Both stages on a GPU: audio seconds per second, peak memory and model FLOP utilisation.

    python benchmarks/gpu_training.py --durations $MERHAN_CORPORA/meld/media_durations.csv --write
    python benchmarks/gpu_training.py --trial            on any machine: does it run? (tiny backbones, nothing measured)

wav2vec2-base and roberta-base in full width with random weights, bf16, noise of MELD's durations with made-up words.
The utilisation counts the matrix products of forward and backward (PyTorch's own counter), over the GPU's dense peak.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from common import command, hardware, publish
from full_width import full_width_backbones
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from merhan.data.collator import Collator
from merhan.data.corpora.demo_corpus import say
from merhan.data.dataset import EmotionDataset
from merhan.models.building import build_model, build_processor
from merhan.recipe.schema import DataRecipe, ModelRecipe, Recipe, StageRecipe
from merhan.reporting.markdown_tables import markdown_table
from merhan.training.parameter_groups import set_trainable
from merhan.training.stage import train_stage


PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12}  # dense bf16 FLOP/s, from the data sheets
LABELS = ["anger", "joy"]
STAGES = (
    StageRecipe("warmup", 1, {"head": 1e-3}),
    StageRecipe("finetune", 1, {"head": 1e-4, "audio": 2e-5, "text": 2e-5}),
)


def main():
    arguments = parse()
    if not torch.cuda.is_available() and not arguments.trial:
        sys.exit("no GPU here: nothing is measured. With --trial the benchmark runs in small, to show that it works.")
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MERHAN_CACHE"] = str(Path(temporary) / "cache")
        rows = utterances(arguments, Path(temporary))
        backbones = ("tiny", "tiny") if arguments.trial else full_width_backbones(rows["text"].tolist())
        table = markdown_table(
            ["stage", "audio s per s", "after the first tenth", "peak memory, GiB", "FLOP utilisation"],
            [measure(stage, backbones, rows, arguments, Path(temporary)) for stage in STAGES],
        )
    text = f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

{len(rows)} utterances, {rows["duration"].sum() / 60:.0f} min in all, batch {arguments.batch_size}, bf16, one epoch a
stage, seed 0, {hardware()}. The warm-up's time includes computing its features.

{table}
"""
    if arguments.trial:
        print(text + "\ntrial: it runs; these are no measurements")
    else:
        publish("gpu-training", text, arguments.write)


def measure(stage: StageRecipe, backbones: tuple, rows: pd.DataFrame, arguments, folder: Path) -> list[str]:
    """One stage from fresh weights; its row of the table."""
    set_seed(0)
    recipe = ModelRecipe(*backbones)
    processor = build_processor(recipe, DataRecipe(), rows)
    model = build_model(recipe, LABELS, rows)
    data = EmotionDataset(rows, processor, model.config.label2id, ["audio", "text"])
    options = {"per_device_train_batch_size": arguments.batch_size, "bf16": True, "report_to": "none"}
    options |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    options |= {"dataloader_num_workers": 0 if arguments.trial else arguments.workers, "logging_steps": 1}
    flops = flops_per_audio_second(model, stage, data, processor) if "audio" in stage.learning_rate else float("nan")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    clock = Clock()
    train_stage(
        Recipe(run_name="x", trainer=options), stage, 0, model, processor, data, data, folder / stage.name, [clock]
    )
    seconds = time.perf_counter() - start
    audio = rows["duration"].sum()
    steady = 0.9 * audio / clock.steady_seconds()
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
    peak = next((value for name, value in PEAK.items() if name in hardware()), float("nan"))
    return [stage.name, f"{audio / seconds:.0f}", f"{steady:.0f}", f"{memory:.1f}", f"{steady * flops / peak:.1%}"]


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def steady_seconds(self) -> float:
        """Seconds of the last nine tenths of the steps."""
        return self.ends[-1] - self.ends[len(self.ends) // 10]


def flops_per_audio_second(model, stage: StageRecipe, data: EmotionDataset, processor) -> float:
    """Forward and backward of one batch, counted by PyTorch, over its seconds of sound.

    Its rows are of like length, as in the bucketed batches of training: padding is work that nobody asked for.
    """
    set_trainable(model, stage.learning_rate, stage.freeze_feature_encoder)
    middle = len(data) // 2
    rows = data.rows["duration"].argsort().tolist()[middle - 4 : middle + 4]
    batch = Collator(processor)([data[row] for row in rows])
    with FlopCounterMode(display=False) as counter:
        model.train()(**batch).loss.backward()
    model.zero_grad()
    return counter.get_total_flops() / data.rows["duration"].iloc[rows].sum()


def utterances(arguments, folder: Path) -> pd.DataFrame:
    """Noise of the wanted durations, with made-up words."""
    rng = np.random.default_rng(0)
    count = 96 if arguments.trial else arguments.utterances
    if arguments.durations:
        table = pd.read_csv(arguments.durations)
        durations = table.loc[table["split"] == "train", "duration_s"].clip(0.5, 12).sample(count, random_state=0)
    else:
        durations = np.clip(rng.lognormal(0.9, 0.7, count), 0.5, 12)  # near MELD's: median 2.5 s
    rows = []
    for number, seconds in enumerate(durations):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * 16_000)), 16_000)
        valence = ("negative", "positive")[number % 2]
        rows.append([f"u{number}", "noise", str(path), say(rng, valence), LABELS[number % 2], seconds])
    return pd.DataFrame(rows, columns=["utterance_id", "corpus", "audio", "text", "label", "duration"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--durations", help="CSV with the columns split and duration_s (default: like MELD's)")
    parser.add_argument("--utterances", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--batch_size", type=int, default=16, help="utterances per batch (default: 16)")
    parser.add_argument("--workers", type=int, default=8, help="processes that load audio (default: 8)")
    parser.add_argument("--trial", action="store_true", help="run in small on any machine, and measure nothing")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
