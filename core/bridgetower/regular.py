"""Files to read, opened without waiting: a pipe, a device or a folder in the place of a file is refused."""

import errno
import os
import stat
from io import BufferedReader
from os import PathLike


class NotAFileError(OSError):
    """The path leads to something else; `strerror` says to what."""


def open_regular(path: str | PathLike[str]) -> BufferedReader:
    """Open a regular file, or a link to one, for reading in binary.

    Raises NotAFileError for anything else, and OSError where it cannot be opened. Neither takes long: a pipe is not
    waited for, and a device not touched.
    """
    return open(path, "rb", opener=_opened)


def _opened(path: str, flags: int) -> int:
    _require_regular(os.stat(path), path)  # some devices do something when they are opened
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    try:
        _require_regular(os.fstat(descriptor), path)  # it may have been replaced meanwhile
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise NotAFileError(errno.EINVAL, f"not a file but {kind}", path)
