"""What was measured of recordings, kept in the cache folder, so that a recording is decoded for it once.

One SQLite file holds the facts of each segment, sealed by a hash over the size and the times of the recording's file:
a recording that was changed, and an entry that was damaged, are measured again. (Windows has no time of change: there,
a file of the same size with its old time of writing counts as unchanged.)
"""

import hashlib
import os
import sqlite3
from collections.abc import Collection, Mapping

from merhan.files import cache_folder
from merhan.logs import get_logger


logger = get_logger(__name__)

Segment = tuple[str, float | None, float | None]  # path of the recording, start and end in seconds

_RECENT = 2.0  # seconds; a file that was written just now may be written again without another time
_MOST_KEYS = 500  # of one query
_SEAL_BYTES = 16


class FactsCache:
    """Facts, as bytes, by segment. Use it as a context manager, in one thread.

    Where its file cannot be used, nothing is known and nothing is kept, and a note says so.

    Args:
        version: what facts of another version are not taken for.
    """

    def __init__(self, version: str):
        self.path = cache_folder() / "recordings.sqlite"
        self._version = version
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> "FactsCache":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=60)
            self._connection.execute("CREATE TABLE IF NOT EXISTS facts (segment BLOB PRIMARY KEY, content BLOB)")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return self

    def __exit__(self, *_):
        if self._connection is not None:
            self._connection.close()

    def read(self, segments: Collection[Segment]) -> dict[Segment, bytes]:
        """The facts of those segments that were measured, and whose recordings have not changed since."""
        keys = {segment: _key(segment) for segment in segments}
        contents = self._contents(list(keys.values()))
        known = {}
        for segment, key in keys.items():
            content, status = contents.get(key), _status(segment[0])
            if isinstance(content, bytes) and status is not None:
                facts, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
                if seal == self._seal(status, facts):
                    known[segment] = facts
        return known

    def write(self, facts: Mapping[Segment, bytes], begun: float):
        """Keep facts.

        Args:
            begun: the time at which their measuring began; a recording that was written since then, or just before,
                is measured again next time.
        """
        if self._connection is None:
            return
        entries = []
        for segment, content in facts.items():
            status = _status(segment[0])
            if status is not None and status.st_mtime < begun - _RECENT:
                entries.append((_key(segment), content + self._seal(status, content)))
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", entries)
        except sqlite3.Error as error:
            self._give_up(error)

    def _contents(self, keys: list[bytes]) -> dict[bytes, bytes]:
        contents: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _MOST_KEYS):
            if self._connection is None:
                break
            chunk = keys[start : start + _MOST_KEYS]
            query = f"SELECT segment, content FROM facts WHERE segment IN ({', '.join('?' * len(chunk))})"
            try:
                contents |= dict(self._connection.execute(query, chunk))
            except sqlite3.Error as error:
                self._give_up(error)
        return contents

    def _seal(self, status: os.stat_result, facts: bytes) -> bytes:
        """Hash of facts, the state of the recording's file, and the version."""
        state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {self._version} "
        return hashlib.blake2b(state.encode() + facts, digest_size=_SEAL_BYTES).digest()

    def _give_up(self, error: Exception):
        logger.warning(
            f"note: {self.path} cannot be used ({error}), so recordings are decoded again next time; delete it, or set "
            f"MERHAN_CACHE to a folder on another disk"
        )
        self._connection = None


def _status(path: str) -> os.stat_result | None:
    """The state of a recording's file; None where it is gone."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _key(segment: Segment) -> bytes:
    path, start, end = segment
    return hashlib.blake2b(os.fsencode(os.path.abspath(path)) + f"\0{start}\0{end}".encode(), digest_size=16).digest()
