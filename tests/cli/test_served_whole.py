"""A server beside whatever happens: random commands, an index that grows and shrinks meanwhile, and its own death."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bridgetower.encoders.torch_encoder
from bridgetower import Library
from bridgetower.serving.local import client, wire
from bridgetower.serving.local.client import INDEX, RemoteLibrary, Server, Wanted
from bridgetower.serving.local.place import socket_path
from bridgetower_cli import render
from bridgetower_cli.parser import app
from tests.servers import running
from tests.unit.serving.local_server import runtime_folder

GALLERY = sorted((Path(__file__).parents[2] / "examples" / "gallery").glob("*.jpg"))

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix sockets and users"),
]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may keep the server from greeting in time; then a command would do the work itself."""
    monkeypatch.setattr(client, "GREETING_S", 30.0)
    monkeypatch.setattr(client, "SILENCE_S", 60.0)


@contextmanager
def indexed(folder: Path, pictures: list[Path]) -> Iterator[Path]:
    """A folder with pictures in `photos`, whose index is ./index; it is the current one."""
    (folder / "photos" / "sub").mkdir(parents=True)
    for number, picture in enumerate(pictures):
        copy = folder / "photos" / ("sub" if number % 3 == 2 else ".") / picture.name
        shutil.copy(picture, copy)
        taken = 946684800 + number * 40_000_000  # the pictures are from 2000 on
        os.utime(copy, (taken, taken))
    with runtime_folder(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BT_INDEX", str(folder / "index"))
        patch.setenv("BT_MODEL", "demo")
        patch.setenv("BT_PRECISION", "fp32")
        with Library(folder / "index", "demo", precision="fp32") as library:
            library.index([folder / "photos"])
        yield folder


def bt(*arguments: str, stdin: str = "") -> tuple[int, bytes, list[str]]:
    """The exit code of a command, its results, and the lines on stderr."""
    done = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="bt")
    return done.exit_code, done.stdout_bytes, done.stderr.splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with indexed(tmp_path_factory.mktemp("whole"), GALLERY[::7]) as folder:
        yield folder


# Random commands

WORDS = "a two three small cat cats dog owl bee banana on in above couch desert sea night red blue by the".split()
PLACES = [
    "photos",
    "photos/sub",
    "./photos/sub",
    "*/sub/*",
    "photos/*a*",
    "*.jpg",
    "*.png",
    "nowhere",
    "photos/gone.jpg",
]


def random_search(choose: random.Random) -> list[str]:
    """The arguments of a search; nearly all are right, and have something to find."""
    text = " ".join(choose.choices(WORDS, k=choose.randint(1, 8)))
    pictures = [f"photos/{picture}" for picture in os.listdir("photos") if picture.endswith(".jpg")]
    kind = choose.choice(["text", "text", "picture", "both"])
    arguments = ["search", *([text] if kind != "picture" else [])]
    for picture in choose.sample(sorted(pictures), choose.choice([1, 1, 2])) if kind != "text" else ():
        arguments += ["--image", picture]

    def perhaps(chance: float, *options: object) -> None:
        if choose.random() < chance:
            arguments.extend(map(str, options))

    perhaps(0.25, "--under", choose.choice(PLACES))
    perhaps(0.15, "--not-under", choose.choice(PLACES))
    perhaps(0.15, "--since", choose.choice(["2001", "2010-05", "2020-01-01", "3 days ago"]))
    perhaps(0.5, "--top", choose.randint(1, 30))
    perhaps(0.8, choose.choice(["--json", "--json", "--json", "--paths", "-0"]))
    if kind == "picture":
        perhaps(0.2, "--min-similarity", choose.choice([0, 0.3, 0.9]))
    elif choose.random() < 0.4:
        arguments.append("--no-rerank")
    else:
        arguments += ["--depth", str(choose.randint(1, 4))]
        perhaps(0.3, "--min-match", choose.choice([0, 0.01, 0.5, 1]))
    return arguments


