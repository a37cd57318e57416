"""Compare systems on the same rows: differences with 95 % intervals, a paired randomisation test, McNemar's test.

    merhan compare outputs/a outputs/b

Dialogues or speakers are resampled where every row has one, else single rows; p-values are corrected for the number of
pairs (Holm).
"""

import argparse

from merhan.cli.options import Number, OutputPath
from merhan.recipe.ranges import LARGEST_SEED


HELP = "compare systems on the same rows: differences, intervals and paired tests"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("predictions", nargs="+", help="runs, evaluation folders, or predictions.parquet files")
    parser.add_argument("--split", default="test", help="split of the runs (default: test)")
    parser.add_argument(
        "--resamples",
        type=Number(int, minimum=1, maximum=1e6),
        default=5000,
        help="bootstrap and permutation draws (default: 5000)",
    )
    parser.add_argument(
        "--seed", type=Number(int, minimum=0, maximum=LARGEST_SEED), default=0, help="seed of these draws (default: 0)"
    )
    parser.add_argument("--json", type=OutputPath("file"), help="also write the differences as JSON")


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.evaluation.comparison import compare, comparison_note, comparison_table, read_system
    from merhan.files import write_json

    systems = [read_system(path, arguments.split) for path in arguments.predictions]
    differences = compare(systems, arguments.resamples, arguments.seed)
    if arguments.json:
        write_json(arguments.json, [_without_nan(row._asdict()) for row in differences])
    print(f"{comparison_note(systems[0])}\n\n{comparison_table(differences)}")


def _without_nan(values: dict) -> dict:
    """None in place of NaN, which JSON does not have; it stands where there is no interval or no test."""
    return {key: None if value != value else value for key, value in values.items()}
