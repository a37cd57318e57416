"""The `merhan` command."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from merhan.corpora import CORPORA, read_corpus
from merhan.dataset import load_data
from merhan.doctor import as_html, as_json, as_text, examine, raw_folder
from merhan.errors import InputError, exits_cleanly
from merhan.leaks import unaccepted
from merhan.manifest import read_manifest
from merhan.preparation import prepare
from merhan.provenance import histories
from merhan.publishing import publish
from merhan.recipe import load_recipe
from merhan.report import markdown_table
from merhan.unification import prepare_all


@exits_cleanly
def main(words: list[str] | None = None):
    arguments = parser().parse_args(words)
    arguments.run(arguments)


def run_prepare(arguments: argparse.Namespace):
    if arguments.corpus == "all":
        prepare_all(Path(arguments.source), arguments.out, arguments.strict, arguments.workers)
        return
    options = reader_options(arguments)
    if arguments.label:
        options["label_map"] = {word: ours or None for word, _, ours in (one.partition("=") for one in arguments.label)}
    prepare(arguments.corpus, arguments.source, arguments.out, options, arguments.strict, arguments.workers)


def run_doctor(arguments: argparse.Namespace):
    """Exit code 1 says that training should not go ahead."""
    path = Path(arguments.source)
    if arguments.corpus:
        rows = read_corpus(arguments.corpus, path, **reader_options(arguments)).rows
    elif path.is_dir():
        rows = raw_folder(path)
        if rows.empty:
            raise InputError(f"{path}: no audio file in it or below it.")
    else:
        rows = read_manifest(path)
    diagnosis, found = examine(rows, path.name)
    print(as_text(diagnosis))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(diagnosis), indent=2, ensure_ascii=False) + "\n")
    if arguments.html:
        arguments.html.write_text(as_html(diagnosis, found))
    sys.exit(0 if diagnosis.healthy else 1)


def run_audit(arguments: argparse.Namespace):
    """Exit code 1 says that something leaks which the recipe does not accept."""
    recipe = load_recipe(arguments.config, arguments.set)
    data = load_data(recipe.data, recipe.model.modalities, histories=histories(recipe.model))
    refused = unaccepted(data.leaks, recipe.data.accept_leaks)
    rows = [
        [
            leak.kind,
            " to ".join(leak.sides),
            leak.rows,
            f"{leak.share:.1%}",
            "no" if leak in refused else "yes",
            leak.example,
        ]
        for leak in data.leaks
    ]
    header = ["leak", "from where", "rows", "share", "accepted", "such as"]
    print(markdown_table(header, rows) if rows else "no leak")
    sys.exit(1 if refused else 0)


def reader_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """`--option key=value` and `--column ours=theirs` as the reader takes them."""
    options = OmegaConf.to_container(OmegaConf.from_dotlist(arguments.option))
    if arguments.column:
        options["columns"] = dict(column.partition("=")[::2] for column in arguments.column)
    return options


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="merhan", description="Corpora in, models out.")
    commands = top.add_subparsers(required=True, metavar="command")

    one = commands.add_parser("prepare", help="raw release -> 16 kHz FLAC and a manifest; goes on where it stopped")
    one.add_argument(
        "corpus",
        choices=[*CORPORA, "all"],
        help="whose format to read; `table` for a CSV of your own, "
        "`all` for every corpus below the source, in one manifest",
    )
    one.add_argument("source", help="the raw release's folder, a file, or the name of a `datasets` data set")
    one.add_argument("out", type=Path, help="folder to write")
    one.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD=OURS",
        help="merge labels, as excitement=joy, or drop them, as frustration= (may be repeated)",
    )
    add_reader_options(one)
    one.add_argument("--strict", action="store_true", help="other counts than the published ones are an error")
    one.add_argument("--workers", type=int, help="recordings at a time (default: one per core)")
    one.set_defaults(run=run_prepare)

    two = commands.add_parser("doctor", help="what is wrong with a manifest or a raw folder; exit code 1 if much")
    two.add_argument("source", help="a manifest, or a folder with recordings")
    two.add_argument("--corpus", choices=CORPORA, help="read the folder as this corpus, with labels and words")
    add_reader_options(two)
    two.add_argument("--json", type=Path, help="also write the diagnosis for a program")
    two.add_argument("--html", type=Path, help="also write a page with pictures")
    two.set_defaults(run=run_doctor)

    three = commands.add_parser("audit", help="what the splits of a recipe's data share; exit code 1 if not accepted")
    three.add_argument("--config", required=True, help="recipe")
    three.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    three.set_defaults(run=run_audit)

    four = commands.add_parser("publish", help="push a finished run's model to the Hub, and load it back to compare")
    four.add_argument("folder", type=Path, help="the run's folder, as outputs/quickstart")
    four.add_argument("repo_id", help="where to, as me/merhan-demo")
    four.add_argument("--public", action="store_true", help="anyone may see it (default: only you)")
    four.set_defaults(run=lambda given: publish(given.folder, given.repo_id, private=not given.public))
    return top


def add_reader_options(command: argparse.ArgumentParser):
    command.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="for `table` and `datasets`: which column is which, as audio=path (may be repeated)",
    )
    command.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the reader")


if __name__ == "__main__":
    main()
