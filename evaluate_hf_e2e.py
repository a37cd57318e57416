"""Evaluate a model: figures with intervals, predictions per utterance, a picture and a readable report.

    python evaluate_hf_e2e.py --checkpoint outputs/quickstart                      a run: its own data
    python evaluate_hf_e2e.py --checkpoint outputs/quickstart --modalities audio   the same, voice alone
    python evaluate_hf_e2e.py --checkpoint me/merhan-meld --manifest data/meld/manifest.parquet --split test
    python evaluate_hf_e2e.py --checkpoint outputs/meld/model --recipe configs/meld.yaml --set data.source=/data/MELD

Written to <output_dir>/<split>/ (with one modality: <split>--<modality>/): predictions.parquet, metrics.json,
confusion.png, reliability.png, report.html, report.md.
"""

import argparse

from accelerate import PartialState

from merhan.errors import exits_cleanly
from merhan.evaluation import add_source_options, evaluate_split, open_evaluation
from merhan.report import scores_table


@exits_cleanly
def main():
    arguments = parse()
    model, processor, data, folder = open_evaluation(arguments)
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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a run's folder, a model folder, or a Hub id")
    add_source_options(parser)
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=["both", "audio", "text"],
        help="what the model is given, one evaluation each (default: all that it reads)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
