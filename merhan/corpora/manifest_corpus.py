"""A manifest that is there already."""

from pathlib import Path

from merhan.corpora import Corpus
from merhan.errors import InputError
from merhan.manifest import read_table


def read(source: str | Path | None, root: str | Path | None = None) -> Corpus:
    """`source`: the manifest file; `root`: the folder that `audio` is relative to, by default the manifest's own."""
    if source is None:
        raise InputError("data.source: give the manifest's path.")
    rows = read_table(source)
    folder = Path(root) if root else Path(source).parent
    if "audio" in rows:
        rows["audio"] = [str(folder / audio) if audio else "" for audio in rows["audio"].fillna("")]
    return Corpus(rows, [])
