"""Convert a raw corpus release to 16 kHz FLAC and a manifest.

    merhan prepare ravdess /data/RAVDESS prepared/ravdess
    merhan prepare table clips.csv prepared/clips --column audio=file --column label=feeling
    merhan prepare all /data prepared

An interrupted call is resumed by the same command. Exit code 1 if more than `--max_failed` of the recordings failed.
"""

import argparse
import sys

from merhan.cli.options import Number, OutputPath, add_label_options, add_reader_options, label_options, reader_options
from merhan.data.corpora import CORPORA
from merhan.errors import InputError


HELP = "convert a raw corpus release to 16 kHz FLAC and a manifest; resumable"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument(
        "corpus",
        choices=[*CORPORA, "all"],
        help="reader of the release; `table` for a CSV of your own, `all` for every corpus below the source folder",
    )
    parser.add_argument("source", help="the folder of the raw release, a file, or the name of a `datasets` data set")
    parser.add_argument("out", type=OutputPath("folder"), help="folder to write")
    add_label_options(parser)
    add_reader_options(parser)
    parser.add_argument("--strict", action="store_true", help="counts that differ from the published ones are an error")
    parser.add_argument(
        "--max_failed",
        type=Number(float, minimum=0, maximum=1),
        default=0.05,
        metavar="SHARE",
        help="share of the recordings that may fail, 0 to 1; exit code 1 if more do (default: 0.05)",
    )
    parser.add_argument(
        "--workers",
        type=Number(int, minimum=1, maximum=1024),
        help="recordings converted at a time (default: one per core)",
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.data.multi_corpus import prepare_all
    from merhan.data.preparation import prepare
    from merhan.files import home_path

    options = reader_options(arguments) | label_options(arguments)
    if arguments.corpus == "all":
        if any(options.values()):
            raise InputError("prepare all: takes no --label, --own_label, --column or --option; prepare one by one.")
        prepared = prepare_all(home_path(arguments.source), arguments.out, arguments.strict, arguments.workers)
    else:
        prepared = prepare(
            arguments.corpus, arguments.source, arguments.out, options, arguments.strict, arguments.workers
        )
    if prepared.failed > arguments.max_failed * prepared.recordings:
        print(
            f"{prepared.failed} of {prepared.recordings} recordings failed, more than --max_failed "
            f"{arguments.max_failed:g}; see {arguments.out / 'failed.csv'}",
            file=sys.stderr,
        )
        sys.exit(1)
