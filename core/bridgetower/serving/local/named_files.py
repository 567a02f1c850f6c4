"""Read the files that the user of a command names, when the server asks for them."""

from pathlib import Path
from typing import BinaryIO

from bridgetower.errors import PictureError, ResourceError
from bridgetower.serving.local.wire import Message


def content_of(name: Path) -> tuple[Message, bytes]:
    """Return the bytes of a picture, or the error in their place. Raises ResourceError."""
    from bridgetower.files.content import read

    try:
        return {}, read(name)
    except PictureError as error:
        if isinstance(error.__cause__, MemoryError):
            raise ResourceError(str(error)) from error
        return {"error": error}, b""


class VectorFile:
    """The file of a vector, opened when the server asks for it; or a stream."""

    def __init__(self, source: Path | BinaryIO) -> None:
        self._path = source if isinstance(source, Path) else None
        self._file = None if isinstance(source, Path) else source
        self.name = str(source if isinstance(source, Path) else getattr(source, "name", "the stream"))

    def close(self) -> None:
        """Close a file that was opened here."""
        if self._path is not None and self._file is not None:
            self._file.close()

    def read(self, size: int) -> tuple[Message, bytes]:
        """Return the next bytes, or the error in their place."""
        if self._path is None:
            assert self._file is not None
            return {}, self._file.read(size)
        from bridgetower.files.os_errors import unreadable
        from bridgetower.files.regular_files import open_regular

        try:
            self._file = self._file or open_regular(self._path)
            return {}, self._file.read(size)
        except OSError as error:
            return {"error": unreadable(self._path, error)}, b""
