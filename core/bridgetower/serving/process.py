"""The process of a server: from its start until it is asked to end, when it completes what runs."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

from bridgetower.errors import BridgeTowerError, UsageError
from bridgetower.records import Say
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.http.config import Config, bind
from bridgetower.serving.local.listener import Listener
from bridgetower.serving.local.place import NotOffered
from bridgetower.serving.request_queue import RequestQueue

DRAIN_S = 60  # seconds, for requests that run when the process is asked to end
END_S = DRAIN_S + 30  # seconds in which the process must end: clients have some after the drain to read their answers


def serve(
    options: Options,
    http: Config | None,
    ended: threading.Event,
    *,
    idle: float,
    say: Say,
    defect: Callable[[BaseException], object],
) -> None:
    """Answer requests to an index until `ended` is set, then complete those that run.

    With `http`, HTTP is answered, too, which needs the extra `serve`. The weights are read now, and let go after `idle`
    seconds without a request. `say` gets lines for people, `defect` errors that are defects. Raises StoreError if there
    is no index, or another process serves it; UsageError where servers are not possible, or not at that address;
    and as `Library.require_model`.
    """
    engine, queue = Engine(options, idle=idle), RequestQueue()
    server = None
    with ExitStack() as stack:
        stack.callback(engine.close)
        pictures = engine.size()
        engine.require_model()
        listening, url = (None, "") if http is None else bind(http)
        if listening is not None:
            stack.callback(listening.close)
        try:
            local = Listener(engine, queue, options, url=url, stop=ended.set, defect=defect)
            stack.callback(local.close)
        except NotOffered as error:
            if listening is None:
                raise UsageError(f"no server is possible here: {error}") from error
            say(f"note: commands do the work themselves: {error}")
        at = f" at {url}" if url else ""
        say(f"serving {options.directory}, {pictures} pictures{at}; `bt serve --stop` or Ctrl-C ends it")
        threading.Thread(target=_warm_up, args=(engine, say), name="warm up", daemon=True).start()
        if http is not None and listening is not None:
            from bridgetower.serving.http.app import create_app  # takes a second, in which commands are served
            from bridgetower.serving.http.server import HttpServer

            server = HttpServer(create_app(engine, queue, http), listening, DRAIN_S)
            stack.callback(server.close)
        ended.wait()
        queue.drain()
        if server is not None:
            server.drain()
        if not queue.wait(DRAIN_S):
            say(f"note: some requests did not end in {DRAIN_S} s; the commands do the work themselves")


def _warm_up(engine: Engine, say: Say) -> None:
    try:
        engine.warm_up()
    except BridgeTowerError as error:  # requests meet it, too
        say(f"note: the model is not ready: {error}")
