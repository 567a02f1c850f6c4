"""A server and the client of the command line, on a socket; tests/cli/test_served.py has the commands."""

import errno
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridgetower import __version__
from bridgetower.errors import InputError, ModelError, ResourceError, StoreError, UnknownPlaceError, UsageError
from bridgetower.records import DEFAULT_MODEL, Hit, Skipped
from bridgetower.serving.local import client, listener
from bridgetower.serving.local.client import INDEX, PICTURES, NoServer, RemoteLibrary, RemoteModel, Server, Wanted
from bridgetower.serving.local.place import socket_path
from bridgetower.serving.local.wire import receive, send
from tests.unit.serving.local_server import URL, FakeEngine, listener_queue, runtime_folder, serving


@pytest.fixture(autouse=True)
def runtime() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path / "index", model=DEFAULT_MODEL)


def asked(wanted: Wanted, **limits: Any) -> list[Any]:
    """The result of a search, then what it hears."""
    heard: list[Any] = []
    with Server(wanted, INDEX) as server:
        library = RemoteLibrary(server, heard.append)
        limits = {"on_progress": lambda *done: heard.append(done), **limits}
        found = library.search("cats", **limits)
    return [found, *heard]


def test_a_request_is_answered_with_its_notes_and_progress(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index):
        found, *heard = asked(wanted, under=["a", "*.jpg"], not_under=["./b/*"], since="2024", top=3, min_match=0.5)
        with Server(wanted, INDEX) as server:
            library = RemoteLibrary(server)
            assert library.fill("a <mask>", top=2).words == ()
            assert len(library) == 7  # on another connection
    assert heard == ["note: it begins", (1, 2)] and found.verified == 1 and found.hits == ()
    [request] = engine.requests
    assert (request.text, request.top, request.min_match, request.since) == ("cats", 3, 0.5, "2024")
    here = Path.cwd()
    assert list(request.under) == [here / "a", here / "*.jpg"]
    assert [place.glob for place in request._under] == [None, "**/*.jpg"]
    assert request._not_under[0].glob == f"{here}/b/*"


def test_hits_are_sent_where_they_are_shown(engine: FakeEngine, wanted: Wanted, tmp_path: Path) -> None:
    shown: list[tuple[Hit, ...]] = []
    with serving(engine, wanted.index):
        found, *_ = asked(wanted, image=[tmp_path / "a.jpg"], on_hits=shown.append)
    assert shown == [found.hits] and found.hits[0].path == tmp_path / "a.jpg"


