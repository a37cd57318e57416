"""What the feature cache saves: ten epochs of warm-up against one, full-width frozen backbones, from an empty cache.

python benchmarks/warmup_cache.py
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from common import command, hardware, publish
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from merhan.data.corpora.base import read_corpus
from merhan.data.dataset import EmotionDataset
from merhan.files import cache_folder
from merhan.models.building import build_model, build_processor
from merhan.recipe.schema import DataRecipe, ModelRecipe, Recipe, StageRecipe
from merhan.reporting.markdown_tables import markdown_table
from merhan.training.stage import train_stage


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=96, help="training utterances (default: 96)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    disable_progress_bar()

    from full_width import full_width_backbones

    with tempfile.TemporaryDirectory() as temporary:
        rows = read_corpus("demo", Path(temporary) / "demo", scale=0.1).rows
        backbones = full_width_backbones(rows["text"].tolist())
        recipe = ModelRecipe(*backbones)
        processor = build_processor(recipe, DataRecipe(), rows)
        os.environ["MERHAN_CACHE"] = str(Path(temporary) / "cache")
        seconds = {
            epochs: warm_up(recipe, processor, rows, arguments.utterances, epochs, Path(temporary))
            for epochs in (1, 10)
        }
    ratio = seconds[10] / seconds[1]
    per_epoch = (seconds[10] - seconds[1]) / 9
    table = markdown_table(
        ["warm-up", "relative time"],
        [["1 epoch", "1.00"], ["10 epochs", f"{ratio:.2f}"], ["each further epoch", f"{per_epoch / seconds[1]:.3f}"]],
    )
    text = f"""`{command()}`

wav2vec2-base and roberta-base in full width (random weights), {arguments.utterances} training and 16 validation
utterances of the built-in corpus, empty cache before each run, seed 0, {hardware()}. Time of the whole stage, features
included.

{table}
"""
    publish("warmup-cache", text, arguments.write)


def warm_up(recipe: ModelRecipe, processor, rows, utterances: int, epochs: int, folder: Path) -> float:
    """Seconds of one warm-up stage from an empty cache."""
    set_seed(0)
    labels = sorted(rows["label"].unique())
    model = build_model(recipe, labels, rows)
    parts = {name: rows[rows["split"] == name].head(size) for name, size in (("train", utterances), ("validation", 16))}
    train, validation = (
        EmotionDataset(part, processor, model.config.label2id, ["audio", "text"]) for part in parts.values()
    )
    os.environ["MERHAN_CACHE"] = str(folder / f"cache{epochs}")
    assert not (cache_folder() / "features").exists()
    whole = Recipe(
        run_name="warmup", trainer={"report_to": "none", "save_strategy": "no", "load_best_model_at_end": False}
    )
    stage = StageRecipe("warmup", epochs, {"head": 1e-3})
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    train_stage(whole, stage, 0, model, processor, train, validation, folder / f"run{epochs}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
