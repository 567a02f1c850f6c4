"""The entry of the installed `bt`. It imports next to nothing: from the first moment on, Ctrl-C is one line."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from bridgetower_cli import interrupts


def main() -> NoReturn:
    """Do what the command line says, and end the process."""
    # Looking for garbage among all that libraries make as they load takes a fifth of a start, and taking it apart again
    # at the end another: what was written is written, the system frees the rest.
    gc.set_threshold(100_000, 20, 20)
    os._exit(run())


def run() -> int:
    """Parse the command line and do what it says; the exit code. All that was printed has left the process."""
    interrupts.install()
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
