"""Regular files, opened without waiting: a pipe, a device or a folder in the place of a file is refused.

A file of the user may be reached through a link. One of ours may not: a link that somebody has put in its place would
lead to a file that is not ours, to be read, emptied or removed.
"""

import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader
from os import PathLike

_CAUTION = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class NotAFileError(OSError):
    """The path leads to something else; `strerror` says to what."""


def open_regular(path: str | bytes | PathLike[str]) -> BufferedReader:
    """Open a regular file, or a link to one, for reading in binary.

    Raises NotAFileError for anything else, and OSError where it cannot be opened. Neither takes long: a pipe is not
    waited for, and a device not touched.
    """
    return open(path, "rb", opener=_opened)


def open_own(path: str | bytes | PathLike[str]) -> BufferedReader:
    """As `open_regular`, a file that we have made: not through a link."""
    return open(path, "rb", opener=open_own_descriptor)


def open_own_descriptor(path: str | bytes | PathLike[str], flags: int, mode: int = 0o666) -> int:
    """The descriptor of a file that we have made, or, with `os.O_CREAT` in `flags`, make now. Raises as `open_own`."""
    with suppress(FileNotFoundError):
        require_own(path)
    return _regular(os.open(path, flags | _CAUTION | getattr(os, "O_NOFOLLOW", 0), mode), path)


def require_own(path: str | bytes | PathLike[str]) -> None:
    """Raise NotAFileError where something else than a regular file is at `path`, OSError where nothing is."""
    _require_regular(os.lstat(path), path)


def is_own(path: str | bytes | PathLike[str]) -> bool:
    """Whether a regular file is at `path`, and no link to one: only such a file may be removed as ours."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _opened(path: str, flags: int) -> int:
    _require_regular(os.stat(path), path)  # some devices do something when they are opened
    return _regular(os.open(path, flags | _CAUTION), path)


def _regular(descriptor: int, path: str | bytes | PathLike[str]) -> int:
    """The descriptor, unless something else has taken the place of the file meanwhile."""
    try:
        _require_regular(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(status: os.stat_result, path: str | bytes | PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a pipe, socket or device")
        raise NotAFileError(errno.EINVAL, f"not a file but {kind}", os.fspath(path))
