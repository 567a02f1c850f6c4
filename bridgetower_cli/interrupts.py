"""Handle Ctrl-C and SIGTERM: raise an exception that cleans up, or exit at once where an exception would do harm.

Running native code delays the exception, and threads may wait for a disk. So a separate thread ends the process within
a second. That thread needs the interpreter lock: it waits for a native call that does not release it.
"""

import _thread
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
GRACE_S = 0.8  # from a signal to the end of the process, even if the clean-up is unfinished
_CLEAR_BAR = b"\r\x1b[K\x1b[?25h"  # clear the line of a progress bar, and show the cursor again
_COMMITTED = "everything committed is kept"
# What is kept of commands that go on from there.
_KEPT = {
    "index": _COMMITTED,
    "import": _COMMITTED,
    "prune": _COMMITTED,
    "train": "what was seen of the pictures is kept",  # until `hand_over`
}

message = "interrupted"  # the last line of an interrupted command
is_told = False  # whether the last line was written
_ending = {signal.SIGINT, signal.SIGTERM}  # the signals after which the process ends within GRACE_S
_AGAIN_S = 0.05  # after which an interrupt that came during an import is raised again
asked: KeyboardInterrupt | None = None  # the last interrupt raised here; libraries may turn it into another error


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM; cleans up as Ctrl-C does."""


def install() -> None:
    """Handle both signals from now on, except those that the parent process ignores, as `nohup` and `&` do."""
    _start_deadline()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def begin(arguments: Sequence[str]) -> None:
    """Begin a command with these arguments, whose name tells how `message` ends."""
    global message, is_told
    kept = _KEPT.get(arguments[0]) if arguments else None
    message = f"interrupted: {kept}, the same command goes on from there" if kept else "interrupted"
    is_told = False


def hand_over(end: Callable[[KeyboardInterrupt], object]) -> None:
    """Let the first signal from now on call `end`, for a command that ends by itself; a second one ends the process.

    `end` gets what the command may raise, at its end, for the exit code of the signal.
    """
    signal.set_wakeup_fd(-1)
    called = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal called
        stop = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if called:
            leave(stop)
        called = True
        end(stop)

    hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # the terminal is closed
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


@contextmanager
def breaking_off() -> Iterator[None]:
    """In this block, Ctrl-C raises KeyboardInterrupt and no deadline begins, for a session that goes on after it."""
    _ending.discard(signal.SIGINT)
    try:
        yield
    finally:
        _ending.add(signal.SIGINT)


def forget() -> None:
    """Forget an interrupt after which the command goes on."""
    global asked
    asked = None


def stop(number: int, frame: FrameType | None) -> None:
    """The signal handler: raise, or exit during an import; in `breaking_off`, raise after the import."""
    global asked
    asked = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    if not _importing(frame):
        raise asked
    if number in _ending:
        leave(asked)
    asked = None
    again = threading.Timer(_AGAIN_S, _interrupt_main)
    again.daemon = True
    again.start()


def _interrupt_main() -> None:
    """Raise SIGINT in the main thread, and end a system call there, which `_thread.interrupt_main` would wait for."""
    if hasattr(signal, "pthread_kill") and (thread := threading.main_thread().ident) is not None:
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        _thread.interrupt_main()


def leave(stop: KeyboardInterrupt) -> NoReturn:
    """Exit at once. The files on disk are consistent at every moment, so no clean-up is needed."""
    global is_told
    if not is_told and is_heard():
        with suppress(OSError):
            os.write(2, _last_line())
        is_told = True
    os._exit(code(stop))


def _last_line() -> bytes:
    """Return the last line, which on a terminal replaces a progress bar."""
    return (_CLEAR_BAR if os.isatty(2) and os.environ.get("TERM") != "dumb" else b"") + f"{message}\n".encode()


def _start_deadline() -> None:
    """Start a thread that ends the process GRACE_S after a signal."""
    heard, told = os.pipe()
    if os.name == "posix":
        os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # written to at once, whatever code runs
    with suppress(RuntimeError):  # no thread can start: then native code delays the exit
        _thread.start_new_thread(_exit_after_signal, (heard,))


def _exit_after_signal(heard: int) -> None:
    """Wait for a signal, then GRACE_S, then exit."""
    number = 0
    while number not in _ending:
        number = os.read(heard, 1)[0]
    time.sleep(GRACE_S)
    leave(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())


def is_heard() -> bool:
    """Whether stderr takes a line at once. A halted terminal, or a pipe that nobody reads, may block for ever."""
    try:
        return bool(select.select([], [2], [], 0)[1])
    except (OSError, ValueError):  # stderr is closed; on Windows, select takes only sockets
        return os.name == "nt"


def code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of an interrupt."""
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported. Importing code mishandles an exception: compiled modules abort the process,
    others report a missing library."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
