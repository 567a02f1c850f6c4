"""Faults of the HTTP server that generated and hostile requests have shown."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.http import bodies, connections, running
from bridgetower.serving.http.app import create_app
from bridgetower.serving.http.bodies import Bodies, checked
from bridgetower.serving.http.config import Config, bind
from bridgetower.serving.http.errors import Problem
from bridgetower.serving.http.routes.schemas import MatchFields, SearchFields, failures
from bridgetower.serving.http.running import run, stream
from bridgetower.serving.http.server import HttpServer
from bridgetower.serving.request_queue import ClientGone, RequestQueue

HOST = b"Host: 127.0.0.1\r\n"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    engine, queue = Engine(Options(tmp_path / "index")), RequestQueue(running=2, waiting=2)
    listening, _ = bind(Config(port=0))
    port = listening.getsockname()[1]
    server = HttpServer(create_app(engine, queue, Config()), listening, 5)
    yield port
    queue.drain()
    server.close()
    engine.close()


def received(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[connections.Connection]:
    """The connections that the server has accepted."""
    made: list[connections.Connection] = []
    accept = connections.Connection.connection_made

    def noting(self: connections.Connection, transport: Any) -> None:
        accept(self, transport)
        made.append(self)

    monkeypatch.setattr(connections.Connection, "connection_made", noting)
    return made


def test_answers_do_not_wait_for_an_ack(made: list[connections.Connection], port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        accepted = made[0].transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_closed_connection_whose_answer_nobody_reads_is_aborted(
    made: list[connections.Connection], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_S", 0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 100 + b"\0\r\n\r\n")
        until = time.monotonic() + 10
        while not (made and made[0] not in made[0].connections) and time.monotonic() < until:
            time.sleep(0.05)
        assert made and made[0] not in made[0].connections


def test_allow_names_all_methods_of_a_path(port: int) -> None:
    answer = received(port, b"DELETE /search HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ") and b"\r\nallow: GET, POST\r\n" in answer


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({str(number): 1 for number in range(50)}, ""),
        ({"texts": ["a"], "images": [{str(number): 1 for number in range(50)}]}, "images.0: "),
    ],
)
def test_many_unknown_fields_are_one_fault(given: dict[str, Any], place: str) -> None:
    with pytest.raises(Problem) as raised:
        checked(MatchFields, given, strict=True)
    assert (raised.value.status, raised.value.message) == (422, f"{place}there is no field '0'")
    assert str(raised.value.__cause__).startswith("1 validation error")


def test_whole_numbers_may_have_a_fraction_of_zero() -> None:
    fields = checked(SearchFields, {"text": "a", "top": 5.0, "depth": 0.0}, strict=True)
    assert (fields.top, fields.depth) == (5, 0)
    for wrong in (5.5, "5", True):
        with pytest.raises(Problem, match="top: "):
            checked(SearchFields, {"text": "a", "top": wrong}, strict=True)


def test_every_route_may_be_refused_before_it_runs() -> None:
    assert {400, 401, 403, 405, 408, 421, 431, 500, 503} <= set(failures())


def test_work_ends_before_its_body_is_let_go() -> None:
    begun, finished = threading.Event(), threading.Event()

    def work(listener: Any) -> None:
        begun.set()
        time.sleep(0.3)
        finished.set()
        listener.on_progress(1, 2)

    async def receive() -> dict[str, str]:
        await asyncio.to_thread(begun.wait)
        return {"type": "http.disconnect"}

    request = Request({"type": "http"}, receive)
    with pytest.raises(ClientGone):
        asyncio.run(run(request, RequestQueue(running=1, waiting=1), work))
    assert finished.is_set()


def asked_by(*messages: str) -> Request:
    """A request whose client sends these messages, and then nothing."""
    left = list(messages)

    async def receive() -> dict[str, str]:
        if not left:
            await asyncio.Event().wait()
        return {"type": left.pop(0)}

    return Request({"type": "http"}, receive)


def test_client_that_goes_before_the_first_event_ends_its_search() -> None:
    ended = threading.Event()

    def work(listener: Any) -> None:
        try:
            while True:
                time.sleep(0.01)
                listener.on_progress(1, 2)
        finally:
            ended.set()

    async def first() -> None:
        events = stream(asked_by("http.request", "http.disconnect"), RequestQueue(running=1, waiting=1), work)
        with pytest.raises(ClientGone):
            await asyncio.wait_for(anext(events), 10)
        assert ended.is_set()

    asyncio.run(first())


@pytest.mark.parametrize("error", [None, RuntimeError("a defect of a test")])
def test_log_has_defects_alone_where_a_client_has_gone(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    begun = threading.Event()

    def work(listener: Any) -> None:
        begun.set()
        time.sleep(0.3)
        if error is not None:
            raise error
        listener.on_progress(1, 2)

    async def receive() -> dict[str, str]:
        await asyncio.to_thread(begun.wait)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(run(Request({"type": "http"}, receive), RequestQueue(running=1, waiting=1), work))
    gc.collect()
    assert [record.message for record in caplog.records] == ([] if error is None else ["a defect"])


def test_refusal_after_a_long_wait_has_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.01)

    def refused(listener: Any) -> None:
        time.sleep(0.2)
        raise Problem(410, "unknown_cursor", "")

    def told(listener: Any) -> str:
        listener.on_hits("hits")
        time.sleep(0.2)
        return "all"

    names: list[str] = []

    async def listen(work: Any) -> None:
        async for name, _ in stream(asked_by("http.request"), RequestQueue(running=1), work):
            names.append(name)

    with pytest.raises(Problem):
        asyncio.run(listen(refused))
    assert not names
    asyncio.run(listen(told))
    assert (names[0], names[1], names[-1]) == ("recalled", "beat", "result")


def test_body_of_a_get_is_dropped() -> None:
    body = {"type": "http.request", "body": b"a", "more_body": True}
    messages = [body, body, {"type": "http.disconnect"}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive() == {"type": "http.disconnect"}

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "http", "method": "GET", "headers": [(b"content-length", b"100000000")]}
    asyncio.run(Bodies(app)(scope, receive, send))
    assert not messages


def test_bytes_already_sent_earn_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_MOST_S", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()

    sent = 0

    async def receive() -> Any:
        nonlocal sent
        await asyncio.sleep(0.01 if sent else 0)
        sent += 1
        return {"type": "http.request", "body": bytes(1 if sent > 1 else 50_000_000), "more_body": True}

    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent")

    began = time.monotonic()
    scope = {"type": "http", "method": "POST", "headers": []}
    with pytest.raises(Problem, match="the body arrives too slowly"):
        asyncio.run(asyncio.wait_for(Bodies(app)(scope, receive, send), 10))
    assert 0.3 <= time.monotonic() - began < 5


def test_encoding_that_is_not_known_is_no_http(port: int) -> None:
    answer = received(port, b"POST /search HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b'{"code": "bad_request"' in answer
