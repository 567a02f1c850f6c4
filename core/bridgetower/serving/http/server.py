"""Run the application on a socket, in a thread with its own event loop."""

import socket
import threading
from typing import Any

import uvicorn

from bridgetower.serving.http.connections import Connection

LAST_S = 5.0  # for answers to be read after the last request has ended


class HttpServer:
    """Answers until `close`."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        """Answer from now on; the server closes the socket. `app` is an ASGI application."""
        config = uvicorn.Config(
            app,
            access_log=False,  # URLs hold what people search for
            h11_max_incomplete_event_size=32_768,
            http=Connection,
            interface="asgi3",
            lifespan="on",
            log_config=None,
            log_level="error",
            loop="asyncio",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(LAST_S),
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="HTTP", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Take no further connection, and end when the answers are read, or after LAST_S. Drain the queue before."""
        self._server.should_exit = True
        self._thread.join(2 * LAST_S)
