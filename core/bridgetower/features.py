"""Features of pictures, kept from one query to the next: what makes the second search of the same pictures fast.

One file for each picture, named by its content and by what encoded it, so nothing in here is ever out of date. All of
it may be deleted at any time, also while it is used; what is damaged, or cannot be written, is as good as not there.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SUFFIX = ".features"
_DIGEST_BYTES = 16
LEFT_FREE = 200 * 1000**2  # bytes of the disk, for what cannot be made again


class FeatureCache:
    """Byte strings by name, in a folder of at most so many bytes; those that were not used for longest go first."""

    def __init__(self, directory: Path, capacity: int) -> None:
        """`capacity` in bytes. The folder is made with the first thing to keep."""
        self.directory = directory
        self.capacity = capacity
        self._size: int | None = None  # bytes in use; unknown until something is to be added

    def get(self, name: str) -> bytes | None:
        """What was put under `name`; None where it is not there any more, or not whole."""
        path = self.path(name)
        try:
            stored = path.read_bytes()
            if not _is_whole(stored):
                return None
            os.utime(path)  # it was used just now
        except OSError:
            return None
        return stored[_DIGEST_BYTES:]

    def put(self, name: str, content: bytes) -> None:
        """Keep `content` under `name` if the disk lets us."""
        stored = _digest(content) + content
        if len(stored) > self.capacity:
            return
        path = self.path(name)
        unfinished = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            self.directory.mkdir(exist_ok=True)
            if self._size is None:
                self._size = self._make_room(0)
            if shutil.disk_usage(self.directory).free < len(stored) + LEFT_FREE:
                return
            # No fsync: what a power cut leaves unfinished has the wrong digest.
            unfinished.write_bytes(stored)
            os.replace(unfinished, path)
            self._size += len(stored)
            if self._size > self.capacity:
                self._size = self._make_room(self.capacity // 10)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    # To look after it

    def names(self) -> Iterator[str]:
        """Every name that something is kept under."""
        yield from (path.name.removesuffix(_SUFFIX) for path in self._paths(f"*{_SUFFIX}"))

    def unfinished(self) -> list[Path]:
        """What was being written, or is."""
        return list(self._paths(".*.partial"))

    def is_damaged(self, name: str) -> bool:
        """Whether what is kept under `name` is there and not whole."""
        try:
            return not _is_whole(self.path(name).read_bytes())
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def size(self, name: str) -> int:
        """Bytes that are kept under `name`, as far as can be told."""
        try:
            return self.path(name).stat().st_size
        except OSError:
            return 0

    def remove(self, name: str) -> None:
        """Let go of what is kept under `name`."""
        with suppress(OSError):
            self.path(name).unlink()

    def _paths(self, pattern: str) -> Iterator[Path]:
        with suppress(OSError):
            yield from self.directory.glob(pattern)

    def _make_room(self, spare: int) -> int:
        """Remove files, the oldest first, until `spare` bytes are free; how many are in use then."""
        files: list[tuple[int, int, Path]] = []
        for entry in os.scandir(self.directory):
            with suppress(OSError):  # another process was faster
                status = entry.stat()
                files.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used <= self.capacity - spare:
                break
            with suppress(OSError):
                path.unlink()
            used -= size
        return used

    def path(self, name: str) -> Path:
        """Where what is kept under `name` is, if it is."""
        return self.directory / (name + _SUFFIX)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]


def _is_whole(stored: bytes) -> bool:
    return _digest(stored[_DIGEST_BYTES:]) == stored[:_DIGEST_BYTES]
