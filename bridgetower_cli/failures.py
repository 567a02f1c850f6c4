"""The one place where an error becomes a line on stderr and an exit code."""

import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from bridgetower import __version__
from bridgetower.errors import BridgeTowerError
from bridgetower_cli import render

DEFECT = 70
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
READER_GONE = 128 + 13  # SIGPIPE, which Windows has not: what other tools end with when `head` has seen enough


class Terminated(KeyboardInterrupt):
    """SIGTERM: cleans up as Ctrl-C does."""


def raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of SIGTERM."""
    raise Terminated


class ReportingGroup(TyperGroup):
    """The root of the commands: whatever they raise ends here."""

    def invoke(self, ctx: Any) -> Any:  # the type of `ctx` is private to typer
        try:
            return super().invoke(ctx)
        except BridgeTowerError as error:
            render.say(f"error: {error}")
            code = error.exit_code
        except KeyboardInterrupt as stop:
            kept = ": everything committed is kept, the same command goes on from there"
            render.say(f"interrupted{kept if ctx.invoked_subcommand == 'index' else ''}")
            code = TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
        except BrokenPipeError:
            code = READER_GONE
        except Exception as error:
            if _is_typers_own(error):
                raise
            if sys.stderr is not None:
                traceback.print_exc(file=sys.stderr)
            render.say(f"error: this is a defect of bt {__version__}, please report it with the lines above")
            code = DEFECT
        raise typer.Exit(code)


def _is_typers_own(error: Exception) -> bool:
    """Whether typer knows what to do with it. Its errors of usage have private classes, so it is told by their home."""
    return type(error).__module__.partition(".")[0] == "typer"
