"""What the file system refuses, in one form of message: which file, why, what to do next.

Each returns the error to raise: of the given kind, or a ResourceError where memory or file handles ran out.
"""

import errno
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
