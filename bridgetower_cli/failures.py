"""Turn each error into a line on stderr and an exit code; no other module does."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from bridgetower import __version__
from bridgetower.errors import BridgeTowerError, OutputError, UsageError
from bridgetower.resources import shortage
from bridgetower_cli import interrupts, render, usage

NOTHING_MATCHED = 1
DEFECT = 70
READER_GONE = 128 + 13  # SIGPIPE, which Windows lacks: the exit code of other tools when `head` closes the pipe


def no_match(why: str) -> typer.Exit:
    """Say that there is nothing to show; the caller raises the result."""
    render.say(f"no match: {why}")
    return typer.Exit(NOTHING_MATCHED)


class ReportingGroup(usage.Group):
    """The root of the commands: it handles all errors of parsing and running them."""

    def make_context(self, *args: Any, **extra: Any) -> Any:  # these types are private to typer
        render.speak()
        with _exit_on_interrupt(), _exit_on_error(), _restore_interrupt():
            _require_current_folder()
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _exit_on_interrupt(ctx), _exit_on_error(), _restore_interrupt():
            return super().invoke(ctx)


@contextmanager
def _exit_on_interrupt(ctx: Any = None) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into an exit code, with a line if stderr takes it at once."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if interrupts.is_heard():
            kept = ": everything committed is kept, the same command goes on from there"
            render.last_word(
                f"interrupted{kept if ctx and ctx.invoked_subcommand in ('index', 'import', 'prune') else ''}"
            )
        raise typer.Exit(interrupts.code(stop)) from stop


@contextmanager
def _restore_interrupt() -> Iterator[None]:
    """Raise the interrupt again where a library, such as SQLite, turned it into its own error."""
    try:
        yield
    except Exception as error:
        if interrupts.asked is not None:
            raise interrupts.asked from error
        raise


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Turn an error into a line on stderr and an exit code."""
    try:
        yield
    except BridgeTowerError as error:
        render.error(str(error))
        code = error.exit_code
    except BrokenPipeError:
        code = READER_GONE
    except Exception as error:
        if usage.is_usage_error(error):
            render.error(usage.message_of(error))
            code = UsageError.exit_code
        elif _is_typers_own(error):  # the help, or an exit code
            raise
        elif isinstance(error, OSError) and _raised_in_typer(error):  # typer reads nothing and writes only help
            render.error(str(render.unwritable(error)))
            code = OutputError.exit_code
        elif (lack := shortage(error)) is not None:
            render.error(str(lack))
            code = lack.exit_code
        else:
            if sys.stderr is not None:
                traceback.print_exc(file=sys.stderr)
            render.error(f"this is a defect of bt {__version__}, please report it with the lines above")
            code = DEFECT
    else:
        return
    raise typer.Exit(code)


def _require_current_folder() -> None:
    """Raise UsageError if the current folder was removed: relative paths fail then, and libraries do not load."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder is gone: change into one that is there") from error


def _is_typers_own(error: Exception) -> bool:
    """Whether typer itself raised the error."""
    return type(error).__module__.partition(".")[0] == "typer"


def _raised_in_typer(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "typer"
