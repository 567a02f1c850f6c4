"""`make test-serve`: ask a real server thousands of generated, damaged and slow requests; it has to withstand them.

The server is a process over an index of examples/gallery. schemathesis generates requests from the document of the
server, half of them invalid, and checks each answer against it; `fuzz_hooks.py` makes the valid ones reach the model.
Ends with 1 if an answer is wrong, or too few were asked.
"""

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "examples" / "gallery"
BT = (sys.executable, "-m", "bridgetower_cli")

LEAST_REQUESTS = 5_000  # of schemathesis
# Two processes, as generating requests takes more time than answering them.
GROUPS = (
    ("search", "search_by_url", "fill", "thumbnail", "thumbnail_head", "rerank_v1", "models"),
    (
        "image",
        "image_head",
        "reveal",
        "folders",
        "match",
        "healthz",
        "status",
        "metrics",
        "rerank_v2",
        "rerank",
        "score_v1",
        "score",
        "embeddings",
        "model",
    ),
)
FOREIGN = ("rerank_v1", "rerank_v2", "rerank", "score_v1", "score", "embeddings", "models", "model")
# Some requests of each have to be answered with 200; "cursor" are those that ask for a next page.
ANSWERED = ("search", "search_by_url", "match", "fill", "image", "thumbnail", "folders", *FOREIGN, "cursor")
ALSO_ANSWERED = ("image 206", "image 416", "image_head 200", "thumbnail_head 200", "reveal 204")

REFUSALS = (413, 415, 422)  # of a picture that is damaged
ROUTES: tuple[tuple[str, dict[str, Any]], ...] = (("/search", {"depth": 0}), ("/match", {"texts": ["a cat"]}))
FOREIGN_ROUTES: tuple[tuple[str, dict[str, Any], str], ...] = (  # and the field of the pictures
    ("/v1/rerank", {"query": "a cat"}, "documents"),
    ("/score", {"text_1": "a cat"}, "text_2"),
    ("/v1/embeddings", {}, "input"),
)
FLIPS, CUTS = 4, 5  # for each format

SLOW = 80  # clients of each kind but the last
LATE = SLOW - 4  # of these that must be told so; some may find the connection reset before they read the answer
UNREAD = 10  # clients that never read; loopback takes megabytes of answers before one of them waits
PIPELINED = 150  # requests of each
SLOW_S = 135  # the limits are 10 s for a head, 120 s for a body, 30 s for an answer that nobody reads


