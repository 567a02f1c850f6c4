"""`bt mcp`."""

import sys
import threading

from bridgetower.errors import UsageError
from bridgetower_cli import interrupts, render
from bridgetower_cli.libraries import engine_options, say_defect, wanted
from bridgetower_cli.settings import (
    Device,
    Index,
    IndexModel,
    InLibrary,
    NoServer,
    Precision,
    Quiet,
    StorePasswordFile,
    settle,
)

_IDLE_S = 15 * 60.0  # after which the weights are let go


def mcp(
    store_password_file: StorePasswordFile = None,
    index: Index = None,
    in_library: InLibrary = None,
    model: IndexModel = None,
    device: Device = None,
    precision: Precision = None,
    no_server: NoServer = False,
    quiet: Quiet = False,
) -> None:
    """Let an agent search, look at and ask about your pictures, by MCP.

    A client of the Model Context Protocol starts it, and speaks with it on stdin and stdout. Its tools are search,
    look, match and fill; all only read. Needs the extra mcp; docs/mcp.md shows the configuration of clients.

    It ends when the client closes its stdin, or at Ctrl-C.
    """
    from bridgetower.serving.mcp.process import is_installed, serve

    if not is_installed():
        from bridgetower import how_to_install

        raise UsageError(f"`bt mcp` needs the extra mcp: {how_to_install('mcp')}")
    settings = settle(
        index=index,
        library=in_library,
        model=model,
        device=device,
        precision=precision,
        no_server=no_server,
        store_password_file=store_password_file,
    )
    if sys.stdin is not None and sys.stdin.isatty():
        render.say("note: a client of MCP starts `bt mcp` and speaks with it on stdin and stdout; Ctrl-C ends it")
    ended = threading.Event()
    interrupts.hand_over(lambda _: ended.set())
    asked = wanted(settings) if settings.server_off is None else None
    serve(engine_options(settings), asked, ended, idle=_IDLE_S, say=render.say, defect=say_defect)
