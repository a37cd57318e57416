"""Emotions along a long recording: its speech, split at pauses into utterances, each with its scores.

    merhan timeline outputs/quickstart call.wav --out call.csv
    merhan timeline outputs/quickstart call.wav --out call.json call.srt labels.txt --min_score 0.5
    merhan timeline outputs/quickstart call.wav --out call.eaf --speakers call.rttm
    merhan timeline outputs/quickstart call.wav --out call.html --channels --transcribe openai/whisper-base.en

By suffix: .csv, .json (also second by second), .srt and .vtt (subtitles), .rttm, .eaf (ELAN), .txt (labels that
Audacity imports), .html (a page with a player). Needs silero-vad: pip install 'merhan[train,timeline]'
"""

import argparse
from pathlib import Path

from merhan.cli.options import Number, OutputPath, add_batch_size_option, add_transcription_options
from merhan.errors import InputError


HELP = "emotions along a long recording, utterance by utterance: CSV, JSON, subtitles, RTTM, ELAN, a page"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id (me/model@revision)")
    parser.add_argument("recording", help="a file of any length")
    parser.add_argument(
        "--out",
        type=OutputPath("file"),
        nargs="+",
        required=True,
        help="files to write: .csv, .json, .srt, .vtt, .rttm, .eaf, .txt, .html",
    )
    add_batch_size_option(parser)
    parser.add_argument(
        "--min_score",
        type=Number(float, minimum=0, maximum=1),
        default=0.0,
        help="mark utterances with a lower score as uncertain (default: 0)",
    )
    speakers = parser.add_mutually_exclusive_group()
    speakers.add_argument("--speakers", metavar="RTTM", help="a file that says who speaks when")
    speakers.add_argument("--channels", action="store_true", help="each channel is a speaker, read on its own")
    add_transcription_options(parser)


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.api import timeline

    for out in arguments.out:
        if out.absolute() == Path(arguments.recording).with_suffix(".txt").absolute():
            raise InputError(f"{out}: is where the words of {arguments.recording} are looked for; choose another name.")
        if arguments.speakers and out.absolute() == Path(arguments.speakers).absolute():
            raise InputError(f"{out}: is the file of the speakers; choose another name.")
    table = timeline(
        arguments.checkpoint,
        arguments.recording,
        arguments.batch_size,
        arguments.min_score,
        speakers=arguments.speakers,
        channels=arguments.channels,
        transcribe=arguments.transcribe,
        language=arguments.language,
        out=arguments.out,
    ).utterances
    for out in arguments.out:
        print(f"timeline: {out} ({len(table)} utterances)")
