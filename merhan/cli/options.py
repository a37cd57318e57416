"""Options that several commands share, and how they become arguments of functions."""

import argparse
import math
from pathlib import Path
from typing import Any, cast

from merhan.errors import InputError
from merhan.recipe.ranges import describe_bounds, is_within


class Number:
    """The type of an option that takes a number in a range, in the form of [`merhan.recipe.ranges`]."""

    kind = "number"

    def __init__(self, parse: type[int] | type[float], **bounds: float):
        self.parse = parse
        self.bounds = bounds

    def __call__(self, text: str) -> float:
        try:
            number = self.parse(text)
        except ValueError:
            number = math.nan
        if not is_within(number, self.bounds):
            noun = "a whole number" if self.parse is int else "a number"
            raise argparse.ArgumentTypeError(f"is {text!r}; it must be {noun}, {describe_bounds(self.bounds)}")
        return number


class OutputPath:
    """The type of an option that names a file or a folder to write.

    Args:
        kind: `file` or `folder`.
    """

    def __init__(self, kind: str):
        self.kind = kind

    def __call__(self, text: str) -> Path:
        from merhan.files import require_writable

        path = Path(text)
        try:
            require_writable(path, self.kind, text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return path


class Parser(argparse.ArgumentParser):
    """A parser that refuses as every error does: one sentence, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"error: {message.rstrip('.')}; see `{self.prog} --help`.\n")


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
    add_moved_source_option(parser)
    parser.add_argument("--split", default="test", help="train, validation, test or test-<name> (default: test)")
    parser.add_argument(
        "--output_dir", type=OutputPath("folder"), help="folder to write (default: evaluation/ in the run's folder)"
    )
    add_batch_size_option(parser)


def add_batch_size_option(parser: argparse.ArgumentParser):
    """`--batch_size N`."""
    parser.add_argument(
        "--batch_size", type=Number(int, minimum=1, maximum=1e6), default=16, help="utterances per batch (default: 16)"
    )


def add_transcription_options(parser: argparse.ArgumentParser):
    """`--transcribe MODEL` and `--language NAME`."""
    parser.add_argument(
        "--transcribe",
        metavar="RECOGNISER",
        help="find the words with this speech recogniser of transformers: a Hub id or a folder, as openai/whisper-base",
    )
    parser.add_argument(
        "--language",
        help="the language of the words that the model reads, as en; what the recogniser hears in another is not used",
    )


def add_moved_source_option(parser: argparse.ArgumentParser):
    """`--source FOLDER`."""
    parser.add_argument(
        "--source", help="folder where the recordings of the run are now, if they or the run were moved since"
    )


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
        source=arguments.source,
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


def add_label_options(parser: argparse.ArgumentParser):
    """What the labels of the source mean."""
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="SOURCE=LABEL",
        help="map labels, as happy=joy, or drop their rows, as unsure= (repeatable); case does not matter",
    )
    parser.add_argument(
        "--own_label",
        action="append",
        default=[],
        metavar="LABEL",
        help="a label that is valid in addition to the vocabulary, as stress (repeatable)",
    )


def reader_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """`--option key=value` and `--column field=column` as keyword arguments of the reader.

    Raises:
        InputError: one of them has no `=`.
    """
    from omegaconf import OmegaConf

    pairs = [_pair(change, "--option", "root=clips") for change in arguments.option]
    options = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(["=".join(pair) for pair in pairs])))
    if arguments.column:
        options["columns"] = column_options(arguments)
    return options


def column_options(arguments: argparse.Namespace) -> dict[str, str | None]:
    """`--column field=column` as a dictionary; `text=` is None: the table has no such column.

    Raises:
        InputError: a `--column` has no `=`.
    """
    pairs = [_pair(change, "--column", "audio=file") for change in arguments.column]
    return {field: column or None for field, column in pairs}


def label_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """`--label happy=joy` and `--own_label stress` as keyword arguments of [`read_corpus`]; `unsure=` is None.

    Raises:
        InputError: a `--label` has no `=`.
    """
    changes = [_pair(change, "--label", "happy=joy") for change in arguments.label]
    return {"label_map": {word: label or None for word, label in changes}, "own_labels": arguments.own_label}


def _pair(change: str, option: str, example: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise InputError(f"{option} {change}: write KEY=VALUE, as {option} {example}.")
    return key, value.strip()
