"""Open a page to try a model: record, upload or type.

    merhan space outputs/quickstart
    merhan space outputs/quickstart --transcribe openai/whisper-base.en

The page is served on this machine alone, and makes no request to any other. `merhan publish --space` puts it on the
Hub. Needs gradio, and for long recordings silero-vad: pip install 'merhan[train,space,timeline]'
"""

import argparse

from merhan.cli.options import Number, add_transcription_options


HELP = "a page to try a model: record, upload or type"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id")
    parser.add_argument(
        "--port",
        type=Number(int, minimum=1, maximum=65535),
        help="port of the page (default: the first free from 7860)",
    )
    add_transcription_options(parser)


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.hub.space import run_space
    from merhan.prediction.transcription import optional_transcriber

    transcriber = optional_transcriber(arguments.transcribe, arguments.language)
    run_space(arguments.checkpoint, arguments.port, transcriber)
