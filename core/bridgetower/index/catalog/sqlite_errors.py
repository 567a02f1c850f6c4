"""Errors of SQLite and the disk, turned into errors that say what to do next."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgetower.errors import BridgeTowerError, DamagedIndexError, ResourceError, StoreError
from bridgetower.files.regular_files import NotAFileError, require_own
from bridgetower.index.catalog.write_ahead_log import log_of
from bridgetower.resources import shortage

BUSY_S = 30.0  # only a writer waits, and only on a file system without shared memory, where SQLite has no WAL
CACHE_KIB = 65_536  # for the writer: hashes arrive in random order, so inserts touch all pages of their index
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)  # the second: messages of SQLite quote damaged text


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the disk and of SQLite into StoreError. `path` is the file or folder that is read or written."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # misuse by our own code: a defect keeps its traceback
    except (*UNREADABLE, OSError) as error:
        raise _error_for(path, error) from error


def _error_for(path: Path, error: sqlite3.Error | UnicodeDecodeError | OSError) -> BridgeTowerError:
    if (lack := shortage(error)) is not None:
        return lack
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full else "see that it is there and may be written"
        return StoreError(f"{error.filename or path}: {error.strerror or error}: {advice}, then run it again")
    if isinstance(error, UnicodeDecodeError):
        return DamagedIndexError(path, str(error))
    if (lack := _handle_shortage()) is not None:  # SQLite reports it under other codes
        return lack
    match result_code(error):
        case sqlite3.SQLITE_FULL:
            features = " (features/ beside it may be removed)" if (path.parent / "features").is_dir() else ""
            why = f"the disk is full: make room{features}, and run it again; what was committed before is safe"
        case sqlite3.SQLITE_IOERR if error.sqlite_errorcode == sqlite3.SQLITE_IOERR_SHMSIZE:
            why = "the disk is full: make room, and run it again"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            why = f"still in use by another program after {BUSY_S:.0f} s: run it again when that has ended"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            why = f"cannot be opened or written ({error}): make its folder accessible, or name another with --index DIR"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return DamagedIndexError(path, str(error))
        case _:
            why = f"{error}: see that its disk is there and has room, then run it again"
    return StoreError(f"{path}: {why}")


def _handle_shortage() -> ResourceError | None:
    """Return an error if the process has no free file handle."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return shortage(error)
    return None


def result_code(error: sqlite3.Error) -> int:
    """Return the primary result code, the low byte of an extended code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def lost_log(database: Path) -> StoreError:
    """Return the error for a damaged log beside a manifest that is still blank, so that only the log held data."""
    return StoreError(
        f"{log_of(database)}: damaged, and nothing of the index lies outside of it yet: restore it from a copy; or "
        "remove it, and let `bt index` on your folders make a new index"
    )


def require_own_files(database: Path) -> None:
    """Raise StoreError if a database, or a file of SQLite beside it, is a link, a pipe or anything but a regular file.

    SQLite would follow the link, or wait for the pipe.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        path = database.with_name(database.name + suffix)
        try:
            require_own(path)
        except NotAFileError as error:
            raise StoreError(
                f"{path}: {error.strerror}: an index lies in its folder as a whole; put the file itself there, or name "
                "another place with --index DIR"
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            pass
