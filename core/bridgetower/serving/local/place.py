"""The Unix socket of the server of an index: its path, its folder, and who is at its other end."""

import os
import socket
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path

LONGEST = 104  # bytes of the path of a socket; with the NUL at its end, macOS takes 104 and Linux 108
_UNIX_SOCKETS = hasattr(socket, "AF_UNIX") and hasattr(os, "geteuid")


class NotOffered(Exception):
    """There can be no server here; the message is the reason."""


def socket_path(index: Path) -> Path:
    """Return the path of the socket for an index, whose folder need not exist. Raises NotOffered."""
    if not _UNIX_SOCKETS:
        raise NotOffered("this system has no Unix sockets")
    path = Path(_runtime_folder(), "bridgetower", f"{file_name(index)}.sock")
    if len(os.fsencode(path)) >= LONGEST:
        raise NotOffered(f"{path}: longer than the path of a socket can be: set XDG_RUNTIME_DIR to a shorter folder")
    return path


def file_name(index: Path) -> str:
    """Return the name, without a suffix, of the files of the server of an index; equal for all paths of the index."""
    from hashlib import sha256

    return sha256(os.fsencode(os.path.realpath(index))).hexdigest()[:16]


def _runtime_folder() -> str:
    """Return the folder for the sockets of this user, as platformdirs gives it; importing that would take longer than
    all the rest of the client."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(named) and _is_private(named):
        return named
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches/TemporaryItems")
    usual = f"/run/user/{os.geteuid()}"
    if _is_private(usual):
        return usual
    from tempfile import gettempdir

    return os.path.join(gettempdir(), f"runtime-{os.geteuid()}")


def _is_private(folder: str) -> bool:
    try:
        return fault_of(os.lstat(folder)) is None
    except OSError:
        return False


def fault_of(status: os.stat_result, closed: int = 0o077) -> str | None:
    """Return why a folder, by its `os.lstat`, is not one of this user; None if it is. `closed` are the bits of its mode
    that may not be set."""
    if not stat.S_ISDIR(status.st_mode):
        return "not a folder"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    return "it is open to other users" if status.st_mode & closed else None


def require_private(folder: Path) -> None:
    """Raise NotOffered unless a folder is one of this user alone, in a folder in which no other user can replace it.

    A link is refused. Raises FileNotFoundError if nothing is there.
    """
    for one, closed in ((folder, 0o077), (folder.parent, 0o022)):
        try:
            fault = fault_of(os.lstat(one), closed)
        except FileNotFoundError:
            raise
        except OSError as error:
            fault = error.strerror or str(error)
        if fault is not None:
            raise NotOffered(f"{one}: {fault}")


def make_private(folder: Path) -> None:
    """Make a folder and the one above it for this user alone, unless they are there. Raises NotOffered."""
    try:
        for one in (folder.parent, folder):
            with suppress(FileExistsError):
                os.mkdir(one, 0o700)
        require_private(folder)
    except OSError as error:
        raise NotOffered(f"{folder}: cannot be made: {error.strerror or error}") from error


def holder(index: Path) -> int | None:
    """Return the process that holds the lock of the socket of an index, whether or not it answers; None if none does.

    Raises NotOffered.
    """
    import fcntl
    import json

    try:
        with open(socket_path(index).with_suffix(".lock"), "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(json.loads(lock.read(4096))["pid"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or it has not written that yet
        pass
    return None


def peer_uid(connection: socket.socket) -> int:
    """Return the user of the process at the other end of a Unix socket. Raises OSError."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    # `struct xucred` of macOS and the BSDs: its version, then the user
    found = connection.getsockopt(0, 1, 76)  # SOL_LOCAL, LOCAL_PEERCRED
    return int(struct.unpack_from("2I", found)[1])


def is_ours(connection: socket.socket) -> bool:
    """Return whether a process of this user is at the other end of a Unix socket."""
    try:
        return peer_uid(connection) == os.geteuid()
    except (OSError, struct.error):
        return False
