"""Evaluate a model under noise, telephone band, reverberation, word errors, and missing or exchanged modalities.

    merhan robustness outputs/quickstart

Writes a table, a plot and a page with the change against the clean split. An interrupted call is resumed by the same
command.
"""

import argparse

from merhan.cli.options import add_source_options, open_evaluation_from


HELP = "evaluate under noise, word errors and missing modalities; resumable"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id (me/model@revision)")
    add_source_options(parser)


def run(arguments: argparse.Namespace):
    """Run the command."""
    from accelerate import PartialState

    from merhan.evaluation.model_and_data import run_trainer
    from merhan.evaluation.robustness import evaluate_robustness, robustness_table
    from merhan.models.inference import as_in_training

    model, processor, data, folder = open_evaluation_from(arguments)
    with as_in_training(run_trainer(arguments.checkpoint)):
        rows = evaluate_robustness(model, processor, data, arguments.split, folder, batch_size=arguments.batch_size)
    if PartialState().is_main_process:
        print(f"\n{robustness_table(rows)}\n\npage: {folder / 'robustness.html'}")
