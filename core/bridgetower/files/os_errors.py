"""What the file system refuses, in one form of message: which file, why, what to do next.

Each returns the error to raise: of the given kind, or a ResourceError where memory or file handles ran out.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgetower.errors import BridgeTowerError, InputError
from bridgetower.files.regular import NotAFileError
from bridgetower.resources import shortage

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unreadable(
    path: Path | str,
    error: OSError,
    kind: type[BridgeTowerError] = InputError,
    *,
    no_file: str = "give a file",
    advice: str = "check the name and its permissions",
) -> BridgeTowerError:
    """For a file that cannot be opened or read. `no_file` is what to do where a pipe, say, is in its place."""
    if isinstance(error, NotAFileError):
        return kind(f"{path}: {error.strerror}; {no_file}")
    return shortage(error) or kind(f"{path}: cannot be read: {error.strerror or error}; {advice}")


def unwritable(path: Path | str, error: OSError, kind: type[BridgeTowerError]) -> BridgeTowerError:
    """For a file or folder that cannot be made or written."""
    advice = "make room, or choose another place" if error.errno in _FULL else "choose another place"
    return shortage(error) or kind(f"{path}: cannot be written: {error.strerror or error}; {advice}")


@contextmanager
def writing(path: Path, kind: type[BridgeTowerError]) -> Iterator[None]:
    """Raise for an OSError in here as `unwritable` says."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, kind) from error


def reason_to_skip(error: OSError) -> str:
    """Why a file is passed over. Raises ResourceError where it is no fault of the file."""
    if (lack := shortage(error)) is not None:
        raise lack from error
    if not isinstance(error, FileNotFoundError):
        return error.strerror or str(error)
    linked = error.filename is not None and os.path.islink(error.filename)
    return "a link to nothing" if linked else "vanished during the walk"
