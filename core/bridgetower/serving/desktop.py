"""Start the programs of this machine's desktop: its file manager, and the viewers of its kinds of files."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bridgetower.files.walk import EXTENSIONS
from bridgetower.records import Skipped
from bridgetower.resources import shortage

_FAILS_WITHIN_S = 2.0  # a program that finds no viewer ends in this time
_MANAGERS = {"darwin": "open", "win32": "explorer"}  # by platform; elsewhere xdg-open


def file_manager() -> str | None:
    """Return the program that shows folders; None without a desktop. But for Windows, it opens files, too."""
    name = _MANAGERS.get(sys.platform)
    if name is None and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        name = "xdg-open"
    return None if name is None else shutil.which(name)


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program that outlives this one, and is not heard. Raises OSError."""
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent, start_new_session=True)
    threading.Thread(target=process.wait, name="desktop", daemon=True).start()  # else it stays a zombie
    return process


def view(files: Sequence[Path]) -> list[Skipped]:
    """Open files in the viewers that the desktop has for them; return those that were not opened, with the reason.

    A file whose name is not that of a picture is not opened, as the desktop may run it. Some programs stay until the
    viewer is closed: none is awaited for longer than it takes to fail. Raises ResourceError.
    """
    skipped, started = [], []
    for file in files:
        if (fault := _fault(file)) is not None:
            skipped.append(Skipped(file, fault))
            continue
        try:
            if (process := _started(file)) is not None:
                started.append((file, process))
        except OSError as error:
            if (lack := shortage(error)) is not None:
                raise lack from error
            skipped.append(Skipped(file, f"cannot be opened: {error.strerror or error}"))
    until = time.monotonic() + _FAILS_WITHIN_S
    for file, process in started:
        try:
            status = process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
        if status:
            skipped.append(Skipped(file, f"the desktop has no viewer for it (exit status {status})"))
    return skipped


def _fault(file: Path) -> str | None:
    if file.suffix.lower() not in EXTENSIONS:
        return "its name is not that of a picture"
    return None if file.is_file() else "no such file"


def _started(file: Path) -> subprocess.Popen[bytes] | None:
    """Return the process that opens a file; None on Windows, which opens it itself. Raises OSError."""
    path = os.path.abspath(file)
    if sys.platform == "win32":
        os.startfile(path)
        return None
    program = file_manager()
    if program is None:
        raise OSError("there is no desktop")
    return start([program, path])
