"""Train a model from a recipe: warm-up of the head, full fine-tuning, evaluation, model folder, and the Hub if asked.

    python train_hf_e2e.py --config configs/quickstart.yaml
    python train_hf_e2e.py --config configs/emodb.yaml --set data.source=/data/emodb --set data.fold=1
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml train_hf_e2e.py --config configs/meld.yaml
    python train_hf_e2e.py --config configs/meld.yaml --resume     after an interruption, in any stage
    python train_hf_e2e.py --config configs/meld.yaml --dry_run    check recipe and data in seconds

The result is outputs/<run_name>/: recipe.yaml (resolved), manifest.parquet, provenance.json, a folder per stage, model/
(complete, ready to publish) and evaluation/<split>/ (predictions, metrics, plots, report).
"""

import argparse

from merhan.cli.options import add_moved_source_option, add_set_option
from merhan.errors import InputError


HELP = "train a model from a recipe, evaluate it, and write the model folder"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("--config", required=True, help="recipe, a YAML file; configs/ has one per corpus")
    add_set_option(parser)
    parser.add_argument("--run_name", help="name of the run's folder, in place of the recipe's")
    add_moved_source_option(parser)
    one_of = parser.add_mutually_exclusive_group()
    one_of.add_argument(
        "--resume", action="store_true", help="resume an interrupted run of this recipe, or the one in RUN/recipe.yaml"
    )
    one_of.add_argument("--overwrite", action="store_true", help="delete an existing run of this name and start again")
    one_of.add_argument(
        "--dry_run", action="store_true", help="try the whole recipe on tiny stand-ins, two steps per stage, and exit"
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.api import train, train_on
    from merhan.training.dry_run import check_available_data, dry_run

    changes = list(arguments.set)
    if arguments.run_name:
        changes.append(f"run_name={arguments.run_name}")
    if arguments.dry_run:
        if arguments.source is not None:
            raise InputError("--source: is for --resume, a dry run reads no recordings of a run; leave it out.")
        print(dry_run(arguments.config, changes, train_on))
        for sentence in check_available_data(arguments.config, changes):
            print(f"  {sentence}")
        return
    train(arguments.config, changes, resume=arguments.resume, overwrite=arguments.overwrite, source=arguments.source)
