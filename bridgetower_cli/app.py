"""The entry point of `bt`. It imports very little, so that Ctrl-C prints one line from the first moment on."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from bridgetower_cli import interrupts

# Environment variables by which the OpenMP of GNU, LLVM and Intel chooses how threads wait.
_WAIT_VARIABLES = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"})


def main() -> NoReturn:
    """Run the command line, and end the process."""
    # Collecting garbage while libraries load takes a fifth of a start, and freeing their objects at the end another.
    # All output is flushed by then, so the process ends at once and the system frees its memory.
    gc.set_threshold(100_000, 20, 20)
    os._exit(run())


def wait_without_spinning() -> None:
    """Let waiting threads of libraries sleep soon, unless the user has set how they should wait.

    Spinning threads, beside busy programs, take the core from the very thread that they wait for. OpenMP reads the
    variables when it is loaded, so they are set before PyTorch and FAISS load. GNU's default is 300,000 turns; the
    10,000 left here, some 20 microseconds, bridge the gap between two operations of a large network.
    """
    if _WAIT_VARIABLES.isdisjoint(os.environ):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def run() -> int:
    """Parse and run the command line; return the exit code. All output is flushed."""
    interrupts.install()
    wait_without_spinning()
    try:
        code = _run_command()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):  # `render` has reported what could not be written
                    stream.flush()
    except KeyboardInterrupt as stop:  # before or after a command; `failures` handles the others
        interrupts.leave(stop)
    return code


def _run_command() -> int:
    try:
        import warnings

        from bridgetower_cli.parser import app

        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # warnings of third parties do not help a user
        app(prog_name="bt")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
