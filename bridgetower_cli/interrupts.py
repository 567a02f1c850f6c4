"""Ctrl-C and SIGTERM: an exception that cleans up, or the end at once where an exception would do harm.

Native code lets no exception in while it runs, and threads may wait for a disk. So a thread ends the process within a
second. It needs the interpreter for that: a single native call that does not release it is waited for.
"""

import _thread
import os
import select
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
GRACE_S = 0.8  # from a signal to the end, whether or not everything was cleaned up until then
_NO_BAR = b"\r\x1b[K\x1b[?25h"  # an empty line, and the cursor that a progress bar has hidden

asked: KeyboardInterrupt | None = None  # the last one that was raised here, whatever it may be turned into on its way


class Terminated(KeyboardInterrupt):
    """SIGTERM: cleans up as Ctrl-C does."""


def install() -> None:
    """Handle both from now on, except where whoever started `bt` wanted them ignored, as `nohup` and `&` do."""
    _limit()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of signals."""
    global asked
    asked = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    if _importing(frame):
        leave(asked)
    raise asked


def leave(stop: KeyboardInterrupt) -> NoReturn:
    """End the process here and now. All that is on disk is always in order, so nothing needs to be put right."""
    if is_heard():
        with suppress(OSError):
            os.write(2, _last_words())
    os._exit(code(stop))


def _last_words() -> bytes:
    """As a terminal should show them."""
    return (_NO_BAR if os.isatty(2) and os.environ.get("TERM") != "dumb" else b"") + b"interrupted\n"


def _limit() -> None:
    """From now on, end the process GRACE_S after a signal."""
    heard, told = os.pipe()
    if os.name == "posix":
        os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # written to at once, whatever is running
    with suppress(RuntimeError):  # the system gives no thread: then native code comes to its end first
        _thread.start_new_thread(_end, (heard,))


def _end(heard: int) -> None:
    """Wait for a signal, and for what it does."""
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):
        number = os.read(heard, 1)[0]
    time.sleep(GRACE_S)
    leave(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())


def is_heard() -> bool:
    """Whether stderr takes a line now. A terminal that is halted, or a pipe that nobody empties, may never."""
    try:
        return bool(select.select([], [2], [], 0)[1])
    except (OSError, ValueError):  # it is closed; Windows knows of sockets only
        return os.name == "nt"


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
