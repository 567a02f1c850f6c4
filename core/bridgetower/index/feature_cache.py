"""The feature cache: features of images, kept on the disk so that the second search of the same images is fast.

Each image has one file, named by its hash and by the encoder of the features, so no file is ever out of date. All
files may be deleted at any time, also while they are in use. A damaged file counts as missing.

The cache reads, counts and removes only regular files whose whole name has its form. A cache folder that is a link is
not used at all: the place behind the link was not chosen for the cache.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bridgetower.files.regular_files import is_own, open_own
from bridgetower.resources import shortage

_SUFFIX = ".features"
_NAME = re.compile(r"[0-9a-f]{64}-[A-Za-z0-9_.-]+")  # the hash of the image, then `Judge.features_id`
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.partial")
_DIGEST_BYTES = 16
LEFT_FREE = 200 * 1000**2  # bytes of the disk, for data that cannot be made again


class FeatureCache:
    """Byte strings by name, in a folder of limited size; the least recently used are removed first."""

    def __init__(self, directory: Path, capacity: int) -> None:
        """`capacity` is in bytes. The folder is created by the first `put`."""
        self.directory = directory
        self.capacity = capacity
        self.is_link = os.path.islink(directory)  # then the cache stays empty
        self._size: int | None = None  # bytes in use; computed by the first `put`

    def get(self, name: str) -> bytes | None:
        """Return the content that was put under `name`; None if it is missing or damaged."""
        if self.is_link:
            return None
        path = self.path(name)
        try:
            with open_own(path) as file:
                stored = file.read()
            if not _is_undamaged(stored):
                return None
            os.utime(path)  # marks it as just used
        except OSError:
            return None
        return stored[_DIGEST_BYTES:]

    def put(self, name: str, content: bytes) -> None:
        """Keep `content` under `name`; do nothing if the disk refuses or has too little room."""
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
            # No fsync: after a power cut, an incomplete file has the wrong digest.
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

    # Maintenance

    def names(self) -> Iterator[str]:
        """Yield every name in the cache."""
        yield from (name for path in self._cache_files() if _NAME.fullmatch(name := path.name.removesuffix(_SUFFIX)))

    def unfinished(self) -> list[Path]:
        """Return the files of writes that are in progress or were killed."""
        return [path for path in self._cache_files() if _UNFINISHED.fullmatch(path.name)]

    def is_damaged(self, name: str) -> bool:
        """Return whether the file of `name` exists and is damaged. Raises ResourceError."""
        try:
            with open_own(self.path(name)) as file:
                return not _is_undamaged(file.read())
        except FileNotFoundError:
            return False
        except OSError as error:
            if (lack := shortage(error)) is not None:
                raise lack from error
            return True

    def size(self, name: str) -> int:
        """Return the size of the file of `name` in bytes; 0 if it cannot be read."""
        try:
            return self.path(name).stat().st_size
        except OSError:
            return 0

    def remove(self, name: str) -> None:
        """Remove the file of `name`, if it can be removed."""
        if is_own(self.path(name)):
            with suppress(OSError):
                self.path(name).unlink()

    def _cache_files(self) -> list[Path]:
        """List the regular files whose names have a form of the cache."""
        if self.is_link:
            return []
        found: list[Path] = []
        with suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                whole_name = entry.name.endswith(_SUFFIX) and _NAME.fullmatch(entry.name.removesuffix(_SUFFIX))
                if (whole_name or _UNFINISHED.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                    found.append(Path(entry.path))
        return found

    def _make_room(self, spare: int) -> int:
        """Remove files, oldest first, until `spare` bytes of the capacity are free; return the bytes still in use."""
        files: list[tuple[int, int, Path]] = []
        for path in self._cache_files():
            with suppress(OSError):  # another process removed it
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
        """Return the path of the file of `name`, which need not exist. Raises ValueError for a name of another form."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: features are kept under the hash of a picture and what made them")
        return self.directory / (name + _SUFFIX)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]


def _is_undamaged(stored: bytes) -> bool:
    return _digest(stored[_DIGEST_BYTES:]) == stored[:_DIGEST_BYTES]
