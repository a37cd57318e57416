"""Files: where they are kept, and how they are written so that a reader sees either the whole file or none."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


PROJECT = Path(__file__).resolve().parent.parent
RESOURCES = Path(__file__).resolve().parent / "resources"


def cache_folder() -> Path:
    """The folder of what can be computed again: `$MERHAN_CACHE`, by default `~/.cache/merhan`."""
    return Path(os.environ.get("MERHAN_CACHE", "~/.cache/merhan")).expanduser()


def resource(name: str) -> Path:
    """A file or folder that the package needs at run time, as `configs/protocols` or `hub_card/README.md.jinja`.

    An installed package holds them in `merhan/resources`, a checkout at its top level.
    """
    installed = RESOURCES / name
    return installed if installed.exists() else PROJECT / name


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path for a file or folder beside `path`, renamed to it when the block ends without an exception.

    So a process that is killed leaves no half-written file, and two processes may write the same file at once. Parent
    folders are made. The temporary name keeps the suffix, because some writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        _remove(temporary)


def _remove(path: Path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str):
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any):
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
