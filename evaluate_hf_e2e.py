"""Evaluate a model: figures with intervals, predictions per utterance, a picture and a readable report.

    python evaluate_hf_e2e.py --checkpoint outputs/quickstart                      a run: its own data
    python evaluate_hf_e2e.py --checkpoint outputs/quickstart --modalities audio   the same, voice alone
    python evaluate_hf_e2e.py --checkpoint me/merhan-meld --manifest data/meld/manifest.parquet --split test
    python evaluate_hf_e2e.py --checkpoint outputs/meld/model --recipe configs/meld.yaml --set data.source=/data/MELD

Written to <output_dir>/<split>/ (with one modality: <split>--<modality>/): predictions.parquet, metrics.json,
confusion.png, reliability.png, report.html, report.md.
"""

import argparse
from pathlib import Path

from accelerate import PartialState

from merhan.dataset import load_data
from merhan.errors import InputError, exits_cleanly
from merhan.evaluation import evaluate_split, load_checkpoint
from merhan.leaks import known_leaks
from merhan.provenance import record_of
from merhan.recipe import DataRecipe, change_data, load_recipe
from merhan.report import scores_table


@exits_cleanly
def main():
    arguments = parse()
    recipe = data_of(arguments)
    model, processor = load_checkpoint(arguments.checkpoint)
    data = load_data(recipe, model.config.modalities, only=arguments.split)
    data.protocol["leaks"] = known_leaks(record_of(arguments.checkpoint), data.rows)
    folder = Path(arguments.output_dir or default_folder(arguments))
    for note in [*data.notes, *(f"leak: {leak}" for leak in data.protocol["leaks"])]:
        print(f"note: {note}")
    found = {}
    for condition in arguments.modalities or ["both"]:
        metrics = evaluate_split(
            model,
            processor,
            data,
            arguments.split,
            folder,
            condition=None if condition == "both" else condition,
            batch_size=arguments.batch_size,
        )
        found[f"{arguments.split}, {metrics['condition']}"] = metrics
    if PartialState().is_main_process:
        print(f"\n{scores_table(found)}\n")
        print(*(f"report: {folder / metrics['folder'] / 'report.html'}" for metrics in found.values()), sep="\n")


def data_of(arguments: argparse.Namespace) -> DataRecipe:
    """What to evaluate on: a manifest, a recipe's data, or the data of the run itself."""
    if arguments.manifest:
        return change_data(DataRecipe(corpus="manifest", source=arguments.manifest), arguments.set)
    own = Path(arguments.checkpoint) / "recipe.yaml"
    recipe = arguments.recipe or (own if (Path(arguments.checkpoint) / "model").is_dir() else None)
    if recipe is None:
        raise InputError("evaluate on what? Give --manifest, or --recipe, or a run's folder as --checkpoint.")
    return load_recipe(recipe, arguments.set).data


def default_folder(arguments: argparse.Namespace) -> Path:
    """A run on its own data: beside its other results. Anything else: under outputs/, by model and data."""
    checkpoint, data = Path(arguments.checkpoint), arguments.manifest or arguments.recipe
    if (checkpoint / "model").is_dir() and not data:
        return checkpoint / "evaluation"
    return Path("outputs") / "evaluation" / "-".join([checkpoint.name, *([Path(data).stem] if data else [])])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a run's folder, a model folder, or a Hub id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--manifest", help="manifest to evaluate on (Parquet, CSV, JSONL)")
    source.add_argument("--recipe", help="recipe whose data to evaluate on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=["both", "audio", "text"],
        help="what the model is given, one evaluation each (default: all that it reads)",
    )
    parser.add_argument("--output_dir", help="default: evaluation/ in the run's folder")
    parser.add_argument("--batch_size", type=int, default=16, help="utterances per batch (default: 16)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
