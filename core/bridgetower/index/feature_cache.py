"""The features of images on the disk, so that a search need not read and encode these images.

Each image has at most two files, named by its hash and by the judge that made the features, so no file is ever out of
date. All files may be deleted at any time, also while they are in use. A damaged file counts as missing.

    .features   cached by a search; the least recently used are removed first
    .kept       kept by `bt index`, of the newest images; only the writer of the index removes them

Only regular files whose whole name has one of these forms are read, counted and removed. A folder that is a link is not
used at all: the place behind the link was not chosen for features.
"""

import hashlib
import heapq
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bridgetower.files.regular_files import is_own, open_own
from bridgetower.resources import shortage

_CACHED, _KEPT = ".features", ".kept"
_NAME = re.compile(r"([0-9a-f]{64})-([A-Za-z0-9_.-]+)")  # the hash of the image, then `Judge.features_id`
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.partial")
_DIGEST_BYTES = 16
LEFT_FREE = 200 * 1000**2  # bytes of the disk, for data that cannot be made again


class FeatureFile(NamedTuple):
    """A file with the features of an image."""

    path: Path
    hash: bytes  # SHA-256 of the image
    made_by: str  # `Judge.features_id`
    kept: bool  # by `bt index`; else cached by a search

    def size(self) -> int:
        """Return its size in bytes; 0 if it cannot be read."""
        with suppress(OSError):
            return self.path.lstat().st_size
        return 0

    def is_damaged(self) -> bool:
        """Return whether it exists and is damaged. Raises ResourceError."""
        try:
            with open_own(self.path) as file:
                return not _is_undamaged(file.read())
        except FileNotFoundError:
            return False
        except OSError as error:
            if (lack := shortage(error)) is not None:
                raise lack from error
            return True

    def remove(self) -> None:
        """Remove it, if it can be removed."""
        if is_own(self.path):
            with suppress(OSError):
                self.path.unlink()


