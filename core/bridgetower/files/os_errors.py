"""Turn an OSError into a message of one form: which file, why, what to do next.

An error is of the kind that the caller gives, or a ResourceError where memory or file handles ran out.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgetower.errors import BridgeTowerError, InputError
from bridgetower.files.regular_files import NotAFileError
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
    """Return the error for a file that cannot be read. `no_file` is the advice where it is not a regular file."""
    if isinstance(error, NotAFileError):
        return kind(f"{path}: {error.strerror}; {no_file}")
    return shortage(error) or kind(f"{path}: cannot be read: {error.strerror or error}; {advice}")


def unwritable(path: Path | str, error: OSError, kind: type[BridgeTowerError]) -> BridgeTowerError:
    """Return the error for a file or folder that cannot be made or written."""
    advice = "make room, or choose another place" if error.errno in _FULL else "choose another place"
    return shortage(error) or kind(f"{path}: cannot be written: {error.strerror or error}; {advice}")


@contextmanager
def writing(path: Path, kind: type[BridgeTowerError]) -> Iterator[None]:
    """Turn an OSError in the block into the error of `unwritable`."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, kind) from error


def reason_to_skip(error: OSError) -> str:
    """Return why a file is passed over. Raises ResourceError where the cause is not the file."""
    if (lack := shortage(error)) is not None:
        raise lack from error
    if not isinstance(error, FileNotFoundError):
        return error.strerror or str(error)
    linked = error.filename is not None and os.path.islink(error.filename)
    return "a link to nothing" if linked else "vanished during the walk"
