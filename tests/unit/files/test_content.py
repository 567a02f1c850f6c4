"""Whatever stands at a path, reading it gives its bytes or one clear reason, and never waits."""

import os
import socket
from io import BufferedReader
from pathlib import Path

import pytest

from bridgetower import records
from bridgetower.errors import InputError, PictureError, ResourceError
from bridgetower.files import content
from bridgetower.files.content import read, unreachable
from tests.fakes import handles_left


def test_reads_the_bytes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new\nline.jpg"
    path.write_bytes(b"content")
    assert read(path) == b"content"


def read_reason(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read(path)
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 6
    return caught.value.reason


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    assert read_reason(tmp_path / "gone.jpg") == "no such file"
    (tmp_path / "file").touch()
    away = [tmp_path / "gone.jpg", tmp_path / "file" / "a.jpg"]
    assert [error.reason for error in unreachable([tmp_path / "file", *away])] == [read_reason(path) for path in away]
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert read_reason(tmp_path / "link.jpg") == "no such file"
    assert read_reason(tmp_path / "nul\0.jpg") == "no such file"


def test_a_folder_is_not_a_picture(tmp_path: Path) -> None:
    assert read_reason(tmp_path) == "not a file but a folder"


def test_a_pipe_or_socket_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "pipe" in read_reason(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert "socket" in read_reason(Path("socket.jpg"))
    assert "device" in read_reason(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (FileNotFoundError(2, "No such file"), "no such file"),  # vanished between the two calls
        (MemoryError(), "not enough memory to read it"),
    ],
)
def test_a_file_that_cannot_be_read(
    error: Exception, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> BufferedReader:
        raise error

    monkeypatch.setattr(content, "open_regular", refuse)
    assert read_reason(tmp_path / "a.jpg") == expected


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    looked = path.stat()
    monkeypatch.setattr("bridgetower.files.content.os.fstat", lambda descriptor: looked)
    path.write_bytes(b"abcdef" * 1000)
    assert read(path) == b"abc"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
def test_want_of_handles_is_no_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    with handles_left(0), pytest.raises(ResourceError, match="too many open files"):
        read(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg") == b"content"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert "Permission denied" in read_reason(path)


def test_a_file_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(records.MAX_PICTURE_BYTES + 1)  # sparse: takes no room
    assert read_reason(path) == "2.0 GB, more than the limit of 2 GB"
