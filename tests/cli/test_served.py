"""A server as a process: its start, its end, what it sees, and commands that do the work themselves when they lose it.

That the answers are the same is the subject of `test_served_answers.py` and `test_served_whole.py`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner, Result

from bridgetower import Library
from bridgetower.errors import ResourceError
from bridgetower.serving import process as process_module
from bridgetower.serving.http import server as server_module
from bridgetower.serving.local import channel, listener
from bridgetower_cli.commands import serve
from bridgetower_cli.parser import app
from tests.servers import start
from tests.tiny import tiny_checkpoint

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
PICTURES = (
    "two-cats-on-a-couch-in-the-desert",
    "four-cats-on-a-couch-by-the-sea",
)

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with pictures, an index of them, and a runtime folder for the socket; it is the current folder."""
    place = tmp_path_factory.mktemp("served")
    (place / "photos").mkdir()
    for path in [*(GALLERY / f"{name}.jpg" for name in PICTURES), *sorted(GALLERY.glob("*.jpg"))[:8]]:
        shutil.copy(path, place / "photos")
    (place / "run").mkdir(mode=0o700)
    before, here = dict(os.environ), os.getcwd()
    os.environ |= {"XDG_RUNTIME_DIR": str(place / "run"), "BT_MODEL": "demo", "XDG_STATE_HOME": str(place / "state")}
    os.environ |= {"BT_PRECISION": "fp32", "BT_INDEX": str(place / "index")}
    os.chdir(place)
    with Library(place / "index", "demo", precision="fp32") as library:
        library.index([place / "photos"])
    yield place
    os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def server(place: Path) -> "Iterator[subprocess.Popen[str]]":
    process = start(place / "index")
    yield process
    if process.returncode is None:
        process.kill()
        process.communicate()


def bt(*arguments: str, input: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=input, prog_name="bt")


CATS = f"photos/{PICTURES[0]}.jpg"


def test_it_is_the_server_that_answers(server: "subprocess.Popen[str]") -> None:
    for command in (["search", "cats", "--depth", "1"], ["fill", "a <mask>", "--image", CATS]):
        assert f"served by bt serve, process {server.pid}" in bt(*command, "-v").stderr
    assert "no server: --no-server" in bt("search", "cats", "--no-rerank", "-v", "--no-server").stderr
    assert f"process {server.pid}, awake" in bt("status").stdout
    assert "it serves precision fp32, not bf16" in bt("search", "a", "--no-rerank", "-v", "--precision", "bf16").stderr


def test_it_sees_what_is_indexed_without_a_restart(server: "subprocess.Popen[str]", place: Path) -> None:
    name = sorted(GALLERY.glob("*.jpg"))[20]
    shutil.copy(name, place / "photos")
    with Library(place / "index", "demo", precision="fp32") as library:
        library.index([place / "photos"])
    assert name.name in bt("search", "a", "--no-rerank", "--top", "50", "--paths", "-v").stdout


def test_two_servers_of_one_index_are_refused(server: "subprocess.Popen[str]") -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bridgetower_cli", "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert f"process {server.pid} serves it already" in done.stderr


def test_a_server_that_is_stopped_or_killed_is_done_without(place: Path, server: "subprocess.Popen[str]") -> None:
    os.kill(server.pid, signal.SIGSTOP)
    halted = bt("search", "cats", "--no-rerank", "-v")
    os.kill(server.pid, signal.SIGCONT)
    assert halted.exit_code == 0 and "no server: no answer in 1 s" in halted.stderr
    server.kill()
    server.communicate()
    lost = bt("search", "cats", "--no-rerank", "-v")
    assert lost.exit_code == 0 and "no server: none is running for this index" in lost.stderr
    assert lost.stdout == halted.stdout
    other = start(place / "index")
    other.send_signal(signal.SIGTERM)
    other.communicate(timeout=60)
    assert other.returncode == 0
    assert "no server" in bt("search", "cats", "--no-rerank", "-v").stderr


def test_a_server_in_the_background_is_started_and_stopped(place: Path) -> None:
    begun = bt("serve", "--background")
    assert begun.exit_code == 0 and "serves" in begun.stderr
    assert "already" in bt("serve", "--background").stderr
    ended = bt("serve", "--stop")
    assert ended.exit_code == 0 and "has ended" in ended.stderr
    assert "nothing to stop" in bt("serve", "--stop").stderr


def test_a_server_is_waited_for_as_long_as_it_may_take_to_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By a clock that sleeping alone moves."""
    answers_s = 2 * server_module.LAST_S + listener.ALIVE_S + channel.LAST_S
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(serve, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(serve, "stop_server", lambda index: SimpleNamespace(pid=7))
    monkeypatch.setattr(serve, "_is_running", lambda process: now < process_module.DRAIN_S + answers_s)
    serve._stop(tmp_path)
    assert "process 7 has ended" in capsys.readouterr().err
    monkeypatch.setattr(serve, "_is_running", lambda process: True)
    with pytest.raises(ResourceError, match="process 7 has not ended after 90 s"):
        serve._stop(tmp_path)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        pytest.param(
            ["--device", "cuda"],
            2,
            "device cuda: this machine, or this build of PyTorch, has none",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--device", "mps", "--precision", "int8"], 2, " mps"),
        (["--model", "deom"], 4, "deom: no such folder, and no repository id either"),
        (["--model", "/gone"], 4, "/gone: no such folder, and no repository id either"),
        (["--model", "other"], 5, "whose vectors cannot be compared with those of "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_server_that_could_answer_no_search_is_refused(options: list[str], code: int, told: str, place: Path) -> None:
    tiny_checkpoint(place / "other")
    before = bt("search", "cats", "--no-server", *options)
    done = bt("serve", "--background", *options)
    assert (done.exit_code, done.stdout) == (code, "") and done.exit_code == before.exit_code
    assert done.stderr.startswith("error: the server ended at once: ") and told in done.stderr
    assert done.stderr.count("\n") == 1 and told in before.stderr
    assert "none is running for this index" in bt("search", "cats", "--no-rerank", "-v").stderr


def test_a_server_whose_model_is_to_be_fetched_starts_and_says_what_it_lacks(place: Path) -> None:
    done = bt("serve", "--background", "--model", "nobody/nothing")
    assert done.exit_code == 0
    log = Path(done.stderr.split()[-1])
    until = time.monotonic() + 30
    while "the model is not ready: nobody/nothing is not on this machine" not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    assert "has ended" in bt("serve", "--stop").stderr


def test_a_server_without_an_index_is_refused(tmp_path: Path) -> None:
    done = bt("serve", "--index", str(tmp_path / "none"), "--background")
    assert done.exit_code == 5 and "no index at" in done.stderr
