"""The process of an MCP server: stdout is for the protocol alone, and the end of stdin ends it. Needs no extra to be
imported."""

import os
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from io import TextIOWrapper

from bridgetower.errors import UsageError
from bridgetower.records import Say
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.local.client import Wanted


def is_installed() -> bool:
    """Return whether the library of the extra `mcp` can be found; it is not imported."""
    return find_spec("mcp") is not None


def serve(
    options: Options,
    wanted: Wanted | None,
    ended: threading.Event,
    *,
    idle: float,
    say: Say,
    defect: Callable[[BaseException], object],
) -> None:
    """Answer a client on stdin and stdout until it closes stdin, or `ended` is set.

    Nothing is read of the index and the model before a tool needs them; the weights are let go after `idle` seconds
    without a request. `wanted` is what a running server must have to be asked; None to ask none. `say` gets lines for
    people, `defect` errors that are defects. Raises UsageError without stdin and stdout.
    """
    reading, writing = take_streams()
    failures: list[BaseException] = []
    engine = Engine(options, idle=idle)

    def run() -> None:
        try:
            from bridgetower.serving.mcp.server import run_on

            run_on(engine, wanted, reading, writing, say=say, defect=defect)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            failures.append(error)
        finally:
            ended.set()

    # A thread, as reading stdin cannot be interrupted: a signal ends the wait of the main thread.
    threading.Thread(target=run, name="mcp", daemon=True).start()
    ended.wait()
    engine.close()
    if failures:
        raise failures[0]


def take_streams() -> tuple[TextIOWrapper, TextIOWrapper]:
    """Return stdin and stdout for the protocol alone.

    From now on all else in this process, and its children, reads nothing from stdin, and writes to stderr what it
    writes to stdout. Raises UsageError if one is closed.
    """
    if sys.stdin is None or sys.stdout is None:  # as Python has it; another file may have the descriptor by now
        raise UsageError("stdin or stdout is closed: a client of MCP starts `bt mcp` with both")
    sys.stdout.flush()
    reading, writing = os.dup(0), os.dup(1)  # children do not inherit these
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        os.dup2(nothing, 1)
    os.close(nothing)
    return (
        TextIOWrapper(os.fdopen(reading, "rb"), encoding="utf-8", errors="replace"),
        TextIOWrapper(os.fdopen(writing, "wb"), encoding="utf-8"),
    )
