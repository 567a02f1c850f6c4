"""Tell a process that keeps readers open when another process has changed the index."""

import os
from collections.abc import Hashable
from pathlib import Path

from bridgetower.errors import BridgeTowerError
from bridgetower.index.catalog.connection import Connection
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.index.catalog.write_ahead_log import log_of


class Changes:
    """Watch a manifest for changes. One thread at a time uses it.

    The size and time of the log do not suffice: a commit is written to the log, and synced, before readers see it. A
    reader that is opened in between has the state before the commit, and the log is not written again. So SQLite itself
    tells when a commit is seen.
    """

    def __init__(self, manifest: Path) -> None:
        """Nothing is opened now, and the manifest need not exist."""
        self._manifest = manifest
        self._seen: _SeenCommits | None = None
        self._place: tuple[int, ...] = ()  # of the file that it has open
        self._opened = 0  # how often; each connection counts by itself

    def state(self) -> Hashable:
        """Return a value that is equal to an earlier one only if readers opened then see the newest committed state."""
        files = _stat(self._manifest), _stat(log_of(self._manifest))
        try:
            if self._seen is None or self._place != files[0][:2]:
                self.close()
                self._opened += 1
                self._seen, self._place = _SeenCommits.read(self._manifest), files[0][:2]
            return files, self._opened, self._seen.number()
        except BridgeTowerError:  # the next reader raises it, and no state is equal to this one
            self.close()
            return files, self._opened, None

    def close(self) -> None:
        """Close the manifest; `state` opens it again."""
        if self._seen is not None:
            self._seen.close()
            self._seen = None


class _SeenCommits(Connection):
    """A connection that counts the commits of others; one that reads without a lock sees none."""

    def number(self) -> int:
        """Return a number that changes when readers begin to see a commit. Raises StoreError."""
        with explained(self.path):
            if self._db.in_transaction:  # a snapshot, since it was opened
                self._db.execute("ROLLBACK")
            return self._pragma("data_version")


def _stat(file: Path) -> tuple[int, ...]:
    """Return what tells a file from another in its place, and what changes when it is written."""
    try:
        status = os.stat(file)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
