"""The entry of the installed `bt`. It imports next to nothing: from the first moment on, Ctrl-C is one line."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from bridgetower_cli import interrupts

# The variables that tell the OpenMP of GNU, LLVM and Intel how threads wait.
_WAITING = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"})


def main() -> NoReturn:
    """Do what the command line says, and end the process."""
    # Looking for garbage among all that libraries make as they load takes a fifth of a start, and taking it apart again
    # at the end another: what was written is written, the system frees the rest.
    gc.set_threshold(100_000, 20, 20)
    os._exit(run())


def wait_without_spinning() -> None:
    """Let the threads of libraries soon sleep while they wait, unless the user has said how they should wait.

    They spin otherwise, and beside busy programs take the core from the very thread that they wait for. OpenMP reads
    this when it is loaded, so it comes before PyTorch and FAISS. GNU's spins 300,000 turns by default; those that are
    left here, some 20 microseconds, bridge the gap from one operation of a large network to the next.
    """
    if _WAITING.isdisjoint(os.environ):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def run() -> int:
    """Parse the command line and do what it says; the exit code. All that was printed has left the process."""
    interrupts.install()
    wait_without_spinning()
    try:
        code = _obey()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):  # what it would not take was told
                    stream.flush()
    except KeyboardInterrupt as stop:  # that of a command is told by `failures`
        interrupts.leave(stop)
    return code


def _obey() -> int:
    try:
        import warnings

        from bridgetower_cli.parser import app

        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # those of third parties tell a person nothing
        app(prog_name="bt")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
