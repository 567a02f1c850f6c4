"""Where the socket of an index is, and who may be at its other end."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridgetower.serving.local import place
from bridgetower.serving.local.place import NotOffered, is_ours, make_private, peer_uid, require_private, socket_path
from tests.unit.serving.local_server import runtime_folder


@pytest.fixture
def runtime() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


def test_an_index_has_one_socket_by_all_its_names(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "link").symlink_to("index")
    path = socket_path(tmp_path / "index")
    assert path.parent == runtime / "bridgetower" and path.suffix == ".sock" and len(path.stem) == 16
    assert socket_path(tmp_path / "link") == path
    assert socket_path(tmp_path / "other") != path
    assert not path.parent.exists()


def test_a_runtime_folder_that_others_can_open_is_not_used(runtime: Path) -> None:
    runtime.chmod(0o755)
    assert not socket_path(Path("/index")).is_relative_to(runtime)


def test_a_path_that_is_too_long_for_a_socket_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for length, fits in ((69, True), (70, False)):
        folder = runtime / ("x" * (length - len(str(runtime)) - 1))
        folder.mkdir(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        if fits:
            assert socket_path(Path("/index")).is_relative_to(folder)
        else:
            with pytest.raises(NotOffered, match="longer than the path of a socket can be: set XDG_RUNTIME_DIR"):
                socket_path(Path("/index"))


def test_without_unix_sockets_none_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_UNIX_SOCKETS", False)
    with pytest.raises(NotOffered, match="this system has no Unix sockets"):
        socket_path(Path("/index"))


def test_the_folder_of_sockets_is_closed_to_others(runtime: Path) -> None:
    folder = runtime / "bridgetower"
    make_private(folder)
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(NotOffered, match="bridgetower: it is open to other users"):
        make_private(folder)
    folder.rmdir()
    (runtime / "elsewhere").mkdir(0o700)
    folder.symlink_to("elsewhere")
    with pytest.raises(NotOffered, match="bridgetower: not a folder"):
        require_private(folder)


def test_a_folder_that_others_can_replace_is_refused(runtime: Path) -> None:
    make_private(runtime / "bridgetower")
    runtime.chmod(0o777)
    with pytest.raises(NotOffered, match="it is open to other users"):
        require_private(runtime / "bridgetower")


def test_a_folder_of_another_user_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_private(runtime / "bridgetower")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(NotOffered, match="it belongs to another user"):
        require_private(runtime / "bridgetower")


def test_the_user_at_the_other_end_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.geteuid() and is_ours(other)
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert not is_ours(one)
