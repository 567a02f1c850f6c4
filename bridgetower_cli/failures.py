"""Turn each error into a line on stderr and an exit code; no other module does."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from bridgetower import __version__
from bridgetower.errors import BridgeTowerError, NoIndexError, OutputError, UsageError
from bridgetower.resources import shortage
from bridgetower_cli import interrupts, render, usage

NOTHING_MATCHED = 1
SOME_SKIPPED = 3
DEFECT = 70
READER_GONE = 128 + 13  # SIGPIPE, which Windows lacks: the exit code of other tools when `head` closes the pipe


def no_match(
    why: str, *, best_match: float | None = None, best_similarity: float | None = None, verified: int = 0
) -> typer.Exit:
    """Say that there is nothing to show, and how far off the best one was; the caller raises the result."""
    facts = {"best_match": best_match, "best_similarity": best_similarity, "verified": verified}
    render.no_match(why, {**facts, "code": NOTHING_MATCHED})
    return typer.Exit(NOTHING_MATCHED)


class ReportingGroup(usage.Group):
    """The root of the commands: it handles all errors of parsing and running them."""

    def make_context(self, info_name: Any, args: Any, *more: Any, **extra: Any) -> Any:  # types private to typer
        render.begin(args)
        interrupts.begin(args)
        with _exit_on_interrupt(), _exit_on_error(), _restore_interrupt():
            _require_current_folder()
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _exit_on_interrupt(), _exit_on_error(), _restore_interrupt():
            return super().invoke(ctx)


@contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into an exit code, with a line if stderr takes it at once."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if interrupts.is_heard():
            render.last_word(interrupts.message)
            interrupts.is_told = True
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
        return
    except NoIndexError as error:
        message, code = render.no_index(error), error.exit_code
    except BridgeTowerError as error:
        message, code = str(error), error.exit_code
    except BrokenPipeError as error:
        raise typer.Exit(READER_GONE) from error
    except Exception as error:
        if usage.is_usage_error(error):
            message, code = usage.message_of(error), UsageError.exit_code
        elif _is_typers_own(error):  # the help, or an exit code
            raise
        elif isinstance(error, OSError) and _raised_in_typer(error):  # typer reads nothing and writes only help
            message, code = str(render.unwritable(error)), OutputError.exit_code
        elif (lack := shortage(error)) is not None:
            message, code = str(lack), lack.exit_code
        else:
            if sys.stderr is not None:
                traceback.print_exc(file=sys.stderr)
            message = f"this is a defect of bt {__version__}, please report it with the lines above"
            code = DEFECT
    render.error(message, code)
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
