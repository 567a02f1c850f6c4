"""The writer's lock of an index: at most one process at a time holds it, and it dies with that process."""

import json
import os
import platform
import sys
import time
from datetime import datetime
from pathlib import Path

from bridgetower.errors import LockedError, StoreError
from bridgetower.files.regular import NotAFileError, open_own, open_own_descriptor
from bridgetower.resources import shortage

_SIGNED = b'{"pid": '  # how the content begins


class Lock:
    """The right to write an index, held until `release`.

    The operating system holds it on the open file and takes it back when the process is gone, however it died. What
    stands in the file only tells a second writer who is at work.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at `path`, creating the file if need be.

        Raises LockedError if it is held, StoreError if it cannot be taken, or is not ours to write to.
        """
        try:
            self._descriptor = open_own_descriptor(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise shortage(error) or _unavailable(path, error) from error
        try:
            if not _try_lock(self._descriptor):
                raise LockedError(path.parent, _holder(self._descriptor))
            if os.fstat(self._descriptor).st_nlink > 1:
                raise NotAFileError(0, "a file that has another name elsewhere, too")
            if not _is_ours(os.read(self._descriptor, len(_SIGNED))):
                raise NotAFileError(0, "a file of another program")
            self._sign()
        except OSError as error:
            self.release()
            raise _unavailable(path, error) from error
        except BaseException:
            self.release()
            raise

    def _sign(self) -> None:
        holder = {"pid": os.getpid(), "host": platform.node(), "since": int(time.time())}
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)  # what stood there was read
        os.write(self._descriptor, (json.dumps(holder) + "\n").encode())

    def release(self) -> None:
        """Give the right back; may be called twice. The file stays: removing it would let two processes lock two
        files of the same name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_lock(path: Path) -> bool:
    """Whether the file at `path` is such a lock, by what stands in it."""
    try:
        with open_own(path) as file:
            return _is_ours(file.read(len(_SIGNED)))
    except OSError:
        return False


def _is_ours(begin: bytes) -> bool:
    """Whether the first bytes of a file are those of a lock. A power cut may have left some of them, zeros or blanks;
    a disk may have altered one."""
    if len(begin) == len(_SIGNED) and sum(a != b for a, b in zip(begin, _SIGNED, strict=True)) <= 1:
        return True
    return _SIGNED.startswith(begin.strip(b"\0\n "))


def _unavailable(path: Path, error: OSError) -> StoreError:
    if isinstance(error, NotAFileError):
        return StoreError(f"{path}: {error.strerror}, and left as it is: remove it and run it again")
    return StoreError(
        f"{path}: cannot be locked for writing ({error.strerror}): make its folder writable and run it again"
    )


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.read(descriptor, 4096))
        since = datetime.fromtimestamp(holder["since"]).isoformat(" ", "seconds")
        return f"process {holder['pid']} on {holder['host']} has been writing this index since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # the holder has not signed yet
        return "another process is writing this index"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far behind the content, which others must be able to read
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