class FeatureCache:
    """Byte strings by name: those that are kept, and a cache of those that were used last."""

    def __init__(self, directory: Path, capacity: int, kept_in: Path | None = None) -> None:
        """`capacity` is in bytes, of all files in the folder; kept ones are never removed for it.

        With a capacity of 0 only kept features are read. The folder is created by the first `put`. `kept_in` is the
        folder of kept features, by default the same.
        """
        self.directory, self.capacity = directory, capacity
        self.kept_in = kept_in or directory
        self.is_link = os.path.islink(directory)  # then nothing is cached
        self.is_full = False  # of what is kept, so that `put` stores nothing; known after the first `put`
        self._size: int | None = None  # bytes in use; computed by the first `put`
        self._kept = 0  # of these, bytes of kept features

    @property
    def refusal(self) -> str | None:
        """Return why nothing can be stored now, apart from the capacity; None if it can."""
        if self.is_link:
            return "it is a link, which is not used: remove it"
        if os.path.lexists(self.directory) and not self.directory.is_dir():
            return "it is no folder: remove it"
        folder = self.directory if self.directory.is_dir() else self.directory.parent
        if not os.access(folder, os.W_OK):
            return "it cannot be written: check its permissions"
        if not _has_space(folder, 0):
            return f"the disk has less than {LEFT_FREE // 1000**2} MB free, which are left free"
        return None

    def get(self, name: str) -> bytes | None:
        """Return the content that was put under `name`; None if it is missing or damaged."""
        kept = _read(self.kept_in, name, _KEPT)
        return _read(self.directory, name, _CACHED) if kept is None and self.capacity else kept

    def put(self, name: str, content: bytes) -> None:
        """Cache `content` under `name`; do nothing if the disk refuses or has too little room."""
        path, size = self.path(name), _DIGEST_BYTES + len(content)
        if size > self.capacity or self.is_link:
            return
        with suppress(OSError):
            self.directory.mkdir(exist_ok=True)
            if self._size is None:
                self._size = self.make_room()
            self.is_full = self._kept + size > self.capacity
            if not self.is_full and _write(path, content):
                self._size += size
                if self._size > self.capacity:
                    self._size = self.make_room((self.capacity - self._kept) // 10)

    def path(self, name: str) -> Path:
        """Return the path of the cached file of `name`, which need not exist. Raises ValueError as `file_of`."""
        return file_of(self.directory, name, _CACHED)

    def make_room(self, spare: int = 0) -> int:
        """Remove cached files, oldest first, until `spare` bytes of the capacity are free; return the bytes in use."""
        cached: list[tuple[int, int, Path]] = []
        self._kept = 0
        for file in self.files():
            with suppress(OSError):  # another process removed it
                status = file.path.lstat()
                if file.kept:
                    self._kept += status.st_size
                else:
                    cached.append((status.st_mtime_ns, status.st_size, file.path))
        used = self._kept + sum(size for _, size, _ in cached)
        for _, size, path in sorted(cached):
            if used <= self.capacity - spare:
                break
            with suppress(OSError):
                path.unlink()
            used -= size
        return used

    # Maintenance

    def files(self) -> Iterator[FeatureFile]:
        """Yield every file with features in the folder of the cache."""
        return _files_in(self.directory)

    def unfinished(self) -> list[Path]:
        """Return the files of writes that are in progress or were killed."""
        return [path for path in _own_files(self.directory) if _UNFINISHED.fullmatch(path.name)]


class KeptFeatures:
    """The features that `bt index` keeps: those of the newest images, as many as fit. The writer's, under its lock."""

    def __init__(self, directory: Path, capacity: int, made_by: str, date_of: Callable[[bytes], int | None]) -> None:
        """Look at what is kept, and remove what `made_by` did not make, what has no date, and what does not fit.

        `capacity` is in bytes; `date_of` returns the date of the image with a hash, or None if none is to be kept.
        """
        self._directory, self._capacity, self._made_by = directory, capacity, made_by
        self._sizes: dict[bytes, int] = {}
        self._oldest: list[tuple[int, bytes]] = []  # a heap of the dates of these
        self._date_of = date_of
        self._largest = 0  # bytes
        self.bytes = 0
        self.too_large: int | None = None  # the least bytes of features that were larger than the capacity
        for file in _files_in(directory):
            date = date_of(file.hash) if file.kept and file.made_by == made_by else None
            if date is not None:
                self._count(file.hash, date, file.size())
            elif file.kept:
                file.remove()
        while self.bytes > capacity:
            self._drop_oldest()

    def __contains__(self, hash: bytes) -> bool:
        return hash in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def number_that_fits(self) -> int | None:
        """Return how many images like those that are kept fit; None if none is kept."""
        return self._capacity * len(self) // self.bytes if self.bytes else None

    def has_room(self, date: int) -> bool:
        """Return whether features of an image of this date, of the usual size, would be kept."""
        folder = self._directory if self._directory.is_dir() else self._directory.parent
        if os.path.islink(self._directory) or not _has_space(folder, self._largest):
            return False
        if not self._sizes or self._oldest[0][0] < date:
            return True
        return self.bytes + 1.05 * self._largest <= self._capacity

    def adopt_cached(self) -> None:
        """Keep what searches have cached of the newest images."""
        files = (file for file in _files_in(self._directory) if not file.kept and file.made_by == self._made_by)
        dated = [(date, file) for file in files if (date := self._date_of(file.hash)) is not None]
        for date, file in sorted(dated, reverse=True):
            self._add(file.hash, date, file.size(), partial(_rename, file.path))

    def put(self, hash: bytes, date: int, content: bytes) -> bool:
        """Keep the features of an image in the place of those of older ones; return whether they are kept.

        They are not where too little would be left of the disk, or where it refuses."""
        return self._add(hash, date, _DIGEST_BYTES + len(content), lambda to: _write(to, content))

    def _add(self, hash: bytes, date: int, size: int, write: Callable[[Path], bool]) -> bool:
        if hash in self:  # an older index left the file
            return True
        with suppress(OSError):
            self._directory.mkdir(exist_ok=True)
        if size > self._capacity:
            self.too_large = min(size, self.too_large or size)
        if size > self._capacity or os.path.islink(self._directory):
            return False
        while self.bytes + size > self._capacity:
            if self._oldest[0][0] >= date:
                return False
            self._drop_oldest()
        if not write(file_of(self._directory, self._name(hash), _KEPT)):
            return False
        self._count(hash, date, size)
        return True

    def _name(self, hash: bytes) -> str:
        return f"{hash.hex()}-{self._made_by}"

    def _count(self, hash: bytes, date: int, size: int) -> None:
        self._sizes[hash] = size
        self._largest = max(self._largest, size)
        self.bytes += size
        heapq.heappush(self._oldest, (date, hash))

    def _drop_oldest(self) -> None:
        _, hash = heapq.heappop(self._oldest)
        path = file_of(self._directory, self._name(hash), _KEPT)
        FeatureFile(path, hash, self._made_by, kept=True).remove()
        self.bytes -= self._sizes.pop(hash)


def file_of(directory: Path, name: str, suffix: str) -> Path:
    """Return the path of a file of `name`, which need not exist. Raises ValueError for a name of another form."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: features are kept under the hash of a picture and what made them")
    return directory / (name + suffix)


def _read(directory: Path, name: str, suffix: str) -> bytes | None:
    path = file_of(directory, name, suffix)
    if os.path.islink(directory):
        return None
    try:
        with open_own(path) as file:
            stored = file.read()
        if not _is_undamaged(stored):
            return None
        if suffix == _CACHED:
            os.utime(path)  # marks it as just used
    except OSError:
        return None
    return stored[_DIGEST_BYTES:]


def _write(path: Path, content: bytes) -> bool:
    """Write a file of features; return whether that was possible with enough room left on the disk."""
    stored = _digest(content) + content
    unfinished = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        if not _has_space(path.parent, len(stored)):
            return False
        # No fsync: after a power cut, an incomplete file has the wrong digest.
        with open(unfinished, "xb") as file:
            file.write(stored)
        os.replace(unfinished, path)
    except BaseException as error:  # Ctrl-C, too
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        return False
    return True


def _has_space(folder: Path, size: int) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free >= size + LEFT_FREE
    return False


def _rename(path: Path, to: Path) -> bool:
    try:
        os.replace(path, to)
    except OSError:
        return False
    return True


def _files_in(directory: Path) -> Iterator[FeatureFile]:
    for path in _own_files(directory):
        found = _NAME.fullmatch(path.stem)
        if path.suffix in (_CACHED, _KEPT) and found is not None:
            yield FeatureFile(path, bytes.fromhex(found[1]), found[2], path.suffix == _KEPT)


def _own_files(directory: Path) -> list[Path]:
    """List the regular files of a folder that is no link."""
    found: list[Path] = []
    if not os.path.islink(directory):
        with suppress(OSError), os.scandir(directory) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
    return found


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]


def _is_undamaged(stored: bytes) -> bool:
    return _digest(stored[_DIGEST_BYTES:]) == stored[:_DIGEST_BYTES]
