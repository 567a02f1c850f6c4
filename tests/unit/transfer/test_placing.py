"""Copies and links of files in a folder: nothing is replaced, nothing is made twice, no half file is left."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bridgetower import OutputError, Placed, UsageError, place_files
from bridgetower.transfer import placing
from tests.fakes import paint


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two pictures of one name, red and blue, and a copy of the red one under another folder."""
    paint(tmp_path / "a" / "cat.png", "red")
    paint(tmp_path / "b" / "cat.png", "blue")
    paint(tmp_path / "c" / "cat.png", "red")
    os.utime(tmp_path / "a" / "cat.png", ns=(1_000_000_000_123_456_789, 1_100_000_000_123_456_700))
    return tmp_path


def all_in(album: Path) -> list[Path]:
    return [album / folder / "cat.png" for folder in "abc"]


def placed(files: list[Path], folder: Path, **options: bool) -> list[tuple[str | None, bool]]:
    """The name of each target, and whether it is new."""
    found = place_files(files, folder, **options)
    return [(None if one.target is None else one.target.name, one.is_new) for one in found]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_names_that_are_taken_get_a_number_and_the_same_content_is_not_copied_twice(album: Path) -> None:
    to = album / "new" / "chosen"
    first = [("cat.png", True), ("cat-2.png", True), ("cat.png", False)]
    assert placed(all_in(album), to, dry_run=True) == first
    assert not to.exists()
    assert placed(all_in(album), to) == first
    assert placed(all_in(album), to) == [(name, False) for name, _ in first]
    assert names(to) == ["cat-2.png", "cat.png"]
    assert (to / "cat-2.png").read_bytes() == (album / "b" / "cat.png").read_bytes()
    assert placed(all_in(album), to, dry_run=True) == [(name, False) for name, _ in first]


def test_a_name_with_no_room_for_a_number_is_cut(album: Path) -> None:
    name = "a" + 125 * "ä" + ".png"  # 255 bytes
    files = [(album / folder / "cat.png").rename(album / folder / name) for folder in "abc"]
    found = [("a" + 125 * "ä" + ".png", True), ("a" + 124 * "ä" + "-2.png", True), (name, False)]
    assert placed(files, album / "to") == found
    assert placed(files, album / "to") == [(target, False) for target, _ in found]


def test_what_is_there_stays(album: Path) -> None:
    to = album / "to"
    to.mkdir()
    (to / "cat.png").write_bytes(b"mine")
    (to / "cat-2.png").mkdir()
    (to / "cat-3.png").symlink_to(album / "a" / "cat.png")  # a link is no copy
    (to / "cat-4.png").symlink_to("nowhere")
    assert placed([album / "a" / "cat.png"], to) == [("cat-5.png", True)]
    assert (to / "cat.png").read_bytes() == b"mine" and os.readlink(to / "cat-4.png") == "nowhere"


def test_copies_keep_the_time_and_get_the_mode_of_new_files(album: Path) -> None:
    source = album / "a" / "cat.png"
    source.chmod(0o400)
    [one] = place_files([source], album / "to")
    assert one.target is not None
    status = one.target.stat()
    assert status.st_mtime_ns == source.stat().st_mtime_ns == 1_100_000_000_123_456_700
    (album / "plain").touch()
    assert stat.S_IMODE(status.st_mode) == stat.S_IMODE((album / "plain").stat().st_mode)


def test_links_are_absolute_and_made_once(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    files = [Path("a/cat.png"), Path("b/cat.png"), album / "a" / "cat.png"]
    expected = [("cat.png", True), ("cat-2.png", True), ("cat.png", False)]
    assert placed(files, Path("to"), links=True, dry_run=True) == expected
    assert placed(files, Path("to"), links=True) == expected
    assert os.readlink("to/cat-2.png") == str(album / "b" / "cat.png")
    assert placed(files, Path("to"), links=True) == [(name, False) for name, _ in expected]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
def test_names_that_are_not_utf_8(album: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(album) + b"/\xff-\xe9.png"))
    paint(album / "a.png", "red").rename(odd)
    assert placed([odd], album / "to") == [(odd.name, True)]
    assert os.listdir(os.fsencode(album / "to")) == [b"\xff-\xe9.png"]


def test_files_that_are_gone_are_named_and_the_others_placed(album: Path) -> None:
    gone, folder = album / "gone.png", album / "a"
    found = list(place_files([gone, folder, album / "b" / "cat.png"], album / "to"))
    assert [(one.file, one.target, one.reason) for one in found[:2]] == [
        (gone, None, "no such file"),
        (folder, None, "not a file any more"),
    ]
    assert found[2] == Placed(album / "b" / "cat.png", album / "to" / "cat.png", True)
    assert names(album / "to") == ["cat.png"]


def test_a_folder_that_cannot_be_one(album: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(OutputError, match=r"cat.png: cannot be written: Not a directory; choose another place"):
            list(place_files(all_in(album), album / "a" / "cat.png", dry_run=dry_run))
    with pytest.raises(UsageError):
        place_files("a.png", album)


def failing(error: BaseException) -> Callable[..., bytes]:
    def fail(*_: object, **__: object) -> bytes:
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_nothing_is_left_of_a_copy_that_ends_early(
    album: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    copies = place_files(all_in(album), album / "to")
    next(copies)
    monkeypatch.setattr(os, "utime", failing(error))
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        next(copies)
    assert isinstance(error, KeyboardInterrupt) or "make room" in str(raised.value)
    assert names(album / "to") == ["cat.png"]


def test_a_file_that_cannot_be_read_to_its_end(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Torn:
        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    whole = placing._piece
    monkeypatch.setattr(placing, "_piece", lambda source, file: whole(Torn(), file))  # type: ignore[arg-type]
    [one] = place_files([album / "a" / "cat.png"], album / "to")
    assert one.target is None and one.reason == "cannot be read: Input/output error"
    assert names(album / "to") == []


def test_a_copy_of_the_folder_itself(album: Path) -> None:
    assert placed([album / "a" / "cat.png"], album / "a") == [("cat.png", False)]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_name_that_another_process_takes_meanwhile(
    album: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    real = placing._copy
    if not has_links:
        monkeypatch.setattr(os, "link", failing(PermissionError(1, "Operation not permitted")))

    def slow(file: Path, unfinished: Path) -> None:
        real(file, unfinished)
        if not (album / "to" / "cat.png").exists():
            (album / "to" / "cat.png").write_bytes(b"of another")

    monkeypatch.setattr(placing, "_copy", slow)
    assert placed([album / "a" / "cat.png"], album / "to") == [("cat-2.png", True)]
    assert (album / "to" / "cat.png").read_bytes() == b"of another"


def test_a_file_system_without_links(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(PermissionError(1, "Operation not permitted")))
    assert placed(all_in(album), album / "to") == [("cat.png", True), ("cat-2.png", True), ("cat.png", False)]
    assert names(album / "to") == ["cat-2.png", "cat.png"]
