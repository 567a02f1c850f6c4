"""Commands that a running server answers say the same, byte for byte, as when they do the work themselves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bridgetower import Library, __version__
from bridgetower.pictures.decode_pool import environment
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.local import client, listener, named_files
from bridgetower.serving.local.listener import Listener
from bridgetower_cli.parser import app
from tests.unit.serving.local_server import URL, runtime_folder, serving

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
CATS = ["two-cats-in-the-snow.jpg", "two-cats-on-a-couch-in-the-desert.jpg", "three-cats-at-night.jpg"]
OTHERS = ["a-bee-above-an-octopus-in-the-forest.jpg", "a-banana-to-the-left-of-a-candle.jpg"]
ODD = os.fsdecode(b"od\xff d.jpg")
LONG = "two cats and a dog " * 60

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix sockets and users")


class Served(NamedTuple):
    """A folder with pictures and their index, and the server of that."""

    folder: Path
    engine: Engine
    listener: Listener


class Said(NamedTuple):
    stdout: bytes
    stderr: str
    code: int
    who: str  # the line that says which process answers


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "photos" / "sub").mkdir(parents=True)
    for name in CATS + OTHERS:
        shutil.copy(GALLERY / name, folder / "photos" / ("sub" if name in OTHERS else "") / name)
    shutil.copy(GALLERY / CATS[2], folder / "photos" / "copy.jpg")
    with Image.open(GALLERY / CATS[0]) as picture:
        picture.reduce(2).save(folder / "photos" / "small.jpg")
    shutil.copy(GALLERY / CATS[1], folder / "photos" / ODD)
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty").mkdir()
    with runtime_folder():
        with Library(folder / "index", "demo") as library:
            library.index([folder / "photos"])
            vector = library.model.embed_texts(["two cats"])[0]
        with Library(folder / "empty-index", "demo") as library:
            library.index([folder / "empty"])
        np.save(folder / "v.npy", vector)
        np.save(folder / "short.npy", vector[:3])
        engine = Engine(Options(folder / "index", default_model="demo"))
        with serving(engine, folder / "index", default_model="demo", defect=raised.append) as running:
            yield Served(folder, engine, running)
        engine.close()
    assert raised == []


raised: list[BaseException] = []  # defects of the server


@pytest.fixture(autouse=True)
def here(served: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the pictures, which is the current one."""
    monkeypatch.chdir(served.folder)
    monkeypatch.setenv("BT_INDEX", str(served.folder / "index"))
    monkeypatch.setenv("BT_MODEL", "demo")
    return served.folder


def bt(*arguments: str, stdin: bytes = b"") -> Said:
    """Run a command with -v; the line of that is apart."""
    done = CliRunner().invoke(app, [*arguments, "-v"], input=stdin, prog_name="bt")
    lines = done.stderr.splitlines(keepends=True)
    who = [line for line in lines if line.startswith(("served by", "no server"))]
    rest = "".join(line for line in lines if line not in who)
    return Said(done.stdout_bytes, rest, done.exit_code, "".join(who).strip())


def both(*arguments: str, stdin: bytes = b"") -> Said:
    """Run a command with and without the server; both must say the same."""
    by_server = bt(*arguments, stdin=stdin)
    alone = bt(*arguments, "--no-server", stdin=stdin)
    assert by_server[:3] == alone[:3]
    assert alone.who in ("no server: --no-server", "")
    return by_server


def npy(numbers: list[float]) -> bytes:
    file = BytesIO()
    np.save(file, np.array(numbers, np.float32))
    return file.getvalue()


