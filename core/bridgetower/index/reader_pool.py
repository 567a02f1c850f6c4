"""Readers of an index for the threads of one process: each call borrows one, and sees one state to its end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what there is to read is imported with the first reader
    from bridgetower.index.reader import IndexReader
    from bridgetower.index.vectors.protocol import RecallStore


class ReaderPool:
    """Opens readers, lends each to one call at a time, and closes those of an older state."""

    def __init__(self, directory: Path, recall_store: "RecallStore | None") -> None:
        self._directory, self._recall_store = directory, recall_store
        self._lock = threading.Lock()  # of the version, and of the readers
        self._change_lock = threading.RLock()  # a change from within a change meets the lock of the index
        self._version = 0  # of the changes made here: readers of before are of no use
        self._idle: list[IndexReader] = []  # readers of this version that no call has now

    @contextmanager
    def lend(self) -> "Iterator[IndexReader]":
        """A reader for one call, which keeps it whatever others change meanwhile. Raises StoreError."""
        from bridgetower.index.reader import IndexReader

        with self._lock:
            version = self._version
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = IndexReader.open(self._directory, self._recall_store)
        try:
            yield reader
        finally:
            with self._lock:
                is_current = version == self._version
                if is_current:
                    self._idle.append(reader)
            if not is_current:
                reader.close()

    def refresh(self) -> None:
        """Have every call that begins from now on see the index as it is then."""
        with self._lock:
            self._version += 1
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let one thread at a time change the index; calls that begin after it see the change."""
        with self._change_lock:
            self.refresh()
            try:
                yield
            finally:
                self.refresh()
