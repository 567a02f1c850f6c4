"""Files to read: whatever else stands in their place is refused at once, and not opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bridgetower.files.regular_files import NotAFileError, open_regular

posix = pytest.mark.skipif(os.name == "nt", reason="needs pipes and devices with names")


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert (file.read(3), file.seek(1), file.read()) == (b"con", 1, b"ontent")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@posix
@pytest.mark.parametrize(
    ("make", "kind"),
    [(os.mkdir, "a folder"), (os.mkfifo, "a pipe, socket or device"), (device, "a pipe, socket or device")],
)
@pytest.mark.parametrize("linked", [False, True])
def test_anything_else_is_refused(tmp_path: Path, make: Callable[[Path], None], kind: str, linked: bool) -> None:
    path = tmp_path / "thing"
    make(path)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(tmp_path / "thing")
    with pytest.raises(NotAFileError) as error:
        open_regular(path)
    assert error.value.strerror == f"not a file but {kind}"


@posix
def test_what_became_a_pipe_between_the_look_and_the_opening_is_refused_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    opened: list[int] = []
    open_it = os.open

    def open_the_pipe(path: str, flags: int) -> int:
        opened.append(open_it(tmp_path / "pipe", flags))
        return opened[-1]

    monkeypatch.setattr("bridgetower.files.regular_files.os.open", open_the_pipe)
    with pytest.raises(NotAFileError, match="pipe"):
        open_regular(tmp_path / "file")
    [descriptor] = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")
