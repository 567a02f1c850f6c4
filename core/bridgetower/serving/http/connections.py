"""A connection of uvicorn that slow and half-open clients cannot hold for long.

uvicorn limits the time between two requests alone: none of a request that never becomes whole, and none of an answer
that nobody reads. The time of a body is limited by `bodies`.
"""

import asyncio
import socket
import sys
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from bridgetower.serving.http.errors import Problem

MOST = 512  # connections
HEADERS_S = 10.0  # for the head of a request, from the begin of the connection or the end of the answer before
STALL_S = 30.0  # for a client to read a part of an answer

_CODES = {400: "bad_request", 408: "too_slow", 431: "too_large"}
_MESSAGES = {
    400: "this is no valid HTTP request",
    408: "the request arrives too slowly",
    431: "the head of the request is too large",
}


class Connection(H11Protocol):
    """One connection. Uses the callbacks of asyncio and of uvicorn 0.54, see `H11Protocol`."""

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that `pause_writing` tells of all that is not read
        # asyncio does so for sockets alone that name their protocol. Else each answer waits 40 ms for an ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > MOST:
            self._refuse(503, "busy", "there are too many connections: ask again later", {"Retry-After": "5"})
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self._head_timer is not None and self._is_answering():
            self._head_timer.cancel()

    def on_response_complete(self) -> None:
        self._expect_head()  # before a request that has arrived already begins
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; uvicorn calls it while it handles the error of h11."""
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        status = hint if hint in _CODES else 400
        self._refuse(status, _CODES[status], _MESSAGES[status])

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(HEADERS_S, self._is_late)

    def _is_late(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408, _CODES[408], _MESSAGES[408])
        else:  # it has sent nothing, so it reads no refusal either
            self.transport.close()

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer, unless an answer has begun, and close the connection."""
        if self._is_answering():
            self.cycle.disconnected = True
        elif self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            problem = Problem(status, code, message, headers)
            body = problem.body()
            lines = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": "close"}
            head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
            head += [f"{name}: {value}" for name, value in {**lines, **problem.headers}.items()]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        if self._head_timer is not None:
            self._head_timer.cancel()
        self.transport.close()  # when all is read; the timer of `pause_writing` ends the wait for that

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
