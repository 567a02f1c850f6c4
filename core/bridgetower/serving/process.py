"""The process of a server: from its start until it is asked to end, when it completes what runs."""

import threading
from collections.abc import Callable

from bridgetower.errors import BridgeTowerError, UsageError
from bridgetower.records import Say
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.local.listener import Listener
from bridgetower.serving.local.place import NotOffered
from bridgetower.serving.request_queue import RequestQueue

DRAIN_S = 60.0  # for requests that run when the process is asked to end


def serve(
    options: Options,
    ended: threading.Event,
    *,
    idle: float,
    say: Say,
    defect: Callable[[BaseException], object],
) -> None:
    """Answer requests to an index until `ended` is set, then complete those that run.

    The weights are read now, and let go after `idle` seconds without a request. `say` gets lines for people, `defect`
    errors that are defects. Raises StoreError if there is no index, or another process serves it; UsageError where
    servers are not possible.
    """
    engine, queue = Engine(options, idle=idle), RequestQueue()
    pictures = engine.size()
    try:
        listener = Listener(engine, queue, options, url="", stop=ended.set, defect=defect)
    except NotOffered as error:
        raise UsageError(f"no server is possible here: {error}") from error
    say(f"serving {options.directory}, {pictures} pictures; `bt serve --stop` or Ctrl-C ends it")

    def warm_up() -> None:
        try:
            engine.warm_up()
        except BridgeTowerError as error:  # requests meet it, too
            say(f"note: the model is not ready: {error}")

    threading.Thread(target=warm_up, name="warm up", daemon=True).start()
    ended.wait()
    queue.drain()
    if not queue.wait(DRAIN_S):
        say(f"note: some requests did not end in {DRAIN_S:g} s; the commands do the work themselves")
    listener.close()
    engine.close()