@pytest.fixture
def one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this process share one network, which takes longest to load."""
    made: dict[str, Any] = {}
    make = bridgetower.encoders.torch_encoder.TorchEncoder
    monkeypatch.setattr(
        "bridgetower.encoders.torch_encoder.TorchEncoder",
        lambda checkpoint, *given, **options: made.setdefault(checkpoint.name, make(checkpoint, *given, **options)),
    )


def test_a_hundred_random_searches_say_the_same(
    place: Path, one_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "_DIGITS", 17)  # JSON shows every bit
    choose = random.Random(20)
    codes = []
    with running(place / "index") as server:
        for _ in range(100):
            arguments = random_search(choose)
            code, results, (who, *lines) = bt(*arguments, "-v")
            assert who == f"served by bt serve, process {server.pid}", arguments
            assert (code, results, lines) == bt(*arguments, "--no-server"), arguments
            codes.append(code)
    assert codes.count(0) > 60 and codes.count(1) > 5


def test_whole_processes_say_the_same(place: Path) -> None:
    choose = random.Random(21)
    with running(place / "index"):
        for _ in range(3):
            command = [sys.executable, "-m", "bridgetower_cli", *random_search(choose)]
            served, own = (
                subprocess.run([*command, *more], capture_output=True, check=False) for more in ((), ("--no-server",))
            )
            assert (served.returncode, served.stdout, served.stderr) == (own.returncode, own.stdout, own.stderr)


# An index that changes

GROUPS = [GALLERY[start : start + 5] for start in range(21, 146, 5)]


def test_each_answer_is_of_one_committed_state_and_none_goes_back(tmp_path: Path) -> None:
    with indexed(tmp_path, GALLERY[:20]) as folder, running(folder / "index"):
        wanted = Wanted(folder / "index", None, "demo", "auto", "fp32")
        with Library(folder / "index") as library:
            states = [{hit.path.name for hit in library.search("a", top=1000, depth=0)}]  # each differs from all others
            committed = 0  # how many of the others are surely there
            ended = threading.Event()
            answers: list[int] = []  # the places of their states
            wrong: list[object] = []

            def ask(number: int) -> None:
                last = 0
                while not ended.is_set():
                    least = max(last, committed)
                    with Server(wanted, INDEX) as server:
                        found = RemoteLibrary(server).search(f"{WORDS[number]} cat", top=1000, depth=number)
                    names = {hit.path.name for hit in found}
                    assert len(names) == len(found)
                    last = states.index(names)
                    assert last >= least
                    answers.append(last)

            def guarded(number: int) -> None:
                try:
                    ask(number)
                except BaseException as error:  # noqa: BLE001 - the test fails with it
                    wrong.append(error)
                    ended.set()

            threads = [threading.Thread(target=guarded, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            for number, group in enumerate(GROUPS):
                if number % 4 == 3:
                    gone = [folder / "photos" / picture.name for picture in GROUPS[number - 3]]
                    states.append(states[-1] - {path.name for path in gone})
                    library.forget(gone)
                else:
                    for picture in group:
                        shutil.copy(picture, folder / "photos")
                    states.append(states[-1] | {picture.name for picture in group})
                    library.index([folder / "photos" / picture.name for picture in group])
                committed = len(states) - 1
                enough = len(answers) + 2
                while len(answers) < enough and not ended.is_set():
                    time.sleep(0.002)
            ended.set()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert len(set(answers)) > len(states) // 3


def test_a_run_of_several_commits_is_seen_commit_by_commit(tmp_path: Path) -> None:
    with indexed(tmp_path, GALLERY[:8]) as folder, running(folder / "index"):
        (folder / "more").mkdir()
        for picture in GALLERY[20:90]:
            shutil.copy(picture, folder / "more")
        wanted = Wanted(folder / "index", None, "demo", "auto", "fp32")
        command = [sys.executable, "-m", "bridgetower_cli", "index", str(folder / "more")]
        seen: list[set[str]] = []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as writer:
            is_over = False
            while not is_over:
                time.sleep(0.1)
                is_over = writer.poll() is not None  # then one more answer follows
                writer.send_signal(signal.SIGSTOP)  # so that it commits but little between two answers
                with Server(wanted, INDEX) as server:
                    seen.append({hit.path.name for hit in RemoteLibrary(server).search("a cat", top=1000, depth=0)})
                writer.send_signal(signal.SIGCONT)
            _, said = writer.communicate(timeout=60)
        assert writer.returncode == 0 and "indexed 70" in said
        assert len(seen[-1]) == 8 + 70
        assert {len(names) for names in seen} <= {8, 24, 40, 56, 72, 78}  # 16 pictures a commit
        assert len({len(names) for names in seen}) > 2
        for before, after in pairwise(seen):
            assert before <= after


# A server that is killed

# The command, its stdin, and the event after which the server is killed, when it comes for the n-th time.
ENDS: dict[str, tuple[list[str], str, str, int]] = {
    "search": (["search", "two cats", "--json", "--depth", "20"], "", "progress", 2),
    "search by a picture": (["search", "--image", f"photos/{GALLERY[0].name}", "--paths"], "", "picture", 1),
    "fill": (["fill", "a <mask> on a couch", "--json"], "", "progress", 1),
    "rerank": (["rerank", "two cats", "--json"], "".join(f"photos/{one.name}\n" for one in GALLERY[::7]), "picture", 3),
}


@pytest.mark.parametrize(("command", "stdin", "event", "times"), ENDS.values(), ids=ENDS)
def test_a_command_whose_server_is_killed_meanwhile_does_the_work_itself(
    command: list[str], stdin: str, event: str, times: int, place: Path
) -> None:
    shutil.rmtree(place / "index" / "features", ignore_errors=True)  # the server writes there while it dies
    told: list[str] = []
    with running(place / "index") as server:

        def receive_and_kill(connection: Any) -> Any:
            message, content = wire.receive(connection)
            told.append(message.get("event", "greeting"))
            if told.count(event) == times:
                server.kill()
            return message, content

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "receive", receive_and_kill)
            code, results, lines = bt(*command, "-v", stdin=stdin)
        assert told.count(event) >= times and "result" not in told
        assert lines[0] == f"served by bt serve, process {server.pid}"
        [lost] = [line for line in lines[1:] if line.startswith("no server: ")]
        assert lost.startswith(f"no server: process {server.pid} was lost: ")
        assert code == 0
        own = bt(*command, "--no-server", stdin=stdin)
        assert (code, results, [line for line in lines[1:] if line != lost]) == own
    assert bt("verify")[0] == 0
    before = socket_path(place / "index")
    assert before.exists()  # nobody removed it
    with running(place / "index") as other:
        code, results, (who, *_) = bt(*command, "-v", stdin=stdin)
        assert who == f"served by bt serve, process {other.pid}" and (code, results) == own[:2]
