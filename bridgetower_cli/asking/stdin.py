"""Read a vector from standard input, again where it was asked in vain."""

import sys

from bridgetower.errors import UsageError


class Stdin:
    """Standard input as a binary file that is only read; after `rewind` it is read from its start."""

    def __init__(self) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("a vector is read from stdin, as in `make-vector | bt search --query-vector -`")
        self.name = getattr(sys.stdin.buffer, "name", "the stream")
        self._read, self._at = b"", 0

    def rewind(self) -> None:
        self._at = 0

    def read(self, size: int) -> bytes:
        self._read += sys.stdin.buffer.read(max(0, self._at + size - len(self._read)))
        self._at += size
        return self._read[self._at - size : self._at]
