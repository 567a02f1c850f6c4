"""The lock of an index: a file of ours, and never one that somebody else has put in its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bridgetower.errors import LockedError, StoreError
from bridgetower.files.lock import Lock, is_lock

posix = pytest.mark.skipif(os.name == "nt", reason="needs links, pipes and devices with names")


def test_it_says_who_holds_it_and_can_be_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    first = Lock(path)
    with pytest.raises(LockedError, match=f"process {os.getpid()} on "):
        Lock(path)
    first.release()
    Lock(path).release()


@pytest.mark.parametrize("left", [b"", b"\n", bytes(100), b'{"pid"', b'{"pid": 1, "host": "h", "since": 1}\n'])
def test_it_is_taken_over_whatever_a_crash_has_left_of_it(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "writer.lock").write_bytes(left)
    assert is_lock(tmp_path / "writer.lock")
    Lock(tmp_path / "writer.lock").release()


@posix
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_that_it_leads_to_is_left_as_it_is(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    letter = tmp_path / "letter"
    letter.write_text('{"pid": "of another program"}')
    link(letter, tmp_path / "writer.lock")
    with pytest.raises(StoreError, match=r"writer\.lock: .*, and left as it is"):
        Lock(tmp_path / "writer.lock")
    assert letter.read_text() == '{"pid": "of another program"}'


@posix
@pytest.mark.parametrize(("make", "kind"), [(os.mkdir, "a folder"), (os.mkfifo, "a pipe, socket or device")])
def test_anything_but_a_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    make(tmp_path / "writer.lock")
    with pytest.raises(StoreError, match=rf"writer\.lock: not a file but {kind}"):
        Lock(tmp_path / "writer.lock")


def test_it_is_told_from_a_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    assert not is_lock(path)
    path.write_text("4711\n")
    assert not is_lock(path)
    path.unlink()
    Lock(path).release()
    assert is_lock(path)


@pytest.mark.parametrize("content", [b"4711\n", b"my precious notes\n", b"1", b"{}", b'{"pids": 4711}\n'])
def test_a_file_of_another_program_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "writer.lock"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"writer\.lock: a file of another program, and left as it is"):
        Lock(path)
    assert path.read_bytes() == content


def test_it_is_taken_where_a_disk_has_altered_any_one_byte_of_it(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    Lock(path).release()
    signed = path.read_bytes()
    for place in range(len(signed)):
        for other in (0, ord("\n"), signed[place] ^ 4):
            path.write_bytes(signed[:place] + bytes([other]) + signed[place + 1 :])
            Lock(path).release()
            assert path.read_bytes().startswith(b'{"pid": ')