ONE, OTHER = f"photos/{CATS[0]}", f"photos/sub/{OTHERS[0]}"
SEARCHES = [
    ["two cats"],
    ["two cats", "--json"],
    ["two cats", "--top", "3", "--depth", "2", "--json"],
    ["two cats", "--no-rerank", "--json"],
    ["two cats", "--unique", "--json"],
    ["two cats", "--paths"],
    ["two cats", "-0"],
    ["two cats", "-q"],
    ["--image", ONE, "--json"],
    ["--image", ONE, "--min-similarity", "0.9"],
    ["--image", ONE, "--min-similarity", "1"],
    ["at night", "--image", ONE, "--image", OTHER, "--json"],
    ["two cats", "--under", "photos/sub"],
    ["two cats", "--under", "./photos/s*", "--json"],
    ["two cats", "--not-under", "*cats*", "--not-under", "photos/copy.jpg", "--json"],
    ["two cats", "--under", "*.png"],
    ["two cats", "--under", "nowhere"],
    ["two cats", "--under", "nowhere", "--json"],
    ["two cats", "--taken", "1999"],
    ["two cats", "--since", "3 days ago", "--budget", "1h", "--top", "2"],
    ["two cats", "--min-match", "0.5"],
    ["two cats", "--min-match", "1", "--json"],
    ["--image", "photos/broken.jpg"],
    ["--image", "gone.jpg", "--json"],
    ["--image", "photos"],
    ["--query-vector", "v.npy", "--json"],
    ["two cats", "--query-vector", "v.npy", "--top", "2"],
    ["--query-vector", "short.npy"],
    ["--query-vector", "gone.npy"],
    ["--query-vector", ONE],
    [
        "two cats",
        "a couch",
        "--image",
        ONE,
        "--weights",
        "1,2,0.5",
        "--not",
        "the desert",
        "--not",
        "at night",
        "--json",
    ],
    ["two cats", "--not", "three cats", "--min-match", "0.01"],
    ["--image", ONE, "--not", "in the snow", "--self"],
    ["two", "cats", "--offset", "1", "--top", "2", "--sort", "path"],
    ["two cats", "--offset", "9"],
    ["two cats", "--not", LONG, "--top", "1"],
    [LONG, "--top", "1"],
    [" two \t cats  ", "--top", "1"],
]


@pytest.mark.parametrize("arguments", SEARCHES, ids=lambda arguments: " ".join(arguments)[:60])
def test_a_search_is_the_same(arguments: list[str], served: Served) -> None:
    said = both("search", *arguments)
    assert said.who == ("" if "-q" in arguments else f"served by bt serve, process {os.getpid()}")


def test_many_queries_are_the_same(served: Served) -> None:
    queries = b'two cats\n{"image": "photos/sub/' + OTHERS[0].encode() + b'", "id": 3}\ntwo bees\n'
    for options in (["--top", "3"], ["--no-rerank"], ["--min-match", "0.5"], ["--under", "photos/sub"]):
        said = both("search", "--texts-from", "-", *options, stdin=queries)
        assert said.who == f"served by bt serve, process {os.getpid()}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [" "],
        ["two cats", "--image", ONE, "--query-vector", "v.npy"],
        ["two cats", "--min-similarity", "0.5"],
        ["two cats", "--weights", "1,2"],
        ["two cats", "--not", "a couch", "--depth", "0"],
        ["two cats", "--no-rerank", "--depth", "3"],
        ["two cats", "--since", "never"],
        ["two cats", "--tpo", "3"],
        ["two cats", "--json", "--paths"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_the_same(arguments: list[str]) -> None:
    said = both("search", *arguments)
    assert said.code == 2 and said.stderr.count("\n") == 1


@pytest.mark.parametrize("vector", [npy([1.0, 2.0]), b"no vector", b""], ids=["short", "odd", "none"])
def test_a_bad_vector_on_stdin_is_the_same(vector: bytes) -> None:
    assert both("search", "--query-vector", "-", stdin=vector).who.startswith("served by")


def test_a_vector_on_stdin_is_the_same(here: Path) -> None:
    said = both("search", "--query-vector", "-", "--json", stdin=(here / "v.npy").read_bytes())
    assert said.code == 0 and said.who.startswith("served by")


@pytest.mark.parametrize(
    "arguments",
    [
        ["two <mask>"],
        ["two <mask> in the <mask>", "--json", "--top", "2"],
        ["two <mask> in the <mask>", "--each", "--depth", "7"],
        ["a <mask>", "--each", "--json"],
        ["two <mask>", "--image", ONE],
        ["two <mask>", "--image", ONE, "--image", OTHER, "--json"],
        ["two <mask>", "--image", "photos/broken.jpg"],
        ["two <mask>", "--image", "gone.jpg", "--json"],
        ["two cats"],
    ],
    ids=" ".join,
)
def test_a_fill_is_the_same(arguments: list[str]) -> None:
    said = both("fill", *arguments)
    assert said.who.startswith("served by") == ("<mask>" in arguments[0] and "gone.jpg" not in arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [ONE, OTHER, "--text", "two cats", "--text", "a bee"],
        [ONE, f"photos/{ODD}", "--text", "two cats", "--json"],
        [ONE, "photos/broken.jpg", "--text", "two cats"],
        ["gone.jpg", "--text", "two cats", "--json"],
        [ONE, "--text", LONG, "--text", LONG, "--json"],
        [ONE, "--text", ""],
        [
            ONE,
            OTHER,
            "--text",
            "two cats",
            "--text",
            "a bee",
            "--text",
            "a car",
            "--top",
            "2",
            "--depth",
            "2",
            "--json",
        ],
    ],
    ids=lambda arguments: ascii(" ".join(arguments))[:60],
)
def test_a_match_is_the_same(arguments: list[str]) -> None:
    told_before = "gone.jpg" in arguments or "" in arguments
    assert both("match", *arguments).who.startswith("served by") != told_before


