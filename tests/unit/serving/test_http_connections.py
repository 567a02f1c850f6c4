"""The HTTP server on a socket: clients that are slow, silent, too many or no HTTP, and its end."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from PIL import Image

from bridgetower.errors import UsageError
from bridgetower.serving.http import bodies, connections
from bridgetower.serving.http.app import create_app
from bridgetower.serving.http.config import Config, bind
from bridgetower.serving.http.server import HttpServer
from tests.unit.serving.http_server import FakeEngine, Server, colours_served

WHOLE = b"GET /search?text=red&top=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with colours_served(tmp_path_factory.mktemp("connections")) as server:
        yield server


@contextmanager
def running(colours: Server, drain_s: int = 5) -> Iterator[tuple[HttpServer, int]]:
    config = Config(port=0)
    listening, url = bind(config)
    server = HttpServer(create_app(colours.engine, colours.queue, config), listening, drain_s)
    yield server, int(url.rpartition(":")[2])
    server.close()


@pytest.fixture
def port(colours: Server) -> Iterator[int]:
    with running(colours) as (_, port):
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read(client: socket.socket) -> tuple[int, bytes]:
    """The status and the body of the answer, until the server closes the connection; 0 if there is none."""
    answer = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65_536):
            answer += piece
    client.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def asked(port: int, content: bytes) -> tuple[int, bytes]:
    client = connect(port)
    client.sendall(content)
    return read(client)


def code(body: bytes) -> str:
    told: str = json.loads(body)["error"]["code"]
    return told


def test_a_request_over_a_socket(port: int) -> None:
    status, body = asked(port, WHOLE)
    assert status == 200 and len(json.loads(body)["hits"]) == 1


@pytest.mark.parametrize(
    ("content", "status", "word"),
    [
        (b"no HTTP\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),  # without a Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 431, "too_large"),
        (POST.replace(b"Content-Length: 99", b"Transfer-Encoding: gzip"), 400, "bad_request"),
        (b"GET / HTTP/1.0\r\n\r\n", 421, "misdirected"),
    ],
)
def test_what_is_no_request(port: int, content: bytes, status: int, word: str) -> None:
    client = connect(port)
    client.sendall(content)
    found, body = read(client)
    assert (found, code(body)) == (status, word)


def test_slow_and_silent_clients(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 3.0)  # a whole search takes less
    monkeypatch.setattr(bodies, "_STALL_S", 3.0)
    began = time.monotonic()
    silent, slow, halved = connect(port), connect(port), connect(port)
    slow.sendall(WHOLE[:20])
    halved.sendall(POST + b"{")
    second = connect(port)  # the second request of a connection is slow
    second.sendall(WHOLE.replace(b"close", b"keep-alive"))
    while b"hits" not in second.recv(65_536):
        pass
    second.sendall(WHOLE[:20])
    with suppress(OSError):  # the server may have closed it
        for _ in range(3):
            time.sleep(0.25)
            slow.sendall(b"x")  # a byte now and then helps nobody
    assert asked(port, WHOLE)[0] == 200  # the others are answered meanwhile
    assert read(silent) == (0, b"")
    for client in (slow, halved, second):
        status, body = read(client)
        assert (status, code(body)) == (408, "too_slow")
    assert time.monotonic() - began < 20


@pytest.fixture
def large(colours: Server) -> Iterator[str]:
    """The id of a picture whose file is larger than all buffers of a connection."""
    path = colours.photos / "large.png"
    Image.effect_noise((4000, 4000), 100).convert("RGB").save(path, compress_level=0)  # 48 MB
    colours.engine.colours.index([colours.photos])
    [hit] = colours.client.post("/search", json={"text": "red", "under": [str(path)]}).json()["hits"]
    yield hit["id"]
    path.unlink()
    colours.engine.colours.index([colours.photos])


@contextmanager
def reading(port: int, id: str) -> Iterator[socket.socket]:
    """A client that has read the begin of a picture."""
    with connect(port) as client:
        client.sendall(f"GET /images/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        yield client


def test_client_that_reads_no_answer(port: int, large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_S", 1.0)
    got = 0
    with reading(port, large) as client, suppress(ConnectionResetError):
        time.sleep(3)
        while piece := client.recv(1_000_000):
            got += len(piece)
    assert got < 48_000_000


def test_too_many_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 3)
    kept = []
    for _ in range(3):
        kept.append(connect(port))
        kept[-1].sendall(WHOLE[:5])
    status, body = read(connect(port))  # connections are accepted in the order in which they were made
    assert (status, code(body)) == (503, "busy")
    kept.pop().close()
    until, status = time.monotonic() + 10, 0
    while status != 200 and time.monotonic() < until:  # the server has to notice the end first
        time.sleep(0.05)
        with suppress(OSError):
            status, _ = asked(port, WHOLE)
    assert status == 200
    for one in kept:
        one.close()


def test_client_that_goes_ends_its_search(colours: Server, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def pages(*_: object, on_progress: object, **__: object) -> Iterator[object]:
        begun.set()
        try:
            while True:
                time.sleep(0.02)
                on_progress(1, 2)  # type: ignore[operator]
        finally:
            ended.set()
        yield

    monkeypatch.setattr(colours.engine, "pages", pages)
    client = connect(port)
    client.sendall(WHOLE)
    assert begun.wait(10)
    client.close()
    assert ended.wait(10)


def test_end_completes_what_runs(colours: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    go, begun = threading.Event(), threading.Event()
    pages = FakeEngine.pages

    def waiting(self: FakeEngine, *given: object, **options: object) -> object:
        begun.set()
        assert go.wait(10)
        return pages(self, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeEngine, "pages", waiting)
    with running(colours) as (server, port):
        client = connect(port)
        client.sendall(WHOLE.replace(b"close", b"keep-alive"))
        assert begun.wait(10)
        closing = threading.Thread(target=server.close)
        closing.start()
        time.sleep(0.3)
        go.set()
        status, body = read(client)
        assert status == 200 and json.loads(body)["hits"]
        closing.join(10)
        assert not closing.is_alive()
        with pytest.raises(ConnectionRefusedError):
            connect(port)


def test_end_completes_pictures(colours: Server, large: str) -> None:
    with running(colours, 20) as (server, port), reading(port, large) as client:
        server.drain()
        until = time.monotonic() + 10
        with suppress(ConnectionRefusedError):
            while time.monotonic() < until:
                connect(port).close()
                time.sleep(0.05)
        time.sleep(5.5)  # for the old limit
        answer = b"".join(iter(lambda: client.recv(1_000_000), b""))
        assert hashlib.sha256(answer.partition(b"\r\n\r\n")[2]).hexdigest() == large
        server.close()
        assert time.monotonic() < until + 15


def test_end_cancels_what_takes_too_long(
    colours: Server, large: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go, begun = threading.Event(), threading.Event()

    def waiting(*_: object, **__: object) -> Iterator[object]:
        begun.set()
        assert go.wait(20)
        yield None

    monkeypatch.setattr(colours.engine, "pages", waiting)
    with running(colours, 1) as (server, port), reading(port, large) as client, connect(port) as searching:
        searching.sendall(WHOLE)
        assert begun.wait(10)
        server.close()
        status, body = read(searching)
        assert (status, code(body)) == (503, "draining")
        with suppress(ConnectionResetError):
            assert len(b"".join(iter(lambda: client.recv(1_000_000), b""))) < 48_000_000
    go.set()
    assert colours.queue.wait(10)
    assert not [record for record in caplog.records if record.exc_info], caplog.text


def test_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    first, url = bind(Config(port=0))
    port = first.getsockname()[1]
    assert url == f"http://127.0.0.1:{port}"
    with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 cannot be had: .*--port"):
        bind(Config(port=port))
    monkeypatch.setattr("bridgetower.serving.http.config.DEFAULT_PORT", port)
    second, _ = bind(Config())
    assert port < second.getsockname()[1] < port + 20
    for one in (first, second):
        one.close()
    with pytest.raises(UsageError, match=r"no\.such\.host\.invalid: no machine"):
        bind(Config("no.such.host.invalid", token="a" * 16))
    with pytest.raises(UsageError, match="cannot be had"):
        bind(Config("192.0.2.1", port=0, token="a" * 16))  # an address for documentation
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("0.0.0.0", 0))])
    with pytest.raises(UsageError, match="give a token"):
        bind(Config("localhost"))
