"""Open regular files without waiting, and refuse a pipe, a device or a folder in the place of a file.

Opening a file whose content is in the cloud only downloads it; `is_in_cloud` and `has_stub` tell such files before.
A file of the user may be reached through a link. A file of ours may not: through a link in its place we would read,
empty or remove a file that is not ours.
"""

import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader
from os import PathLike
from pathlib import Path

_SAFE_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

_DATALESS = 0x40000000  # SF_DATALESS, of macOS
_RECALLED = 0x400000 | 0x40000 | 0x1000  # FILE_ATTRIBUTE_RECALL_ON_DATA_ACCESS, _RECALL_ON_OPEN, _OFFLINE, of Windows
_STUB = b".icloud"


class NotAFileError(OSError):
    """The path leads to something other than a regular file; `strerror` names it."""


def open_regular(path: str | bytes | PathLike[str]) -> BufferedReader:
    """Open a regular file, or a link to one, for reading in binary.

    Raises NotAFileError for anything else, and OSError where it cannot be opened. It does not wait for a pipe, and does
    not open a device.
    """
    return open(path, "rb", opener=_open_descriptor)


def is_in_cloud(status: os.stat_result) -> bool:
    """Whether the content of a file is in the cloud only: its system downloads it when it is opened."""
    return bool(getattr(status, "st_flags", 0) & _DATALESS or getattr(status, "st_file_attributes", 0) & _RECALLED)


def named_by_stub(name: bytes) -> bytes | None:
    """Return `a.jpg` for `.a.jpg.icloud`, the stub that iCloud leaves in its place; None for other names."""
    is_stub = name.startswith(b".") and name.endswith(_STUB) and len(name) > 1 + len(_STUB)
    return name[1 : -len(_STUB)] if is_stub else None


def has_stub(path: Path) -> bool:
    """Whether iCloud has left a stub in the place of a file that is not there."""
    return os.path.lexists(path.with_name(f".{path.name}{_STUB.decode()}"))


def open_own(path: str | bytes | PathLike[str]) -> BufferedReader:
    """Open a file that we made, as `open_regular` does, but not through a link."""
    return open(path, "rb", opener=open_own_descriptor)


def open_own_descriptor(path: str | bytes | PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a file that we made, or make it (`os.O_CREAT` in `flags`); return its descriptor. Raises as `open_own`."""
    with suppress(FileNotFoundError):
        require_own(path)
    return _checked_descriptor(os.open(path, flags | _SAFE_FLAGS | getattr(os, "O_NOFOLLOW", 0), mode), path)


def require_own(path: str | bytes | PathLike[str]) -> None:
    """Raise NotAFileError where `path` is not a regular file, OSError where nothing is there."""
    _require_regular(os.lstat(path), path)


def is_own(path: str | bytes | PathLike[str]) -> bool:
    """Whether `path` is a regular file and no link: only such a file may be removed as ours."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _open_descriptor(path: str, flags: int) -> int:
    _require_regular(os.stat(path), path)  # opening some devices has side effects
    return _checked_descriptor(os.open(path, flags | _SAFE_FLAGS), path)


def _checked_descriptor(descriptor: int, path: str | bytes | PathLike[str]) -> int:
    """Return the descriptor; close it and raise NotAFileError if the file was replaced meanwhile."""
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
