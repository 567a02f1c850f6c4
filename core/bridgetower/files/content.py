"""Read picture files as a whole; a failure that lies in the file is a reason to skip it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bridgetower.errors import BridgeTowerError, PictureError
from bridgetower.files.regular_files import NotAFileError, open_regular
from bridgetower.records import MAX_PICTURE_BYTES
from bridgetower.resources import shortage


def read(path: Path) -> bytes:
    """Return the content of a picture file.

    Raises PictureError where it is missing, unreadable, too large or not a regular file; ResourceError where this
    machine has no file handle left.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_PICTURE_BYTES:
                raise PictureError(path, f"{size / 1e9:.1f} GB, more than the limit of {MAX_PICTURE_BYTES / 1e9:g} GB")
            return file.read(size)  # the file may grow meanwhile
    except ValueError as error:  # a NUL in the name
        raise PictureError(path, "no such file") from error
    except OSError as error:
        raise unreadable_picture(path, error) from error
    except MemoryError as error:
        raise PictureError(path, "not enough memory to read it") from error


def unreachable(paths: Iterable[Path]) -> Iterator[PictureError]:
    """Yield the error for each path at which `read` would find no file, without opening any."""
    for path in paths:
        try:
            os.lstat(path)
        except OSError as error:
            if isinstance(unreadable := unreadable_picture(path, error), PictureError):
                yield unreadable


def unreadable_picture(path: Path, error: OSError) -> BridgeTowerError:
    """Return the error for a picture file that cannot be read: a ResourceError where memory or file handles ran out."""
    if isinstance(error, FileNotFoundError):
        return PictureError(path, "no such file")
    if isinstance(error, NotAFileError):
        return PictureError(path, str(error.strerror))
    return shortage(error) or PictureError(path, f"cannot be read: {error.strerror or error}")
