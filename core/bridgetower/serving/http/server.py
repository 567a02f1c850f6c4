"""Run the application on a socket, in a thread with its own event loop."""

import asyncio
import socket
import threading
import time
from typing import Any

import uvicorn

from bridgetower.serving.http.config import MOST_HEAD
from bridgetower.serving.http.connections import Connection

LAST_S = 3.0  # for the application to end after its last request


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()  # again: it waits for the thread that does its work
        if tasks:
            await asyncio.wait(tasks, timeout=1)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # else a client that has not read its answer waits for more


class HttpServer:
    """Answers until `drain`."""

    def __init__(self, app: Any, listening: socket.socket, drain_s: int) -> None:
        """Answer from now on; the server closes the socket. `app` is an ASGI application.

        After `drain_s` seconds of draining, requests are cancelled.
        """
        config = uvicorn.Config(
            app,
            access_log=False,  # URLs hold what people search for
            h11_max_incomplete_event_size=MOST_HEAD,
            http=Connection,
            interface="asgi3",
            lifespan="on",
            log_config=None,
            log_level="error",
            loop="asyncio",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=drain_s,
            ws="none",
        )
        self._server = _Server(config)
        self._drain_s, self._until = drain_s, 0.0
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="HTTP", daemon=True
        )
        self._thread.start()

    def drain(self) -> None:
        """Take no further connection, and complete the requests that run. Drain the queue before."""
        if not self._server.should_exit:
            self._server.should_exit = True
            self._until = time.monotonic() + self._drain_s + LAST_S

    def close(self) -> None:
        """Drain, and wait for the end."""
        self.drain()
        self._thread.join(max(0.0, self._until - time.monotonic()))
