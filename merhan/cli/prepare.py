"""Convert a raw corpus release to 16 kHz FLAC and a manifest.

    merhan prepare ravdess /data/RAVDESS prepared/ravdess
    merhan prepare table clips.csv prepared/clips --column audio=file --column label=feeling
    merhan prepare all /data prepared

An interrupted call is resumed by the same command.
"""

import argparse
from pathlib import Path

from merhan.cli.options import add_reader_options, reader_options
from merhan.data.corpora import CORPORA


HELP = "convert a raw corpus release to 16 kHz FLAC and a manifest; resumable"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument(
        "corpus",
        choices=[*CORPORA, "all"],
        help="reader of the release; `table` for a CSV of your own, `all` for every corpus below the source folder",
    )
    parser.add_argument("source", help="the folder of the raw release, a file, or the name of a `datasets` data set")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="SOURCE=LABEL",
        help="merge labels, as excitement=joy, or drop them, as frustration= (repeatable)",
    )
    add_reader_options(parser)
    parser.add_argument("--strict", action="store_true", help="counts that differ from the published ones are an error")
    parser.add_argument("--workers", type=int, help="recordings converted at a time (default: one per core)")


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.data.multi_corpus import prepare_all
    from merhan.data.preparation import prepare

    if arguments.corpus == "all":
        prepare_all(Path(arguments.source), arguments.out, arguments.strict, arguments.workers)
        return
    options = reader_options(arguments)
    if arguments.label:
        options["label_map"] = dict(_label_change(word) for word in arguments.label)
    prepare(arguments.corpus, arguments.source, arguments.out, options, arguments.strict, arguments.workers)


def _label_change(word: str) -> tuple[str, str | None]:
    """`excitement=joy` -> (`excitement`, `joy`); `frustration=` -> (`frustration`, None)."""
    theirs, _, ours = word.partition("=")
    return theirs, ours or None
