"""Emotions along a long recording: its speech, split at pauses into utterances, each with its scores.

    merhan timeline outputs/quickstart call.wav --out call.csv
    merhan timeline outputs/quickstart call.wav --out call.json call.srt labels.txt --min_score 0.5

By suffix: .csv, .json, .srt and .vtt (subtitles), .txt (labels that Audacity imports). Needs silero-vad:
pip install 'merhan[timeline]'
"""

import argparse
from pathlib import Path

from merhan.cli.options import Number, OutputPath, add_batch_size_option
from merhan.errors import InputError


HELP = "emotions along a long recording, utterance by utterance: CSV, JSON, subtitles, Audacity labels"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id (me/model@revision)")
    parser.add_argument("recording", help="a file of any length")
    parser.add_argument(
        "--out", type=OutputPath("file"), nargs="+", required=True, help="files to write: .csv, .json, .srt, .vtt, .txt"
    )
    add_batch_size_option(parser)
    parser.add_argument(
        "--min_score",
        type=Number(float, minimum=0, maximum=1),
        default=0.0,
        help="mark utterances with a lower score as uncertain (default: 0)",
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.api import timeline
    from merhan.prediction.timeline_files import require_suffix, write_timeline

    for out in arguments.out:
        require_suffix(out)
        if out.absolute() == Path(arguments.recording).with_suffix(".txt").absolute():
            raise InputError(f"{out}: is where the words of {arguments.recording} are looked for; choose another name.")
    table = timeline(arguments.checkpoint, arguments.recording, arguments.batch_size, arguments.min_score)
    for out in arguments.out:
        write_timeline(table, arguments.recording, out)
        print(f"timeline: {out} ({len(table)} utterances)")
