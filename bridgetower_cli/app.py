"""The entry of the installed `bt`. It imports next to nothing: from the first moment on, Ctrl-C is one line."""

import os
import sys

from bridgetower_cli import interrupts


def main() -> None:
    """Parse the command line, do what it says, and exit."""
    interrupts.install()
    try:
        import warnings

        from bridgetower_cli.parser import app

        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # those of third parties tell a person nothing
        app(prog_name="bt")
    except KeyboardInterrupt as stop:  # before there is a command; that of a command is told by `failures`
        interrupts.leave(stop)
    finally:
        _let_go_of_stdout()


def _let_go_of_stdout() -> None:
    """Drop what stdout would not take, which was told: Python would try again at the very end, and complain."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
