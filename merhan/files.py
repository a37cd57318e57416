"""Files: where they are kept, and how they are written so that a reader sees either the whole file or none."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from merhan.errors import InputError


PROJECT = Path(__file__).resolve().parent.parent
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of a disk, often one of a network
# The name of what a process of a machine writes, or removes, beside the final name; machines may share a folder.
# Containers of one name have numbers of processes of their own.
_NUMBERING = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else ""
_HOST = hashlib.blake2b(f"{platform.node()} {_NUMBERING}".encode(), digest_size=3).hexdigest()
_UNFINISHED = re.compile(rf"\..*\.{_HOST}-(\d+)\.(part|removed)(\.\w+)?", re.DOTALL)
RESOURCES = Path(__file__).resolve().parent / "resources"


def cache_folder() -> Path:
    """The folder of what can be computed again: `$MERHAN_CACHE`, by default `~/.cache/merhan`."""
    return home_path(os.environ.get("MERHAN_CACHE", "~/.cache/merhan"))


def home_path(path: str | Path) -> Path:
    """A path with the folder of its user in place of `~`; one of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


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
    temporary = path.with_name(f".{path.stem}.{_HOST}-{os.getpid()}.part{path.suffix}")
    _remove(temporary)  # a process that was killed may have had the same number
    try:
        yield temporary
        temporary.replace(path)
    finally:
        _remove(temporary)


def remove_leftovers(folder: Path):
    """Remove what processes of this machine that have been killed began to write in a folder, or to remove from it."""
    import psutil

    for path in folder.glob(".*"):
        match = _UNFINISHED.fullmatch(path.name)
        if match and not psutil.pid_exists(int(match[1])):
            _remove(path)


def file_name(name: str) -> str:
    """A name for a file that stands for any text, other text giving another name: characters that a path cannot hold
    become hyphens, with a hash of the text behind them."""
    safe = re.sub(r"[^\w.-]+", "-", name)[:100]
    if safe == name and not name.startswith("."):
        return name
    return f"{safe.lstrip('.')}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, by a lock file beside it. The system releases it when the process ends, however
    it does.

    Raises:
        InputError: another process holds it; says which, and since when. Or the disk keeps no locks.
    """
    path = folder.with_name(f".{folder.name}.lock")
    holder = path.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: is in use by {_described_holder(holder)}; wait until that has finished, or choose another name."
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise InputError(
            f"{folder}: its disk keeps no locks, without which two runs would write there at once ({error}); choose a "
            f"folder on another disk."
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        write_json(holder, {"process": os.getpid(), "host": platform.node(), "since": since})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _described_holder(holder: Path) -> str:
    try:
        entries = json.loads(holder.read_text(encoding="utf-8"))
        return "process {process} on {host} since {since}".format(**entries)
    except (OSError, ValueError, KeyError):  # it has just begun, or just ended
        return "another process"


def remove_folder(folder: Path):
    """Remove a folder, if it is there: renamed first, so that no half of it is ever seen."""
    if not folder.is_dir():
        return
    removed = folder.with_name(f".{folder.name}.{_HOST}-{os.getpid()}.removed")
    _remove(removed)
    folder.rename(removed)
    shutil.rmtree(removed)


def require_writable(path: str | Path, kind: str, where: str):
    """Check, without writing anything, that a file or folder can be written.

    Args:
        kind: `file` or `folder`.
        where: option or key and its value, for the error message.

    Raises:
        InputError: the path is empty or of the other kind, lies in a file, or may not be written.
    """
    path = home_path(path).absolute()
    if not where.strip():
        raise InputError(f"the path of a {kind} to write is empty; name one.")
    if path.exists() and path.is_dir() != (kind == "folder"):
        raise InputError(f"{where}: is no {kind}; choose another path.")
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if existing != path and not existing.is_dir():
        raise InputError(f"{where}: {existing} is a file, nothing can be written in it; choose another path.")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{where}: there are no rights to write to {existing}; choose another path.")


def _remove(path: Path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str):
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        remedy: ends the error message, as `evaluate again`.

    Raises:
        InputError: the file is missing, cannot be read, is not JSON or no object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from None
    except ValueError:
        raise InputError(f"{path}: is damaged, it is not JSON; {remedy}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged, it holds no JSON object; {remedy}.")
    return content


def write_json(path: str | Path, content: Any):
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
