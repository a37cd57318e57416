"""Push the model of a finished run to the Hub in one commit, load it back, and compare its logits.

    merhan publish outputs/quickstart me/merhan-demo
    merhan publish outputs/quickstart me/merhan-demo --space

Only files of an allow-list are pushed. Log in once with `hf auth login`.
"""

import argparse
from pathlib import Path


HELP = "push a finished run's model to the Hub, load it back and compare"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("folder", type=Path, help="the run's folder, as outputs/quickstart")
    parser.add_argument("repo_id", help="repository on the Hub, as me/merhan-demo")
    parser.add_argument("--public", action="store_true", help="make the repository public (default: private)")
    parser.add_argument(
        "--space", action="store_true", help="also push a page to try the model, as me/merhan-demo-space"
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.hub.publishing import publish

    publish(arguments.folder, arguments.repo_id, private=not arguments.public, space=arguments.space)
