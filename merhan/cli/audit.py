"""List what the splits of a recipe's data share: speakers, sessions, dialogues, recordings, texts.

    merhan audit --config configs/ravdess.yaml

Exit code 1 if there is a leak that the recipe does not accept (`data.accept_leaks`).
"""

import argparse
import sys

from merhan.cli.options import add_set_option


HELP = "list what the splits of a recipe share; exit code 1 if a leak is not accepted"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("--config", required=True, help="recipe, a YAML file")
    add_set_option(parser)


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.data.leaks import leak_table, unaccepted_leaks
    from merhan.data.loading import load_data
    from merhan.data.manifest import unknown_speakers
    from merhan.data.provenance import initial_weight_records
    from merhan.recipe.loading import load_recipe

    recipe = load_recipe(arguments.config, arguments.set)
    records = initial_weight_records(recipe.model)
    data = load_data(recipe.data, recipe.model.modalities, recipe.model.backbones, histories=records)
    refused = unaccepted_leaks(data.leaks, recipe.data.accept_leaks)
    for note in data.notes:
        print(f"note: {note}")
    if data.leaks:
        print(leak_table(data.leaks, refused))
    elif unknown_speakers(data.rows):
        print("no other leak; speakers unknown")
    else:
        print("no leak")
    sys.exit(1 if refused else 0)
