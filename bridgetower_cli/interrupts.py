"""Ctrl-C and SIGTERM: an exception that cleans up, or the end at once where an exception would do harm."""

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM: cleans up as Ctrl-C does."""


def install() -> None:
    """Handle both from now on, except where whoever started `bt` wanted them ignored, as `nohup` and `&` do."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of signals."""
    error = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    if _importing(frame):
        leave(error)
    raise error


def leave(stop: KeyboardInterrupt) -> NoReturn:
    """End the process here and now. All that is on disk is always in order, so nothing needs to be put right."""
    with suppress(OSError):  # stderr is closed
        os.write(2, b"interrupted\n")
    os._exit(code(stop))


def code(stop: KeyboardInterrupt) -> int:
    """The exit code."""
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def _importing(frame: FrameType | None) -> bool:
    """Whether some module is half imported. What is raised into that comes out as anything: compiled ones abort the
    process, others take it for a library that is missing."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
