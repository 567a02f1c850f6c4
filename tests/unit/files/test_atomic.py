"""Files and folders that are there as a whole or not at all, and what a killed process has left of them."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridgetower import OutputError
from bridgetower.files.atomic import is_vacant, new_folder, remove_abandoned, replace_file

NAMES = ("content", "index.json")
LEFT = ".export.0123abcd.partial"
posix = pytest.mark.skipif(os.name == "nt", reason="needs links and modes")


def write(folder: Path, names: Sequence[str] = NAMES) -> None:
    with new_folder(folder, NAMES, OutputError) as unfinished:
        for name in names:
            (unfinished / name).write_text(name)


def left(path: Path, *names: str, days: float = 2) -> Path:
    """A folder that an export which was killed so long ago has left, with these files in it."""
    path.mkdir(parents=True)
    for name in names:
        (path / name).touch()
        age(path / name, days)
    age(path, days)
    return path


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * 24 * 3600,) * 2)


def test_a_file_that_has_the_name_already_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    (tmp_path / ".file.00000000.partial").write_text("of another process")
    with pytest.raises(FileExistsError):
        replace_file(tmp_path / "file", lambda path: path.write_text("new"))
    assert (tmp_path / ".file.00000000.partial").read_text() == "of another process"


@posix
def test_a_folder_that_is_there_stays_and_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "export"
    folder.mkdir(mode=0o700)
    before = folder.stat()
    monkeypatch.chdir(folder)  # as of a shell
    write(folder)
    assert sorted(os.listdir(".")) == sorted(NAMES)
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)


def test_nothing_is_needed_around_a_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a mounted disk, which cannot be renamed, nor anything be renamed into it."""
    folder = tmp_path / "export"
    folder.mkdir()
    renamed: list[Path] = []
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        renamed.extend((self, target))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    write(folder)
    assert renamed[-1] == folder / NAMES[-1]
    assert all(folder in path.parents for path in renamed)


def test_what_another_process_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    ours = new_folder(folder, NAMES, OutputError)
    (ours.__enter__() / "index.json").write_text("ours")
    (folder / "index.json").write_text("theirs")
    with pytest.raises(OutputError, match="not empty"):
        ours.__exit__(None, None, None)
    assert [path.name for path in folder.iterdir()] == ["index.json"]
    assert (folder / "index.json").read_text() == "theirs"


@pytest.mark.parametrize("was_there", [True, False])
def test_a_folder_that_was_left_unfinished_is_removed_when_it_is_old(tmp_path: Path, was_there: bool) -> None:
    folder = tmp_path / "export"
    home = folder if was_there else tmp_path
    old = left(home / LEFT, "content", ".index.json.00ff00ff.partial")
    assert not was_there or is_vacant(folder)
    write(folder)
    assert not old.exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)


def test_no_other_folder_is_removed(tmp_path: Path) -> None:
    young = left(tmp_path / LEFT, "content", days=0.9)
    at_work = left(tmp_path / ".export.11111111.partial", "content")
    age(at_work / "content", 0)
    mine = left(tmp_path / ".export.22222222.partial", "letter")
    others = [left(tmp_path / name, "content") for name in (".export.partial", ".other.33333333.partial", f"x{LEFT}")]
    file = tmp_path / ".export.44444444.partial"
    file.touch()
    age(file, 2)
    write(tmp_path / "export")
    assert all((folder / "content").exists() for folder in (young, at_work, *others))
    assert (mine / "letter").exists() and file.exists()


@posix
def test_no_folder_is_removed_through_a_link(tmp_path: Path) -> None:
    mine = left(tmp_path / "elsewhere", "content")
    (tmp_path / LEFT).symlink_to(mine)
    write(tmp_path / "export")
    assert (mine / "content").exists() and (tmp_path / LEFT).is_symlink()
    assert not is_vacant(tmp_path)


@posix
def test_files_that_were_left_unfinished_are_removed_when_they_are_old(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    old, young, other = (kept / f".{name}.partial" for name in ("a.0000ffff", "a.1111ffff", "b.0000ffff"))
    for file in (old, young, other):
        file.touch()
        age(file, 0 if file == young else 2)
    link = kept / ".a.2222ffff.partial"
    link.symlink_to(other)
    (tmp_path / "link").symlink_to(kept)
    remove_abandoned(tmp_path / "link", "a|x")
    assert old.exists()
    remove_abandoned(kept, "a|x")
    assert [file.exists() for file in (old, young, other)] == [False, True, True]
    assert link.is_symlink()
    remove_abandoned(tmp_path / "gone", "a")


def test_a_file_that_appears_in_a_folder_meanwhile_is_neither_replaced_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.files.atomic.is_vacant", lambda folder: True)  # as it was a moment before
    folder = tmp_path / "here"
    folder.mkdir()

    def be_overtaken() -> None:
        with new_folder(folder, NAMES, OutputError) as unfinished:
            for name in NAMES:
                (unfinished / name).write_text("ours")
            (folder / NAMES[-1]).write_text("theirs")

    with pytest.raises(OutputError, match="File exists"):
        be_overtaken()
    assert [path.name for path in folder.iterdir()] == [NAMES[-1]]
    assert (folder / NAMES[-1]).read_text() == "theirs"
