"""The `merhan` command."""

import argparse
from pathlib import Path

from omegaconf import OmegaConf

from merhan.corpora import CORPORA, read_corpus
from merhan.errors import InputError, exits_cleanly
from merhan.manifest import write_manifest
from merhan.publishing import publish


@exits_cleanly
def main(words: list[str] | None = None):
    arguments = parser().parse_args(words)
    arguments.run(arguments)


def prepare(arguments: argparse.Namespace):
    """`merhan prepare <corpus> <source> <manifest>`."""
    options = OmegaConf.to_container(OmegaConf.from_dotlist(arguments.option))
    if arguments.column:
        options["columns"] = dict(column.partition("=")[::2] for column in arguments.column)
    corpus = read_corpus(arguments.corpus, arguments.source, **options)
    rows = corpus.rows
    if Path(arguments.manifest).exists() and not arguments.overwrite:
        raise InputError(f"{arguments.manifest}: exists; give another path, or --overwrite.")
    write_manifest(rows, arguments.manifest)
    for note in corpus.notes:
        print(f"note: {note}")
    counts = rows["label"].value_counts()
    print(f"{arguments.manifest}: {len(rows)} utterances (" + ", ".join(f"{k} {v}" for k, v in counts.items()) + ")")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="merhan", description="Corpora in, models out.")
    commands = top.add_subparsers(required=True, metavar="command")

    one = commands.add_parser("prepare", help="read a raw release and write its manifest")
    one.add_argument("corpus", choices=CORPORA, help="whose format to read; `table` for a CSV or JSONL of your own")
    one.add_argument("source", help="the raw release's folder, a file, or the name of a `datasets` data set")
    one.add_argument("manifest", help="file to write: .parquet, .csv or .jsonl")
    one.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="for `table`, `datasets`: which column is which, as audio=path (may be repeated)",
    )
    one.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the reader")
    one.add_argument("--overwrite", action="store_true", help="replace a manifest that is there")
    one.set_defaults(run=prepare)

    two = commands.add_parser("publish", help="push a finished run's model to the Hub, and load it back to compare")
    two.add_argument("folder", type=Path, help="the run's folder, as outputs/quickstart")
    two.add_argument("repo_id", help="where to, as me/merhan-demo")
    two.add_argument("--public", action="store_true", help="anyone may see it (default: only you)")
    two.set_defaults(run=lambda given: publish(given.folder, given.repo_id, private=not given.public))
    return top


if __name__ == "__main__":
    main()
