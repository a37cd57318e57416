"""Explain predictions: how much voice and words contributed, and which words attended to which seconds.

    merhan explain outputs/quickstart --audio a.wav --text "I cannot believe it!"
    merhan explain outputs/quickstart --utterance demo-test-02-joy-03

Each utterance gets one self-contained HTML page.
"""

import argparse
from pathlib import Path

from merhan.cli.options import OutputPath, add_moved_source_option
from merhan.errors import InputError


HELP = "explain predictions by modality contribution and attention, one HTML page per utterance"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id (me/model@revision)")
    parser.add_argument("--audio", help="a recording")
    parser.add_argument("--text", help="its words")
    parser.add_argument("--speaker", help="name of the speaker, for a model that was trained with names")
    parser.add_argument("--utterance", nargs="+", help="utterance_id of rows of the run's own data, instead of these")
    parser.add_argument("--split", default="test", help="split of those rows (default: test)")
    add_moved_source_option(parser)
    parser.add_argument(
        "--out", type=OutputPath("folder"), default=Path("explained"), help="folder to write (default: explained)"
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.evaluation.explanation import explain_file, explain_rows, require_raw_inputs
    from merhan.evaluation.model_and_data import recorded_data
    from merhan.models.inference import load_checkpoint

    if arguments.source and not arguments.utterance:
        raise InputError("--source: is where the recordings of --utterance are now; give both, or leave it out.")
    model, processor = load_checkpoint(arguments.checkpoint)
    require_raw_inputs(model, processor)
    if arguments.utterance:
        data = recorded_data(arguments.checkpoint, arguments.split, arguments.source)
        pages = explain_rows(model, processor, data, arguments.utterance, arguments.out)
    elif arguments.audio or arguments.text:
        pages = [explain_file(model, processor, arguments.audio, arguments.text, arguments.speaker, arguments.out)]
    else:
        raise InputError("explain: give --audio, --text or both, or --utterance with a run's folder.")
    print(*(f"page: {page}" for page in pages), sep="\n")