PATHS = [ONE, "gone.jpg", OTHER, f"./{ONE}", ONE, "photos/broken.jpg", "photos", f"photos/{ODD}", *CATS]


@pytest.mark.parametrize(
    "options", [[], ["--json"], ["-0"], ["--min-match", "0.9"], ["--min-match", "1"]], ids=" ".join
)
def test_a_rerank_is_the_same(options: list[str]) -> None:
    end = b"\0" if "-0" in options else b"\n"
    stdin = b"".join(os.fsencode(path) + end for path in PATHS)
    said = both("rerank", "two cats", *options, stdin=stdin)
    assert said.who.startswith("served by") and said.stderr.count("skipped ") == 6


def test_nothing_on_stdin_is_told_before_a_server_is_asked() -> None:
    assert both("rerank", "two cats").who == ""


def test_an_empty_index_is_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_INDEX", str(here / "empty-index"))
    engine = Engine(Options(here / "empty-index", default_model="demo"))
    with serving(engine, here / "empty-index", default_model="demo"):
        for command in (["search", "two cats"], ["search", "--image", "gone.jpg"], ["fill", "a <mask>", "--json"]):
            said = both(*command)
            assert said.code == 1 and "is empty" in said.stderr and said.who.startswith("served by")
        shutil.rmtree(here / "empty-index")
        said = both("search", "two cats")
        assert said.code == 5 and said.who.startswith("served by")
    engine.close()


def test_many_pictures_are_sent_one_after_the_other(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "many").mkdir()
    for number in range(60):
        shutil.copy(GALLERY / (CATS + OTHERS)[number % 5], here / "many" / f"{number}.jpg")
    sent: list[Path] = []
    content = named_files.content_of

    def heard(name: Path) -> tuple[dict[str, Any], bytes]:
        sent.append(name)
        return content(name)

    monkeypatch.setattr(client, "content_of", heard)
    monkeypatch.setattr(client, "GREETING_S", 30.0)  # a busy machine answers late
    names = [f"many/{number}.jpg" for number in range(60)]
    both("rerank", "two cats", "--json", stdin="\n".join(names).encode())
    assert sorted(sent) == sorted(map(Path, names))  # each once, when it is asked for


# Which process answers


def test_a_status_shows_the_server(served: Served) -> None:
    [row] = [line for line in bt("status").stdout.decode().splitlines() if line.startswith("server")]
    assert row.split()[1:4] == ["process", f"{os.getpid()},", "awake,"]
    fields = json.loads(bt("status", "--json").stdout)["server"]
    assert {"url": URL, "pid": os.getpid(), "awake": True}.items() <= fields.items()


