"""Content hashes: written with each folder of results, and checked when it is read, so that damage is not silent.

`hashes.json` lists the files of its folder. A folder without it was written by an earlier version, and is accepted.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from merhan.errors import InputError
from merhan.files import write_json


FILE = "hashes.json"
_ALGORITHM = "blake2b"  # about 0.7 GB/s on one core
_EDITED = ("README.md",)  # files that people edit


def write_hashes(folder: str | Path, names: Sequence[str] | None = None):
    """Write `hashes.json`: the hash of every file of a folder, but of hidden ones and of README.md.

    Args:
        names: list these files instead, those of them that are there.
    """
    folder = Path(folder)
    files = _files(folder)
    if names is not None:
        files = [folder / name for name in names if (folder / name).is_file()]
    hashes = {path.relative_to(folder).as_posix(): _hash(path) for path in files}
    write_json(folder / FILE, {_ALGORITHM: hashes})


def listed_files(folder: str | Path) -> list[str]:
    """The names of the files whose hashes were written; none where there are no hashes."""
    record = Path(folder) / FILE
    if not record.is_file():
        return []
    return list(_read_hashes(record))


def damage(folder: str | Path, names: tuple[str, ...] = ()) -> str | None:
    """What differs from the content that was written, as `outputs/a/model/config.json is damaged`; None without damage.

    Args:
        names: the files to check; by default all that are listed.
    """
    record = Path(folder) / FILE
    if not record.is_file():
        return None
    try:
        hashes = _read_hashes(record)
        listed = {name: hashes[name] for name in names or hashes if name in hashes}
    except (OSError, ValueError, KeyError, TypeError):
        return f"{record} is damaged"
    for name, expected in listed.items():
        path = Path(folder) / name
        if not path.is_file():
            return f"{path} is missing"
        if _hash(path) != expected:
            return f"{path} is damaged, or was changed (its content hash differs from that in {FILE})"
    return None


def require_intact(folder: str | Path, remedy: str, names: tuple[str, ...] = ()):
    """Check that a folder holds what was written.

    Args:
        remedy: ends the error message, as `restore it`.
        names: as in [`damage`].

    Raises:
        InputError: names the file and the remedy.
    """
    reason = damage(folder, names)
    if reason is not None:
        raise InputError(f"{reason}; {remedy}.")


def _read_hashes(record: Path) -> dict[str, str]:
    return json.loads(record.read_text(encoding="utf-8"))[_ALGORITHM]


def _files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if path.name not in (FILE, *_EDITED) and not path.name.startswith(".")]


def _hash(path: Path) -> str:
    status = path.stat()
    return _hash_once(str(path.resolve()), status.st_size, status.st_mtime_ns)


@cache
def _hash_once(path: str, size: int, changed: int) -> str:
    """The hash of a file, computed once per process as long as its size and time of change stay the same."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _ALGORITHM).hexdigest()
