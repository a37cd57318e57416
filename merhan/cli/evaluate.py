"""Evaluate a model: metrics with 95 % intervals, predictions per utterance, plots and a report.

    python evaluate_hf_e2e.py --checkpoint outputs/quickstart                      a run, on its own data
    python evaluate_hf_e2e.py --checkpoint outputs/quickstart --modalities audio   the same, given the sound alone
    python evaluate_hf_e2e.py --checkpoint me/merhan-meld --manifest data/meld/manifest.parquet --split test
    python evaluate_hf_e2e.py --checkpoint outputs/meld/model --recipe configs/meld.yaml --set data.source=/data/MELD

Results go to <output_dir>/<split>/ (given one modality: <split>--<modality>/): predictions.parquet, metrics.json,
confusion.png, reliability.png, report.html, report.md.
"""

import argparse

from merhan.cli.options import add_source_options, open_evaluation_from


HELP = "evaluate a model: metrics with intervals, predictions, plots and a report"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument(
        "--checkpoint", required=True, help="a run's folder, a model folder, or a Hub id (me/model@revision)"
    )
    add_source_options(parser)
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=["both", "audio", "text"],
        help="what the model is given, one evaluation each (default: all that it reads)",
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from accelerate import PartialState

    from merhan.evaluation.evaluate import evaluate_conditions
    from merhan.evaluation.model_and_data import run_trainer
    from merhan.models.inference import as_in_training
    from merhan.reporting.markdown_tables import scores_table

    model, processor, data, folder = open_evaluation_from(arguments)
    conditions = [None if name == "both" else name for name in arguments.modalities or ["both"]]
    with as_in_training(run_trainer(arguments.checkpoint)):
        results = evaluate_conditions(
            model, processor, data, [arguments.split], conditions, folder, batch_size=arguments.batch_size
        )
    if PartialState().is_main_process:
        print(f"\n{scores_table(results)}\n")
        for metrics in results.values():
            print(f"report: {folder / metrics['folder'] / 'report.html'}")
