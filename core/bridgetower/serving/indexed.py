"""Pictures of the index by their ids. A client gives no path: a file is read only where the index says that it lies."""

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bridgetower.files.regular_files import is_in_cloud, open_regular
from bridgetower.resources import shortage
from bridgetower.serving.engine import Engine
from bridgetower.serving.limits import FILES_TOGETHER

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bridgetower import Preprocessing

MOST_FILE = 250_000_000  # bytes of a file of the index that is read
_reading = threading.BoundedSemaphore(FILES_TOGETHER)  # for pictures whose pixels are needed

_UNKNOWN = "application/octet-stream"
_STARTS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


class NoPicture(Exception):
    """A picture of the index cannot be read. The message is one line for the one who asks, and names no path."""


class InCloud(NoPicture):
    """Its content is in the cloud only: reading it would download it."""


class TooLarge(NoPicture):
    """Its file has more than MOST_FILE bytes."""


def file_of(engine: Engine, id: str) -> Path:
    """Return the first file of a picture. Raises NoPicture, StoreError."""
    return _files_of(engine, id)[0]


def _files_of(engine: Engine, id: str) -> tuple[Path, ...]:
    """Return all files of a picture, first one that exists. Raises NoPicture, StoreError."""
    if (hit := engine.find(id)) is None:
        raise NoPicture("the index has no such picture")
    return hit.paths


@dataclass(frozen=True, slots=True)
class OpenPicture:
    """A file of the index, at its start, whose content has been compared with its id."""

    path: Path
    file: BinaryIO
    size: int  # bytes
    media_type: str


def open_indexed(engine: Engine, id: str) -> OpenPicture:
    """Open a file of a picture. Raises NoPicture where all have another content now, ResourceError, StoreError."""
    faults = []
    for path in _files_of(engine, id):
        try:
            return _opened(path, id)
        except NoPicture as fault:
            faults.append(fault)
    raise faults[0]


def _opened(path: Path, id: str) -> OpenPicture:
    try:
        if is_in_cloud(os.stat(path)):
            raise InCloud("the content of this picture is in the cloud only")
        file = open_regular(path)
    except OSError as error:
        raise shortage(error) or _missing() from error
    try:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_FILE:
            raise TooLarge(f"the file is larger than {MOST_FILE // 1_000_000} MB")
        if hashlib.file_digest(file, "sha256").hexdigest() != id:
            raise _missing()
        file.seek(0)
        start = file.read(16)
        file.seek(0)
        return OpenPicture(path, file, size, _media_type(start))
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise shortage(error) or _missing() from error
        raise


class IndexedPicture:
    """A picture of the index, read when its pixels are needed: the files of a request do not fit in memory together."""

    def __init__(self, engine: Engine, id: str, name: Path) -> None:
        """`name` is for messages and results. Raises as `file_of`."""
        file_of(engine, id)
        self._engine, self._id, self.name = engine, id, name

    def pixels(self, preprocessing: "Preprocessing") -> "npt.NDArray[np.float32]":
        """Return pixels, as `GuardedPicture`. Raises as that and as `open_indexed`."""
        with _reading:
            content = read_indexed(self._engine, self._id)
            return self._engine.picture(content, self.name).pixels(preprocessing)

    def content_hash(self) -> bytes:
        """Return the SHA-256 of the file."""
        return bytes.fromhex(self._id)


def read_indexed(engine: Engine, id: str) -> bytes:
    """Return the content of a picture of the index. Raises as `open_indexed`."""
    opened = open_indexed(engine, id)
    with opened.file as file:
        return file.read(opened.size)


def _missing() -> NoPicture:
    return NoPicture("the file of this picture is gone or has changed")


def _media_type(start: bytes) -> str:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    if start[4:8] == b"ftyp":
        return {b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic"}.get(start[8:12], _UNKNOWN)
    return next((media for head, media in _STARTS if start.startswith(head)), _UNKNOWN)