def test_pictures_are_read_by_the_client_when_they_are_needed(
    engine: FakeEngine, wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = Path(os.fsdecode(b"a\xff.jpg"))
    odd.write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    names = [odd, Path("gone.jpg"), Path("folder"), Path("empty.jpg")]
    (tmp_path / "empty.jpg").touch()
    wanted = replace(wanted, model="demo")
    with serving(engine, wanted.index, model="demo"), Server(wanted, PICTURES) as server:
        model = RemoteModel(server)
        found = model.rerank("cats", names)
        scores = model.match([odd], ["a", "b"])
        assert model.fill("a <mask>", [odd]).skipped == (Skipped(Path("a <mask>"), "5"),)
    assert [(hit.path, hit.match) for hit in found.hits] == [(odd, 5.0), (Path("empty.jpg"), 0.0)]
    assert found.skipped == (
        Skipped(Path("gone.jpg"), "no such file"),
        Skipped(Path("folder"), "not a file but a folder"),
    )
    assert [(one.text, one.match) for one in scores] == [("a", 5), ("b", 5)]


def test_a_vector_is_read_by_the_client(engine: FakeEngine, wanted: Wanted, tmp_path: Path) -> None:
    import numpy as np

    file = BytesIO()
    np.save(file, np.array([3, 4], np.float32))
    stream = BytesIO(file.getvalue())
    (tmp_path / "v.npy").write_bytes(file.getvalue())
    with serving(engine, wanted.index):
        for vector in (stream, tmp_path / "v.npy"):
            asked(wanted, vector=vector, depth=0)
        with pytest.raises(InputError, match=r"^/gone.npy: cannot be read: No such file or directory; check the name"):
            asked(wanted, vector=Path("/gone.npy"), depth=0)
        with pytest.raises(InputError, match=r"^the stream: is no npy file"):
            asked(wanted, vector=BytesIO(b"no vector"), depth=0)
    assert [request.vector.tolist() for request in engine.requests] == [pytest.approx([0.6, 0.8])] * 2
    assert [request._file for request in engine.requests] == ["the stream", str(tmp_path / "v.npy")]


def test_wrong_usage_is_the_error_of_the_library(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index), pytest.raises(UsageError, match="top 0: at least 1 is wanted"):
        asked(wanted, top=0)


def test_errors_are_raised_as_they_are(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index):
        for error in (UnknownPlaceError("nothing lies under /a"), StoreError("locked"), InputError("none")):
            engine.error = error  # type: ignore[assignment]
            with pytest.raises(type(error)) as raised:
                asked(wanted)
            assert type(raised.value) is type(error) and str(raised.value) == str(error)


@pytest.mark.parametrize("error", [ModelError("not here"), ResourceError("no memory"), KeyError("a defect")])
def test_an_error_that_the_command_may_not_meet_is_no_answer(
    error: Exception, engine: FakeEngine, wanted: Wanted
) -> None:
    engine.error = error  # type: ignore[assignment]
    defects: list[BaseException] = []
    with serving(engine, wanted.index, defect=defects.append), pytest.raises(NoServer):
        asked(wanted)
    assert defects == ([error] if isinstance(error, KeyError) else [])


def test_an_error_about_the_index_under_another_name_is_no_answer(
    engine: FakeEngine, wanted: Wanted, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("index")
    engine.error = StoreError(f"{wanted.index}: locked")  # type: ignore[assignment]
    with serving(engine, wanted.index):
        with pytest.raises(NoServer, match="it knows the index as"):
            asked(replace(wanted, index=tmp_path / "link"))
        engine.error = None
        assert asked(replace(wanted, index=tmp_path / "link"))


# Which server fits


def reason(wanted: Wanted, pictures: str = INDEX) -> str | None:
    try:
        Server(wanted, pictures).__exit__()
    except NoServer as why:
        return str(why)
    return None


def test_a_server_fits_by_what_was_asked_for_or_by_what_that_came_to(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index):
        assert reason(wanted) is None
        assert reason(replace(wanted, device="cpu")) == "it serves device auto, not cpu"  # not known yet
        engine.runtime = SimpleNamespace(device="cpu", precision="fp32")
        assert reason(replace(wanted, device="cpu", precision="fp32")) is None
        assert reason(replace(wanted, precision="int8")) == "it serves precision auto, not int8"
        assert reason(replace(wanted, features_cache=5)) == "it keeps features elsewhere, or has another limit for them"
        assert reason(replace(wanted, named_model="demo")) == "it serves the model None, not demo"
        assert reason(replace(wanted, model="demo")) is None  # an index has its own


def test_pictures_need_the_model_and_its_preprocessing(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index, default_model="demo"):
        assert reason(replace(wanted, model="demo"), PICTURES) is None
        assert reason(wanted, PICTURES) == f"it serves the model demo, not {DEFAULT_MODEL}"
        engine.default_preprocessing = False
        assert "another preprocessing" in str(reason(replace(wanted, model="demo"), PICTURES))


def test_a_folder_is_one_model_by_all_its_names(
    engine: FakeEngine, wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "copy").symlink_to("model")
    monkeypatch.chdir(tmp_path)
    with serving(engine, wanted.index, model=str(tmp_path / "model")):
        assert reason(replace(wanted, named_model="copy", model="copy")) is None


def test_another_version_does_not_fit(engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(engine, wanted.index):
        monkeypatch.setattr(listener, "__version__", "9.9")
        assert reason(wanted) == f"it is of version 9.9, this is {__version__}"
        monkeypatch.setattr(listener, "PROTOCOL", 99)
        assert reason(wanted) == f"it is of version 9.9, this is {__version__}"


def test_another_time_zone_does_not_fit(engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(engine, wanted.index):
        monkeypatch.setattr(client, "local_zone", lambda: ("3600", "CET"))
        assert reason(wanted) == "it has another time zone"


# Servers that do not answer


def test_without_a_server_the_reason_is_told(wanted: Wanted) -> None:
    assert reason(wanted) == "none is running for this index"


def test_a_socket_without_a_server_is_told_and_replaced(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index) as first:
        path = first.path
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    assert reason(wanted) == "none is running for this index"
    with serving(engine, wanted.index):
        assert reason(wanted) is None


def test_two_servers_cannot_serve_one_index(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index):
        told = f"process {os.getpid()} serves it already: `bt serve --stop` ends it"
        with pytest.raises(StoreError, match=told), serving(engine, wanted.index):
            pass
        assert reason(wanted) is None


def close(listening: listener.Listener) -> None:
    """Close a listener, or fail if that takes too long."""
    closing = threading.Thread(target=listening.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


@pytest.mark.parametrize("wakes", [True, False], ids=["a system that wakes accept", "one that does not"])
def test_a_server_whose_socket_is_gone_ends(
    wakes: bool, engine: FakeEngine, wanted: Wanted, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: socket.socket, how: int) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    with serving(engine, wanted.index) as listening:
        shutil.rmtree(runtime)  # as at the end of the session of the user
        if not wakes:
            monkeypatch.setattr(socket.socket, "shutdown", refuse)
        close(listening)
    runtime.mkdir()


def test_a_server_leaves_the_socket_of_another_that_has_taken_its_place(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index) as first:
        shutil.rmtree(first.path.parent)
        with serving(engine, wanted.index) as second:
            assert second.path == first.path
            close(first)
            assert reason(wanted) is None
    assert not first.path.exists()


@pytest.fixture
def mute(wanted: Wanted, runtime: Path) -> Iterator[socket.socket]:
    """A listening socket in the place of a server."""
    (runtime / "bridgetower").mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(socket_path(wanted.index)))
        found.listen()
        yield found


def test_a_server_that_does_not_greet_is_left_after_a_second(mute: socket.socket, wanted: Wanted) -> None:
    began = time.monotonic()
    assert reason(wanted) == "no answer in 1 s"
    assert time.monotonic() - began < 2


def test_a_server_of_another_user_is_not_asked(
    mute: socket.socket, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "is_ours", lambda connection: False)
    assert "it belongs to another user" in str(reason(wanted))


def test_a_client_of_another_user_is_not_greeted(
    engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(engine, wanted.index):
        monkeypatch.setattr(listener, "is_ours", lambda connection: False)
        assert str(reason(wanted)).startswith("no answer: ")


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (lambda connection: connection.close(), "the connection was closed"),
        (lambda connection: time.sleep(2), "timed out"),
        (lambda connection: connection.sendall(b"\0\0\0\1x"), "no message of this protocol"),
        (lambda connection: send(connection, {"event": "odd"}), "no message of this protocol"),
        (lambda connection: send(connection, {"event": "say"}), "no message of this protocol"),
    ],
)
def test_a_server_that_is_lost_in_the_middle_is_no_answer(
    ends: Any, told: str, mute: socket.socket, engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.5)
    with serving(engine, wanted.index / "other") as real:
        greeting = real._greeting({}) | {"index": wanted.index}

    def half() -> None:
        connection, _ = mute.accept()
        with connection:
            receive(connection)
            send(connection, greeting)
            receive(connection)
            send(connection, {"event": "say", "line": "note: it begins"})
            ends(connection)
            time.sleep(0.2)

    thread = threading.Thread(target=half)
    thread.start()
    heard: list[str] = []
    with Server(wanted, INDEX) as server, pytest.raises(NoServer, match=f"was lost: {told}"):
        RemoteLibrary(server, heard.append).search("cats")
    thread.join()
    assert heard == ["note: it begins"]


# Servers under load


def test_a_busy_server_greets_at_once_and_refuses_when_its_queue_is_full(engine: FakeEngine, wanted: Wanted) -> None:
    engine.gate.clear()
    with serving(engine, wanted.index, running=1, waiting=0):
        thread = threading.Thread(target=asked, args=(wanted,))
        thread.start()
        assert engine.begun.wait(5)
        assert reason(wanted) is None
        with pytest.raises(NoServer, match="1 requests wait or run"):
            asked(wanted)
        engine.gate.set()
        thread.join()


def test_signs_of_life_keep_a_client_waiting(
    engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.5)
    monkeypatch.setattr(listener, "ALIVE_S", 0.1)
    engine.gate.clear()
    threading.Timer(1.5, engine.gate.set).start()
    with serving(engine, wanted.index):
        assert asked(wanted)[0].verified == 1


def test_the_request_of_a_client_that_has_gone_ends(
    engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ALIVE_S", 0.05)
    engine.gate.clear()

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with serving(engine, wanted.index) as running:
        with Server(wanted, INDEX) as server, pytest.raises(KeyboardInterrupt):
            RemoteLibrary(server, interrupt).search("cats")
        assert engine.begun.wait(5)
        time.sleep(0.2)
        engine.gate.set()
        assert listener_queue[running].wait(5)
        assert len(engine.ended) == 1


def test_a_server_that_drains_answers_what_it_has_begun(engine: FakeEngine, wanted: Wanted) -> None:
    engine.gate.clear()
    found: list[Any] = []
    stopped = threading.Event()
    with serving(engine, wanted.index, stop=stopped.set) as running:
        thread = threading.Thread(target=lambda: found.append(asked(wanted)[0]))
        thread.start()
        assert engine.begun.wait(5)
        assert client.stop(wanted.index).pid == os.getpid()
        assert stopped.wait(5)
        listener_queue[running].drain()
        with pytest.raises(NoServer, match="the server ends"):
            asked(wanted)
        engine.gate.set()
        assert listener_queue[running].wait(5)
        running.close()
        thread.join(5)
    assert found[0].verified == 1
    assert reason(wanted) == "none is running for this index"


def test_too_many_pictures_are_no_request(engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_PICTURES", 2)
    wanted = replace(wanted, model="demo")
    lost = pytest.raises(NoServer, match="3 pictures")
    with serving(engine, wanted.index, model="demo"), Server(wanted, PICTURES) as server, lost:
        RemoteModel(server).rerank("cats", [Path("a"), Path("b"), Path("c")])


def test_a_status_tells_what_is_served(engine: FakeEngine, wanted: Wanted) -> None:
    with serving(engine, wanted.index):
        greeting = client.look(wanted.index)
    assert (greeting.url, greeting.pid, greeting.awake) == (URL, os.getpid(), False)
    assert abs(greeting.since - time.time()) < 60
