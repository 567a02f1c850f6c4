"""Readers of an index for the threads of one process: each call borrows one, and sees one state to its end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.resources import shortages

if TYPE_CHECKING:  # imported when the first reader is opened
    from bridgetower.index.reader import IndexReader
    from bridgetower.index.vectors.protocol import RecallStore


class ReaderPool:
    """Open readers, lend each to one call at a time, and close readers of an older state."""

    def __init__(self, directory: Path, recall_store: "RecallStore | None") -> None:
        self._directory, self._recall_store = directory, recall_store
        self._lock = threading.Lock()  # guards the version and the idle readers
        self._change_lock = threading.RLock()  # reentrant: a nested change fails at the lock file
        self._version = 0  # raised by each change; readers of an older version are closed
        self._idle: list[IndexReader] = []  # readers of this version that no call has borrowed

    @contextmanager
    def lend(self) -> "Iterator[IndexReader]":
        """Lend a reader to one call, which keeps its state while others change the index.

        Raises StoreError, and ResourceError if the call runs out of memory, file handles or threads.
        """
        from bridgetower.index.reader import IndexReader

        with self._lock:
            version = self._version
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = IndexReader.open(self._directory, self._recall_store)
        try:
            with shortages():
                yield reader
        finally:
            with self._lock:
                is_current = version == self._version
                if is_current:
                    self._idle.append(reader)
            if not is_current:
                reader.close()

    def refresh(self) -> None:
        """Close the idle readers, so that every later call opens the index in its state of that moment."""
        with self._lock:
            self._version += 1
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let one thread at a time change the index; calls that begin afterwards see the change.

        Raises ResourceError if the block runs out of memory, file handles or threads.
        """
        with self._change_lock:
            self.refresh()
            try:
                with shortages():
                    yield
            finally:
                self.refresh()
