"""The lock of the writer of an index, or of a run of training: one process at most has it, until the process ends."""

import json
import os
import platform
import sys
import time
from datetime import datetime
from pathlib import Path

from bridgetower.errors import BridgeTowerError, LockedError, StoreError
from bridgetower.files.regular_files import NotAFileError, open_own, open_own_descriptor
from bridgetower.resources import shortage

_FIRST_BYTES = b'{"pid": '  # the first bytes of a lock file


class Lock:
    """An exclusive lock on `what` is written in a folder, held until `release`.

    The operating system keeps the lock on the open file and releases it when the process ends, however it ends. The
    content of the file only tells a second writer which process holds the lock.
    """

    def __init__(self, path: Path, what: str = "this index", kind: type[BridgeTowerError] = StoreError) -> None:
        """Take the lock at `path`, creating the file if need be.

        Raises LockedError if another process holds it; `kind` if the file cannot be locked or is not a lock.
        """
        try:
            self._descriptor = open_own_descriptor(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise shortage(error) or _lock_error(path, error, kind) from error
        try:
            if not _try_lock(self._descriptor):
                raise LockedError(path.parent, _describe_holder(self._descriptor, what))
            if os.fstat(self._descriptor).st_nlink > 1:
                raise NotAFileError(0, "a file that has another name elsewhere, too")
            if not _is_lock_content(os.read(self._descriptor, len(_FIRST_BYTES))):
                raise NotAFileError(0, "a file of another program")
            self._write_holder()
        except OSError as error:
            self.release()
            raise _lock_error(path, error, kind) from error
        except BaseException:
            self.release()
            raise

    def _write_holder(self) -> None:
        holder = {"pid": os.getpid(), "host": platform.node(), "since": int(time.time())}
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)  # the check of the first bytes moved it
        os.write(self._descriptor, (json.dumps(holder) + "\n").encode())

    def release(self) -> None:
        """Release the lock; may be called twice. The file stays: if it were removed, two processes could each lock a
        file of this name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_lock(path: Path) -> bool:
    """Return whether the content of the file at `path` is that of a lock."""
    try:
        with open_own(path) as file:
            return _is_lock_content(file.read(len(_FIRST_BYTES)))
    except OSError:
        return False


def _is_lock_content(begin: bytes) -> bool:
    """Return whether a file that begins with these bytes is a lock. After a power cut, some bytes may be missing, zero
    or blank; a disk may have altered one byte."""
    if len(begin) == len(_FIRST_BYTES) and sum(a != b for a, b in zip(begin, _FIRST_BYTES, strict=True)) <= 1:
        return True
    return _FIRST_BYTES.startswith(begin.strip(b"\0\n "))


def _lock_error(path: Path, error: OSError, kind: type[BridgeTowerError]) -> BridgeTowerError:
    if isinstance(error, NotAFileError):
        return kind(f"{path}: {error.strerror}, and left as it is: remove it and run it again")
    return kind(f"{path}: cannot be locked for writing ({error.strerror}): make its folder writable and run it again")


def _describe_holder(descriptor: int, what: str) -> str:
    try:
        holder = json.loads(os.read(descriptor, 4096))
        since = datetime.fromtimestamp(holder["since"]).isoformat(" ", "seconds")
        return f"process {holder['pid']} on {holder['host']} has been writing {what} since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # the holder has not written its content yet
        return f"another process is writing {what}"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # a locked byte cannot be read, and others must read the content
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
