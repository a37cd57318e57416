"""Check a manifest or a folder of recordings: unreadable, silent or clipped sound, missing words, rare labels.

    merhan doctor prepared/ravdess/manifest.parquet
    merhan doctor /data/EmoDB --corpus emodb --html emodb.html
    merhan doctor mine.yaml
    merhan doctor clips.csv --corpus table --column audio=file --column label=feeling --label happy=joy

Exit code 1 if there are errors that training must not ignore.
"""

import argparse
import sys
from pathlib import Path

from merhan.cli.options import OutputPath, add_label_options, add_reader_options, label_options, reader_options
from merhan.data.corpora import CORPORA
from merhan.errors import InputError


HELP = "check a manifest or a folder of recordings; exit code 1 if there are errors"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("source", help="a manifest, a folder with recordings, or a recipe, whose data are checked")
    parser.add_argument("--corpus", choices=CORPORA, help="read the folder as this corpus, with its labels and words")
    add_label_options(parser)
    add_reader_options(parser)
    parser.add_argument("--json", type=OutputPath("file"), help="also write the diagnosis as JSON")
    parser.add_argument("--html", type=OutputPath("file"), help="also write the diagnosis as a page with plots")


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.data.doctor import as_html, as_json, as_text, examine
    from merhan.files import write_json, write_text

    rows, name = _rows(arguments), Path(arguments.source).name
    diagnosis, facts = examine(rows, name)
    print(as_text(diagnosis))
    if arguments.json:
        write_json(arguments.json, as_json(diagnosis))
    if arguments.html:
        write_text(arguments.html, as_html(diagnosis, facts))
    sys.exit(0 if diagnosis.healthy else 1)


def _rows(arguments: argparse.Namespace):
    """The rows to check, as a manifest."""
    from merhan.data.corpora.base import read_corpus
    from merhan.data.doctor import raw_folder
    from merhan.data.manifest import read_manifest
    from merhan.files import home_path
    from merhan.recipe.loading import load_recipe

    path = home_path(arguments.source)
    options = reader_options(arguments) | label_options(arguments)
    if arguments.corpus:
        return _noted(read_corpus(arguments.corpus, arguments.source, **options))
    if any(options.values()):
        raise InputError("doctor: --label, --own_label, --column and --option are for a reader; name it with --corpus.")
    if path.suffix in (".yaml", ".yml"):
        data = load_recipe(path).data
        return _noted(read_corpus(data.corpus, data.source, data.label_map, data.own_labels, **data.options))
    if not path.is_dir():
        return read_manifest(path)
    rows = raw_folder(path)
    if rows.empty:
        raise InputError(f"{path}: holds no audio file, nor does any folder in it.")
    return rows


def _noted(corpus):
    """The rows of a corpus, after its notes were printed."""
    for note in corpus.notes:
        print(f"note: {note}")
    return corpus.rows
