"""Features of pictures, kept from one query to the next: the second search of the same pictures is fast.

One file for each picture, named by its content and by what encoded it, so nothing in here is ever out of date. All of
it may be deleted at any time, also while it is used; what is damaged, or cannot be written, is as good as not there.

Only regular files whose whole name has the form of ours are read, counted or removed. A folder of an index that is a
link is not used at all: it leads to a place that nobody has named for this.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bridgetower.files.regular import is_own, open_own
from bridgetower.resources import shortage

_SUFFIX = ".features"
_NAME = re.compile(r"[0-9a-f]{64}-[A-Za-z0-9_.-]+")  # the hash of the content, then `Judge.features_id`
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.partial")
_DIGEST_BYTES = 16
LEFT_FREE = 200 * 1000**2  # bytes of the disk, for what cannot be made again


class FeatureCache:
    """Byte strings by name, in a folder of at most so many bytes; those that were not used for longest go first."""

    def __init__(self, directory: Path, capacity: int) -> None:
        """`capacity` in bytes. The folder is made with the first thing to keep."""
        self.directory = directory
        self.capacity = capacity
        self.is_link = os.path.islink(directory)  # then nothing is kept, and nothing found
        self._size: int | None = None  # bytes in use; unknown until something is to be added

    def get(self, name: str) -> bytes | None:
        """What was put under `name`; None where it is not there any more, or not whole."""
        if self.is_link:
            return None
        path = self.path(name)
        try:
            with open_own(path) as file:
                stored = file.read()
            if not _is_whole(stored):
                return None
            os.utime(path)  # it was used just now
        except OSError:
            return None
        return stored[_DIGEST_BYTES:]

    def put(self, name: str, content: bytes) -> None:
        """Keep `content` under `name` if the disk lets us."""
        stored = _digest(content) + content
        path = self.path(name)
        if len(stored) > self.capacity or self.is_link:
            return
        unfinished = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            self.directory.mkdir(exist_ok=True)
            if self._size is None:
                self._size = self._make_room(0)
            if shutil.disk_usage(self.directory).free < len(stored) + LEFT_FREE:
                return
            # No fsync: what a power cut leaves unfinished has the wrong digest.
            with open(unfinished, "xb") as file:
                file.write(stored)
            os.replace(unfinished, path)
            self._size += len(stored)
            if self._size > self.capacity:
                self._size = self._make_room(self.capacity // 10)
        except BaseException as error:  # Ctrl-C, too
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise

    # To look after it

    def names(self) -> Iterator[str]:
        """Every name that something is kept under."""
        yield from (name for path in self._own() if _NAME.fullmatch(name := path.name.removesuffix(_SUFFIX)))

    def unfinished(self) -> list[Path]:
        """What was being written, or is."""
        return [path for path in self._own() if _UNFINISHED.fullmatch(path.name)]

    def is_damaged(self, name: str) -> bool:
        """Whether what is kept under `name` is there and not whole. Raises ResourceError."""
        try:
            with open_own(self.path(name)) as file:
                return not _is_whole(file.read())
        except FileNotFoundError:
            return False
        except OSError as error:
            if (lack := shortage(error)) is not None:
                raise lack from error
            return True

    def size(self, name: str) -> int:
        """Bytes that are kept under `name`, as far as can be told."""
        try:
            return self.path(name).stat().st_size
        except OSError:
            return 0

    def remove(self, name: str) -> None:
        """Let go of what is kept under `name`."""
        if is_own(self.path(name)):
            with suppress(OSError):
                self.path(name).unlink()

    def _own(self) -> Iterator[Path]:
        """The files that are ours, by name and by kind."""
        with suppress(OSError):
            for entry in os.scandir(self.directory) if not self.is_link else ():
                whole_name = entry.name.endswith(_SUFFIX) and _NAME.fullmatch(entry.name.removesuffix(_SUFFIX))
                if (whole_name or _UNFINISHED.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    def _make_room(self, spare: int) -> int:
        """Remove files, the oldest first, until `spare` bytes are free; how many are in use then."""
        files: list[tuple[int, int, Path]] = []
        for path in self._own():
            with suppress(OSError):  # another process was faster
                status = path.lstat()
                files.append((status.st_mtime_ns, status.st_size, path))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used <= self.capacity - spare:
                break
            with suppress(OSError):
                path.unlink()
            used -= size
        return used

    def path(self, name: str) -> Path:
        """Where what is kept under `name` is, if it is. ValueError for a name of another form."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: features are kept under the hash of a picture and what made them")
        return self.directory / (name + _SUFFIX)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]


def _is_whole(stored: bytes) -> bool:
    return _digest(stored[_DIGEST_BYTES:]) == stored[:_DIGEST_BYTES]
