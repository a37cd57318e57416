"""Score recordings, folders and tables of any size; an interrupted call is resumed by the same command.

    merhan predict outputs/quickstart clips/ --out scores.parquet
    merhan predict me/merhan-meld "calls/*.wav" utterances.csv --out scores.csv --min_score 0.6
    accelerate launch --num_processes 4 -m merhan predict outputs/quickstart shards/*.parquet --out scores.parquet

Inputs are recordings, folders of them (with the words of a.wav in a.txt), tables (Parquet, CSV, TSV, JSONL, .xlsx) with
the columns audio, text or both, and folders of `datasets`. The result has a row per utterance, in the input's order:
utterance_id, prediction, score_<label> for each label (calibrated, they sum to 1), given (audio, text or audio+text),
seconds, seconds_used, transcript, abstained, error. What cannot be read is a row with its error.
"""

import argparse

from merhan.cli.options import Number, OutputPath, add_batch_size_option, add_transcription_options


HELP = "score recordings, folders and tables: Parquet, CSV or JSONL, resumable"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id (me/model@revision)")
    parser.add_argument("inputs", nargs="+", help="recordings, folders, tables, or patterns with *")
    parser.add_argument("--out", type=OutputPath("file"), required=True, help="file to write: .parquet, .csv or .jsonl")
    add_batch_size_option(parser)
    parser.add_argument(
        "--min_score",
        type=Number(float, minimum=0, maximum=1),
        default=0.0,
        help="mark answers with a lower score as abstained (default: 0)",
    )
    parser.add_argument(
        "--workers",
        type=Number(int, minimum=0, maximum=1024),
        help="processes that decode ahead (default: as in the run's recipe, else on a GPU one for each core, up to 8)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="manifest field and the column of the tables that holds it, as audio=path (repeatable)",
    )
    add_transcription_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file, and what an interrupted call left")


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.api import predict
    from merhan.cli.options import column_options

    predict(
        arguments.checkpoint,
        arguments.inputs,
        arguments.batch_size,
        out=arguments.out,
        min_score=arguments.min_score,
        workers=arguments.workers,
        columns=column_options(arguments),
        overwrite=arguments.overwrite,
        transcribe=arguments.transcribe,
        language=arguments.language,
    )