class Server(NamedTuple):
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    log: Path
    port: int

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> str:
        """Return the memory of the process, now and at most."""
        with suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            now, most = (int(re.search(rf"{name}:\s*(\d+)", status)[1]) // 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
            return f"{now} MB, at most {most} MB"
        return "not known"

    def search(self) -> float:
        """Return the seconds that a search takes, which has to find pictures."""
        began = time.perf_counter()
        status, body = self.ask("GET", "/search?text=two+cats&top=3&depth=3")
        require(status == 200 and len(json.loads(body)["hits"]) == 3, f"a search was answered with {status}: {body!r}")
        return time.perf_counter() - began


def require(holds: bool, message: str) -> None:
    """End with 1 unless something holds."""
    if not holds:
        raise SystemExit(f"FAILED: {message}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            (folder / variable).mkdir(mode=0o700)
            os.environ[variable] = str(folder / variable)
        server = start(folder)
        try:
            server.search()
            print(f"memory of the server: {server.memory()}")
            began = time.perf_counter()
            with ThreadPoolExecutor() as threads:  # the slow clients mostly wait
                for part in (threads.submit(slow, server), threads.submit(generated, server, folder)):
                    part.result()
            damaged(server)
            print(f"{time.perf_counter() - began:.0f} s; memory of the server: {server.memory()}")
            server.search()
            stop(server)
        finally:
            server.process.kill()
            server.process.wait()


def start(folder: Path) -> Server:
    index, log = folder / "index", folder / "log"
    environment = {**os.environ, "PATH": os.pathsep.join([str(_desktop(folder)), os.environ["PATH"]]), "DISPLAY": ":0"}
    subprocess.run([*BT, "index", GALLERY, "--model", "demo", "--index", index], check=True, stderr=subprocess.DEVNULL)
    with open(log, "wb") as stderr:
        process = subprocess.Popen([*BT, "serve", "--port", "0", "--index", index], stderr=stderr, env=environment)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        require(process.poll() is None, f"the server ended: {log.read_text('utf-8')}")
        told = subprocess.run([*BT, "status", "--json", "--index", index], check=True, capture_output=True)
        if running := json.loads(told.stdout)["server"]:
            return Server(process, index, log, int(running["url"].rpartition(":")[2]))
    process.kill()
    raise SystemExit("FAILED: the server does not answer")


def _desktop(folder: Path) -> Path:
    """Return a folder of programs that take the place of those that open folders, and open none."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("xdg-open", "open"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o700)
    return programs


def stop(server: Server) -> None:
    subprocess.run([*BT, "serve", "--stop", "--index", server.directory], check=True)
    require(server.process.wait(10) == 0, f"the server ended with {server.process.returncode}")
    log = server.log.read_text("utf-8")
    require("Traceback" not in log and "a defect" not in log, f"the log of the server tells of a defect:\n{log}")


# Generated requests


def generated(server: Server, folder: Path) -> None:
    """Let schemathesis ask."""
    files = sorted(GALLERY.glob("*.jpg"))
    data = {
        "ids": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files[:20]],
        "files": [str(file) for file in files[:4]],
        "folder": str(GALLERY),
    }
    (folder / "data").write_text(json.dumps(data), "utf-8")
    counts: Counter[str] = Counter()
    runs = [(folder / f"answers {place}", _schemathesis(server, folder, place)) for place in range(len(GROUPS))]
    said = [run.communicate()[0].decode(errors="replace") for _, run in runs]
    for (answers, run), words in zip(runs, said, strict=True):
        require(run.returncode == 0, f"schemathesis ended with {run.returncode}:\n{words}")
        counts.update(json.loads(answers.read_text("utf-8")))
    statuses: Counter[str] = Counter()
    for answer, times in counts.items():
        name, status = answer.split()
        if name != "cursor":  # counted as a search, too
            statuses[status] += times
    print(
        f"{statuses.total()} requests: "
        + ", ".join(f"{times} x {status}" for status, times in sorted(statuses.items()))
    )
    require(statuses.total() >= LEAST_REQUESTS, f"fewer than {LEAST_REQUESTS} requests")
    require(not any(status.startswith("5") for status in statuses), "an answer of 500 or more")
    for name in ANSWERED:
        require(counts[f"{name} 200"] > 0, f"no request of {name} was answered with 200")
        print(f"  {name}: {counts[f'{name} 200']} x 200")
    for answer in ALSO_ANSWERED:
        require(counts[answer] > 0, f"no answer: {answer}")
        print(f"  {answer}: {counts[answer]}")


def _schemathesis(server: Server, folder: Path, place: int) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "FUZZ_ANSWERS": str(folder / f"answers {place}"),
        "FUZZ_DATA": str(folder / "data"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SCHEMATHESIS_HOOKS": "tests.serving.fuzz_hooks",
    }
    config = Path(__file__).with_name("schemathesis.toml")
    command: list[str | Path] = [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run"]
    command += [part for name in GROUPS[place] for part in ("--include-operation-id", name)]
    return subprocess.Popen(
        [*command, f"http://127.0.0.1:{server.port}/openapi.json"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


# Damaged pictures


def damaged(server: Server) -> None:
    """Upload damaged pictures in each form, to each route that takes any."""
    statuses: Counter[int] = Counter()
    for name, content in _damaged_files():
        url = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        for path, fields in ROUTES:
            as_json = json.dumps({**fields, "images": [{"data": url}]}).encode()
            form = b"".join(
                f'--B\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'.encode()
                + str(value[0] if isinstance(value, list) else value).encode()
                + b"\r\n"
                for field, value in fields.items()
            )
            form += (
                b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
                + content
                + b"\r\n--B--\r\n"
            )
            for body, kind in ((as_json, "application/json"), (form, "multipart/form-data; boundary=B")):
                status, answer = server.ask("POST", path, body, kind)
                require(status in (200, *REFUSALS), f"{name} to {path} as {kind}: {status}: {answer!r}")
                statuses[status] += 1
        for path, fields, field in FOREIGN_ROUTES:
            status, answer = server.ask("POST", path, json.dumps({**fields, field: [url]}).encode(), "application/json")
            require(status in (200, *REFUSALS), f"{name} to {path}: {status}: {answer!r}")
            statuses[status] += 1
        server.search()
    print(
        f"{statuses.total()} damaged pictures: "
        + ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items()))
    )
    require(all(statuses[status] for status in (413, 422)), "no picture was refused for its pixels, or for its damage")


def _damaged_files() -> Iterator[tuple[str, bytes]]:
    random = Random(1)
    picture = Image.effect_mandelbrot((120, 90), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        file = BytesIO()
        picture.save(file, kind)
        whole = file.getvalue()
        for cut in (1, 12, *(len(whole) * part // CUTS for part in range(1, CUTS)), len(whole) - 1):
            yield f"{kind} of {cut} bytes", whole[:cut]
        for most in (1, 10, 100, len(whole) // 10)[:FLIPS]:
            flipped = bytearray(whole)
            for _ in range(most):
                flipped[random.randrange(len(flipped))] ^= random.randrange(1, 256)
            yield f"{kind} with {most} bytes flipped", bytes(flipped)
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.jpg", b"\xff\xd8\xff")
    yield "a zip", archive.getvalue()
    yield "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "an empty file", b""
    yield "text", b"no picture at all"
    yield "noise", random.randbytes(10_000)
    yield "a PNG of a huge size", _png(2**31 - 1, 2**31 - 1, b"")
    yield "a PNG over the limit of pixels", _png(40_000, 40_000, b"\0" * 50_000_000)


def _png(width: int, height: int, rows: bytes) -> bytes:
    """Return a PNG of one bit a pixel."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    chunks = ((b"IHDR", size + b"\1\0\0\0\0"), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )


# Slow clients


def slow(server: Server) -> None:
    """Hold connections with heads and bodies that come a byte a second, and with answers that nobody reads."""
    host = f"Host: 127.0.0.1:{server.port}\r\n"
    body = f"POST /match HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    unread = f"GET /openapi.json HTTP/1.1\r\n{host}\r\n" * PIPELINED
    heads = [_connected(server, b"") for _ in range(SLOW)]
    bodies = [_connected(server, body.encode()) for _ in range(SLOW)]
    readers = [_connected(server, unread.encode()) for _ in range(UNREAD)]
    ended = threading.Event()
    seconds: list[float] = []
    searching = threading.Thread(target=_search_until, args=(server, ended, seconds))
    searching.start()
    began = time.monotonic()
    answers: dict[socket.socket, bytes] = {}
    while time.monotonic() - began < SLOW_S:
        time.sleep(1)
        for sent, clients in ((b"G", heads), (b" ", bodies)):
            for client in clients:
                if client not in answers and (answer := _step(client, sent)) is not None:
                    answers[client] = answer
    ended.set()
    searching.join()
    require(bool(seconds), "no search was answered among slow clients")
    for name, clients in (("heads", heads), ("bodies", bodies)):
        open_ones = sum(client not in answers for client in clients)
        late = sum(answers.get(client, b"").startswith(b"HTTP/1.1 408 ") for client in clients)
        print(f"{len(clients)} slow {name}: {late} x 408")
        require(not open_ones, f"{open_ones} of {len(clients)} slow {name} are still open after {SLOW_S} s")
        require(late >= LATE, f"fewer than {LATE} of {len(clients)} slow {name} were answered with 408")
    held = sum(not _is_closed(client) for client in readers)
    require(not held, f"{held} of {UNREAD} clients that do not read are still open after {SLOW_S} s")
    print(f"{len(seconds)} searches meanwhile: median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s")
    for client in (*heads, *bodies, *readers):
        client.close()


def _search_until(server: Server, ended: threading.Event, seconds: list[float]) -> None:
    while not ended.wait(0.2):
        seconds.append(server.search())


def _connected(server: Server, sent: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little fits that nobody reads
    client.connect(("127.0.0.1", server.port))
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.send(sent)
    return client


def _step(client: socket.socket, sent: bytes) -> bytes | None:
    """Send some bytes unless there is an answer; return that, or nothing where the connection has been closed."""
    try:
        with suppress(BlockingIOError):
            return client.recv(4096)
        with suppress(BlockingIOError):
            client.send(sent)
    except OSError:
        return b""
    return None


def _is_closed(client: socket.socket) -> bool:
    """Return whether the server has ended a connection: what it has sent is read, and then there is an end."""
    client.settimeout(1)
    try:
        while client.recv(1_000_000):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


if __name__ == "__main__":
    main()
