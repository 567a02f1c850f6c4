"""`bt mcp`."""

import sys
import threading
import traceback

from bridgetower.errors import UsageError
from bridgetower_cli import interrupts, render
from bridgetower_cli.libraries import wanted
from bridgetower_cli.settings import Device, Index, IndexModel, NoServer, Precision, Quiet, StorePasswordFile, settle

_IDLE_S = 15 * 60.0  # after which the weights are let go


def mcp(
    store_password_file: StorePasswordFile = None,
    index: Index = None,
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
        model=model,
        device=device,
        precision=precision,
        no_server=no_server,
        store_password_file=store_password_file,
    )
    if sys.stdin is not None and sys.stdin.isatty():
        render.say("note: a client of MCP starts `bt mcp` and speaks with it on stdin and stdout; Ctrl-C ends it")
    from bridgetower.serving.engine import Options

    ended = threading.Event()
    interrupts.hand_over(ended.set)
    options = Options(
        settings.index,
        settings.named_model,
        settings.device,
        settings.named_precision,
        settings.given_model,
        settings.precision if settings.named_precision is None else "auto",
        settings.features_cache,
        settings.features_dir,
        settings.store_password,
    )
    asked = wanted(settings) if settings.server_off is None else None
    serve(options, asked, ended, idle=_IDLE_S, say=render.say, defect=_defect)


def _defect(error: BaseException) -> None:
    """Write an error that is a defect to stderr; the server goes on."""
    if sys.stderr is not None:
        traceback.print_exception(error, file=sys.stderr)
