"""`bt serve` answers HTTP: where, to whom, as the commands do, and until it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from typer.testing import CliRunner, Result

from bridgetower import Library, SearchRequest
from bridgetower_cli.commands.serve import Http
from bridgetower_cli.parser import app

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
TOKEN = "a-token-of-the-tests"

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an index of pictures, and folders of its own for sockets, logs and thumbnails."""
    place = tmp_path_factory.mktemp("http")
    (place / "photos").mkdir()
    for path in sorted(GALLERY.glob("*.jpg"))[:6]:
        shutil.copy(path, place / "photos")
    (place / "run").mkdir(mode=0o700)
    (place / "token").write_text(TOKEN + "\n")
    (place / "token").chmod(0o600)
    before, here = dict(os.environ), os.getcwd()
    os.environ |= {"XDG_RUNTIME_DIR": str(place / "run"), "BT_MODEL": "demo", "XDG_STATE_HOME": str(place / "state")}
    os.environ |= {"BT_PRECISION": "fp32", "BT_INDEX": str(place / "index"), "XDG_CACHE_HOME": str(place / "cache")}
    os.chdir(place)
    with Library(place / "index", "demo", precision="fp32") as library:
        library.index([place / "photos"])
    yield place
    os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def serving(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server and its URL."""
    command = [sys.executable, "-P", "-m", "bridgetower_cli", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r" at (http://\S+);", line)
            assert found, line
            yield process, found[1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url(place: Path) -> Iterator[str]:
    with serving("--token-file", "token", "--allow-host", "photos.example") as (_, url):
        yield url


def get(url: str, token: str | None = TOKEN, **headers: str) -> Any:
    """The JSON of an answer. Raises HTTPError."""
    bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers={**bearer, **headers}), timeout=120) as answer:
        return json.load(answer)


def status_of(url: str, token: str | None = TOKEN, **headers: str) -> int:
    try:
        get(url, token, **headers)
    except HTTPError as error:
        error.close()
        return error.code
    return 200


def bt(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="bt")


def test_same_answer_as_the_command(place: Path, url: str) -> None:
    """The command rounds to six digits; the library gives every bit."""
    hits = get(f"{url}/search?text=two+cats&depth=4&top=6")["hits"]
    command = bt("search", "two cats", "--json", "--no-server", "--depth", "4", "--top", "6")
    told = [json.loads(line) for line in command.stdout.splitlines()]
    with Library(place / "index", precision="fp32") as library:
        found = library.search(SearchRequest("two cats", depth=4, top=6)).hits
    assert [hit["path"] for hit in hits] == [hit["path"] for hit in told] == [str(hit.path) for hit in found]
    for name in ("match", "similarity"):
        assert [hit[name] for hit in hits] == [getattr(hit, name) for hit in found]
        rounded = [None if hit[name] is None else float(f"{hit[name]:.6g}") for hit in hits]
        assert rounded == [hit[name] for hit in told]


def test_who_may_ask(url: str) -> None:
    assert status_of(f"{url}/search?text=cats", None) == 401
    assert status_of(f"{url}/search?text=cats", TOKEN + "x") == 401
    assert status_of(f"{url}/healthz", None) == 200
    assert status_of(f"{url}/status", Host="evil.example") == 421
    assert status_of(f"{url}/status", Host="photos.example") == 200
    assert status_of(f"{url}/status", Origin="https://evil.example") == 403


def test_commands_know_where_it_listens(url: str) -> None:
    assert json.loads(bt("status", "--json").stdout)["server"]["url"] == url
    assert f"at {url}" in bt("status").stdout
    again = bt("serve", "--background")
    assert again.exit_code == 0 and f"already at {url}" in again.stderr
    other = bt("serve", "--background", "--port", "1")
    assert other.exit_code == 2 and f"already at {url}: `bt serve --stop` ends it" in other.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, "can be reached from other machines: give a token"),
        (["--token-file", "none"], 6, "none: the token cannot be read: No such file"),
        (["--token-file", "photos"], 6, "photos: the token cannot be read"),
        (["--token-file", "short"], 6, "short: this is no token, which is 16 to 512"),
        (["--token-file", "strange"], 6, "signs beyond ASCII"),
        (["--allow-host", "http://a"], 2, "name of a server"),
        (["--allow-origin", "*"], 2, "an origin is wanted"),
        (["--port", "65536"], 2, "65536"),
    ],
)
@pytest.mark.parametrize("background", [False, True])
def test_unsafe_options(place: Path, options: list[str], code: int, words: str, background: bool) -> None:
    (place / "short").write_text("short")
    (place / "strange").write_bytes(b"\xff" * 20)
    result = bt("serve", *options, *(["--background"] if background else []))
    assert result.exit_code == code and words in result.stderr
    assert TOKEN not in result.stderr and "Traceback" not in result.stderr


def test_stop_takes_no_address(place: Path) -> None:
    result = bt("serve", "--stop", "--port", "1")
    assert result.exit_code == 2 and "give it without an address" in result.stderr


def test_token_that_others_can_read_is_noted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "open").write_text(TOKEN)
    (place / "open").chmod(0o644)
    config = Http(token_file=place / "open").config()
    assert config is not None and config.token == TOKEN
    told = capsys.readouterr().err
    assert "chmod 600" in told and TOKEN not in told


def test_without_the_extra(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bridgetower.serving.http.config.MODULES", ("no_such_module",))
    for options in (["--port", "1"], ["--host", "127.0.0.1"], ["--token-file", "token"]):
        result = bt("serve", *options)
        assert result.exit_code == 2
        assert re.search(r"HTTP needs the extra serve: .*pip install .*\[serve\]", result.stderr)
    assert Http().config() is None
    assert "only commands are answered: HTTP needs the extra serve" in capsys.readouterr().err


def test_background_and_end(place: Path) -> None:
    index = ["--index", "other"]
    assert bt("index", "photos", *index).exit_code == 0
    started = bt("serve", "--background", "--port", "0", "--idle", "0.5s", *index)
    found = re.search(r"process (\d+) serves \S+other at (http://\S+); it writes to (\S+)", started.stderr)
    assert started.exit_code == 0 and found, started.stderr
    url = found[2]
    assert get(f"{url}/search?text=a-secret-text", None)["hits"]
    until = time.monotonic() + 20
    while get(f"{url}/status", None)["awake"] and time.monotonic() < until:
        time.sleep(0.1)
    assert not get(f"{url}/status", None)["awake"] and get(f"{url}/healthz", None) == {"status": "ok"}
    assert get(f"{url}/search?text=cats", None)["hits"]  # it wakes
    assert bt("serve", "--stop", *index).exit_code == 0
    with pytest.raises(URLError):
        get(f"{url}/healthz", None)
    assert "secret" not in Path(found[3]).read_text()


def test_port_that_is_taken(url: str) -> None:
    port = url.rpartition(":")[2]
    assert bt("index", "photos", "--index", "third").exit_code == 0
    result = bt("serve", "--index", "third", "--port", port)
    assert result.exit_code == 2
    assert f"port {port} of 127.0.0.1 cannot be had: address already in use; --port takes" in result.stderr


def test_a_server_that_does_not_answer_is_named(place: Path) -> None:
    assert bt("index", "photos", "--index", "fifth").exit_code == 0
    with serving("--index", "fifth") as (process, _):
        process.send_signal(signal.SIGSTOP)
        result = bt("serve", "--stop", "--index", "fifth")
        assert result.exit_code == 71 and f"process {process.pid} serves" in result.stderr
        assert f"`kill -9 {process.pid}`" in result.stderr
    assert "nothing to stop" in bt("serve", "--stop", "--index", "fifth").stderr


def test_a_log_goes_on(place: Path) -> None:
    assert bt("index", "photos", "--index", "sixth").exit_code == 0
    with serving("--index", "sixth") as (process, _):
        process.send_signal(signal.SIGSTOP)
        failed = bt("serve", "--background", "--index", "sixth")
        assert failed.exit_code == 5 and f"process {process.pid} serves it already" in failed.stderr
        process.send_signal(signal.SIGCONT)
    started = bt("serve", "--background", "--port", "0", "--index", "sixth")
    found = re.search(r"it writes to (\S+)", started.stderr)
    assert found, started.stderr
    assert bt("serve", "--stop", "--index", "sixth").exit_code == 0
    log = Path(found[1]).read_text()
    assert "serves it already" in log and "serving" in log


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it(place: Path, by: signal.Signals) -> None:
    index = f"signal-{by}"
    assert bt("index", "photos", "--index", index).exit_code == 0
    with serving("--index", index) as (process, url):
        assert get(f"{url}/search?text=cats", None)["hits"]
        process.send_signal(by)
        assert process.wait(20) == 0
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