def test_a_status_without_a_server_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(here))
    [row] = [line for line in bt("status").stdout.decode().splitlines() if line.startswith("server")]
    assert row.split(maxsplit=1)[1] == "not serving: none is running for this index"
    assert json.loads(bt("status", "--json").stdout)["server"] is None


def test_a_server_is_not_asked_where_the_user_does_not_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_SERVER", "off")
    assert bt("search", "two cats", "--no-rerank").who == "no server: BT_SERVER=off"
    monkeypatch.setenv("BT_SERVER", "of")
    said = bt("search", "two cats")
    assert said.stderr == "error: BT_SERVER: 'of' is unknown: choose one of auto, off\n" and said.code == 2


def test_without_v_nobody_is_named() -> None:
    for options in ([], ["--no-server"]):
        done = CliRunner().invoke(app, ["search", "two cats", "--no-rerank", *options], prog_name="bt")
        assert "serve" not in done.stderr


def test_what_a_server_does_not_serve_is_done_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said = bt("search", "two cats", "--no-rerank", "--precision", "int8")
    assert (said.code, said.who) == (0, "no server: it serves precision auto, not int8")
    monkeypatch.setattr(listener, "__version__", "9.9")
    said = bt("search", "two cats", "--no-rerank")
    assert (said.code, said.who) == (0, f"no server: it is of version 9.9, this is {__version__}")


# A server that is lost: a process of its own, which begins to answer and never ends

HALTS = """
import sys
from pathlib import Path
from tests.unit.serving.local_server import FakeEngine, serving

engine = FakeEngine()
engine.gate.clear()
engine.note = "note: the demo model knows drawn scenes only; of photographs it knows nothing"
with serving(engine, Path(sys.argv[1]), default_model="demo"):
    print("ready", flush=True)
    engine.begun.wait()
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def halting(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    with runtime_folder():
        command = [sys.executable, "-c", HALTS, str(served.folder / "index")]
        root = str(Path(__file__).parents[2])
        environ = environment() | {"PYTHONPATH": os.pathsep.join([root, environment()["PYTHONPATH"]])}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield process
            process.kill()


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGKILL, "was lost: the connection was closed"), (signal.SIGSTOP, "was lost: timed out")],
)
def test_a_server_that_is_lost_in_the_middle_is_replaced_by_the_command(
    number: signal.Signals, told: str, halting: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 1.5)

    def lose() -> None:
        assert halting.stdout is not None and halting.stdout.readline() == b"begun\n"
        halting.send_signal(number)

    thread = threading.Thread(target=lose)
    thread.start()
    said = bt("search", "two cats", "--json")
    thread.join()
    assert said.who.splitlines()[0] == f"served by bt serve, process {halting.pid}"
    assert said.who.splitlines()[1] == f"no server: process {halting.pid} {told}"
    assert said[:3] == bt("search", "two cats", "--json", "--no-server")[:3]  # the note is said once


def test_a_server_that_stands_still_is_not_waited_for(halting: subprocess.Popen[bytes]) -> None:
    halting.send_signal(signal.SIGSTOP)
    said = bt("search", "two cats", "--no-rerank", "--json")
    assert said.who == "no server: no answer in 1 s"
    assert said[:3] == bt("search", "two cats", "--no-rerank", "--json", "--no-server")[:3]
    [row] = [line for line in bt("status").stdout.decode().splitlines() if line.startswith("server")]
    assert row.endswith("not serving: no answer in 1 s")


def test_a_vector_on_stdin_is_kept_for_the_command(here: Path, monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    def search(*_: object, **__: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(served.engine, "search", search)
    vector = (here / "v.npy").read_bytes()
    said = bt("search", "--query-vector", "-", "--json", stdin=vector)
    assert said.who.splitlines()[1] == "no server: it met a defect of its own: KeyError"
    assert said[:3] == bt("search", "--query-vector", "-", "--json", "--no-server", stdin=vector)[:3]
    assert [type(error) for error in raised] == [KeyError]
    raised.clear()
