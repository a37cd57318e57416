"""Options that several commands share, and how they become arguments of functions."""

import argparse
from typing import Any, cast


def add_set_option(parser: argparse.ArgumentParser):
    """`--set key=value`, repeatable."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe, as data.fold=1 or stages.0.epochs=3 (repeatable)",
    )


def add_source_options(parser: argparse.ArgumentParser):
    """Which data to evaluate on, and where to write the results."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--manifest", help="manifest to evaluate on (Parquet, CSV or JSONL)")
    source.add_argument("--recipe", help="recipe whose data to evaluate on (default: the data of the run itself)")
    add_set_option(parser)
    parser.add_argument("--split", default="test", help="train, validation, test or test-<name> (default: test)")
    parser.add_argument("--output_dir", help="folder to write (default: evaluation/ in the run's folder)")
    parser.add_argument("--batch_size", type=int, default=16, help="utterances per batch (default: 16)")


def open_evaluation_from(arguments: argparse.Namespace):
    """The evaluation that the options of [`add_source_options`] and `checkpoint` describe."""
    from merhan.evaluation.model_and_data import open_evaluation

    return open_evaluation(
        arguments.checkpoint,
        manifest=arguments.manifest,
        recipe=arguments.recipe,
        changes=arguments.set,
        split=arguments.split,
        output_dir=arguments.output_dir,
    )


def add_reader_options(parser: argparse.ArgumentParser):
    """Options of a corpus reader."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="for `table` and `datasets`: manifest field and the column of your data that holds it, as audio=path "
        "(repeatable)",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the corpus reader (repeatable)"
    )


def reader_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """`--option key=value` and `--column field=column` as keyword arguments of the reader."""
    from omegaconf import OmegaConf

    options = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(arguments.option)))
    if arguments.column:
        options["columns"] = dict(column.partition("=")[::2] for column in arguments.column)
    return options
