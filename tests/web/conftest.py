"""A browser, an album, a server of it, and a page that is watched for faults and for requests to elsewhere."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.web.large import GALLERY

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
START_S = 90
DATED = 4  # pictures of May 2024, one a day
COPIES = 3  # files of the first picture of cats


class WebServer:
    """`bt serve` in a process, which can be ended and started again at the same address."""

    def __init__(self, index: Path, home: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.index, self._options = index, options
        self._environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", **(environment or {})}
        for name in ("DATA", "CACHE", "CONFIG"):
            self._environment[f"XDG_{name}_HOME"] = str(home / name.lower())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "bridgetower_cli", "serve", "--model", "demo", "--quiet"]
        command += ["--index", str(self.index), "--port", str(self._port), *self._options]
        self._process = subprocess.Popen(command, env=self._environment)
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self._process.poll() is None
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
            except URLError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def write_index(index: Path, home: Path, *places: Path) -> None:
    """Index these places with the demo model."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "bridgetower_cli", "index", *map(str, places)]
    command += ["--model", "demo", "--index", str(index)]
    environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn pictures in two folders; some have a date, one has copies."""
    album = tmp_path_factory.mktemp("album")
    for folder in ("cats", "others"):
        (album / folder).mkdir()
    for picture in sorted(GALLERY.glob("*.jpg")):
        shutil.copy(picture, album / ("cats" if "cat-" in picture.name or "cats-" in picture.name else "others"))
    cats = sorted((album / "cats").iterdir())
    for number in range(1, COPIES):
        shutil.copy(cats[0], album / "cats" / f"copy-{number}.jpg")
    for day, path in enumerate(cats[1 : 1 + DATED], 1):
        with Image.open(path) as image:
            exif = image.getexif()
            exif.get_ifd(0x8769)[0x9003] = f"2024:05:{day:02} 12:30:00"
            image.save(path, quality=95, exif=exif)
    return album


@pytest.fixture(scope="session")
def index(album: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("index") / "index"
    write_index(index, home, album / "cats", album / "others")
    return index


MakeServer = Callable[..., WebServer]


@pytest.fixture(scope="session")
def make_server(index: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """Start a further server, of a copy of the index, as one process alone serves an index."""
    servers = []

    def make(*options: str, of: Path = index, environment: dict[str, str] | None = None) -> WebServer:
        copy = tmp_path_factory.mktemp("copy") / "index"
        shutil.copytree(of, copy)
        servers.append(server := WebServer(copy, home, *options, environment=environment))
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(make_server: MakeServer) -> WebServer:
    return make_server()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is missing: install chromium, or name it in CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@dataclass
class Watched:
    """The requests and messages of the pages during a test."""

    faults: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    may_be_refused: bool = False  # a browser writes each answer with 4xx or 5xx to its console

    def hear(self, message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource") and self.may_be_refused
        if message.type in ("error", "warning") and not refused:
            self.faults.append(message.text)


Visit = Callable[..., Page]


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    assert watched.faults == []
    assert watched.elsewhere == []
    assert watched.requests


@pytest.fixture
def visit(browser: Browser, server: WebServer, watched: Watched) -> Iterator[Visit]:
    """Open the page in a context of its own: `visit(path, server, **options of the context)`."""
    contexts: list[BrowserContext] = []

    def open_page(path: str = "/", at: WebServer = server, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        context.set_default_timeout(30_000)

        def asked(request: Request) -> None:
            watched.requests.append(request)
            if not request.url.startswith((f"{at.url}/", "blob:", "data:")):
                watched.elsewhere.append(request.url)

        context.on("request", asked)
        page = context.new_page()
        page.on("console", watched.hear)
        page.on("pageerror", lambda error: watched.faults.append(str(error)))
        page.goto(f"{at.url}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
