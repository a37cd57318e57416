"""Look at a folder of recordings or a table, and write a recipe for it in which every guess is marked.

    merhan init clips/
    merhan init clips.csv --out mine.yaml

Labels, speakers and splits of a folder are guessed from the names of its folders and files, and listed in a table that
you can correct; the columns of a table are guessed from their content and names.
"""

import argparse
from pathlib import Path

from merhan.cli.options import OutputPath


HELP = "look at a folder or a table, and write a commented recipe for it"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("source", help="a folder of recordings, or a CSV, TSV, JSONL, Parquet or .xlsx table")
    parser.add_argument(
        "--out", type=OutputPath("file"), help="recipe to write (default: the name of the source with .yaml)"
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.data.recipe_draft import draft
    from merhan.files import home_path

    source = home_path(arguments.source)
    out = arguments.out or Path(f"{source.resolve().stem}.yaml")
    files, sentences = draft(source, out)
    print(*sentences, sep="\n")
    print(f"\nwritten: {' and '.join(map(str, files))}. Check the guesses in {out}, then run\n")
    print(f"    merhan doctor {out}            # the recordings, words and labels")
    print(f"    merhan audit --config {out}    # what the splits share")
    print(f"    merhan train --config {out}")
