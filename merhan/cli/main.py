"""The `merhan` command: one module of this package per subcommand.

A command module has `HELP` (one line), `add_arguments(parser)` and `run(arguments)`.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from merhan.cli.console import exits_cleanly
from merhan.cli.options import Parser


COMMANDS = (
    "init",
    "prepare",
    "doctor",
    "audit",
    "train",
    "evaluate",
    "predict",
    "timeline",
    "compare",
    "experiment",
    "explain",
    "robustness",
    "export",
    "space",
    "publish",
)


@exits_cleanly
def main(words: Sequence[str] | None = None):
    """Run the command that `words` (by default the command line) names."""
    arguments = build_parser().parse_args(words)
    arguments.run(arguments)


@exits_cleanly
def run_program(command: ModuleType):
    """Run one command as a program of its own, as `train_hf_e2e.py` does."""
    parser = Parser(description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(parser)
    command.run(parser.parse_args())


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = Parser(prog="merhan", description="Emotion recognition from speech and its words.")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for name in COMMANDS:
        command = import_module(f"merhan.cli.{name}")
        subparser = subparsers.add_parser(
            name, help=command.HELP, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser
