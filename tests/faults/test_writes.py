"""An error at the n-th thing that is asked of the disk or of SQLite, for every n of a small run.

After each: one line that says what failed, an index in order, and a next run that completes.
"""

import builtins
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bridgetower.errors import StoreError
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.recovery.backup import restore
from bridgetower.index.writer import IndexWriter
from tests.faults import small
from tests.faults.small import FINGERPRINT, Answer, answer, bring_up_to_date, build, image, photo, searched

FORMAT_2 = Path(__file__).parents[1] / "data" / "index-format-2"
MORE = range(400, 404)
REAL = {name: getattr(os, name) for name in ("fsync", "replace", "ftruncate", "link", "write", "unlink", "mkdir")}


class Disk:
    """Counts what is asked of it, and refuses the n-th: in turn, because it is full, and because it is broken."""

    def __init__(self, refused: int | None = None) -> None:
        self.refused, self.asked = refused, 0

    def refuses(self) -> bool:
        self.asked += 1
        return self.asked - 1 == self.refused

    def os_error(self) -> OSError:
        number = errno.ENOSPC if self.asked % 2 else errno.EIO
        return OSError(number, os.strerror(number))

    def sqlite_error(self) -> sqlite3.OperationalError:
        full = self.asked % 2
        error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
        return error

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Stand between the index and the real one."""
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                if disk.refuses():
                    raise disk.sqlite_error()
                return super().execute(*arguments)

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                if disk.refuses():
                    raise disk.sqlite_error()
                return super().executemany(*arguments)

        def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
            if disk.refuses():
                raise disk.sqlite_error()
            return sqlite3_connect(*arguments, factory=Connection, **options)

        def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **options: Any) -> Any:
                if disk.refuses():
                    raise disk.os_error()
                return function(*arguments, **options)

            return called

        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if disk.refuses():
                raise disk.os_error()
            return real_open(file, mode, *arguments, **options)

        sqlite3_connect, real_open = sqlite3.connect, builtins.open
        with ExitStack() as patches:
            patches.enter_context(patch("bridgetower.index.catalog.connection.sqlite3.connect", connect))
            patches.enter_context(patch("builtins.open", opened))
            for name, function in REAL.items():
                patches.enter_context(patch.object(os, name, refusing(function)))
            yield


def make(directory: Path) -> None:
    bring_up_to_date(directory)


def forget(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        writer.forget(photo(1).path, photo(2).path)


def prune(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        writer.drop([photo(number).path for number in small.IMAGES[:9]])
        sum(writer.prune())
        writer.tidy()
        writer.compact()


def publish(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        writer.publish()


def grow(directory: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(n) for n in MORE], files=[(photo(n), image(n).hash) for n in MORE])
        writer.finish()


def mend(directory: Path) -> None:
    repair_index(directory)


def break_rows(directory: Path) -> None:
    build(directory)
    with IndexWriter.resume(directory) as writer, writer.catalog.transaction():
        writer.catalog._db.execute("UPDATE files SET size = 8 WHERE image = 8")
        writer.catalog._db.execute("UPDATE images SET width = 8 WHERE id = 9")


def break_layout(directory: Path) -> None:
    break_rows(directory)
    with IndexWriter.resume(directory) as writer:
        writer.catalog._db.execute("DROP TRIGGER file_gone")


def copy_format_2(directory: Path) -> None:
    shutil.copytree(FORMAT_2, directory)


RUNS = {
    "make": (lambda directory: None, make),
    "index": (build, make),
    "forget": (build, forget),
    "prune": (build, prune),
    "publish": (build, publish),
    "grow": (build, grow),
    "mend rows": (break_rows, mend),
    "restore": (break_layout, mend),
    "upgrade": (copy_format_2, lambda directory: IndexWriter.resume(directory).close()),
}


DAMAGED = ("mend rows", "restore")


def tuning_of(directory: Path) -> Tuning | None:
    with IndexReader.open(directory) as store:
        return store.summary().tuning


def found(directory: Path) -> Answer:
    try:
        return answer(directory)
    except StoreError as error:
        if "made by model" in str(error) or "no index at" in str(error) or "index format 2" in str(error):
            return []
        raise


@pytest.mark.parametrize("name", [name for name in RUNS if name != "grow"])
def test_any_write_may_fail(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "IMAGES", range(12))
    monkeypatch.setattr(small, "OTHERS", range(60, 63))
    asked = refuse_each(tmp_path, name, step=4 if name in DAMAGED else 1)  # most of what repairing asks is reading
    assert asked > 20


@pytest.mark.parametrize("name", ["grow", "prune"])  # lists that are there take in more; lists are chosen anew
def test_any_write_of_lists_may_fail(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "IMAGES", range(30))
    monkeypatch.setattr(small, "OTHERS", range(60, 63))
    with searched("lists"):
        refuse_each(tmp_path, name, step=4)
        assert tuning_of(tmp_path / "index") is not None


def refuse_each(tmp_path: Path, name: str, step: int) -> int:
    """Refuse one of `step` things that a run asks of the disk, in turn; how many it asks."""
    begin, run = RUNS[name]
    begun, directory = tmp_path / "begun", tmp_path / "index"
    begin(begun)

    def start() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        if begun.exists():
            shutil.copytree(begun, directory)

    def complete() -> Answer:
        run(directory)
        if name in DAMAGED:
            bring_up_to_date(directory)
        assert list(check_index(directory)) == []
        return found(directory)

    start()
    disk = Disk()
    with disk.in_use():
        run(directory)
    expected = complete()
    for refused in range(0, disk.asked, step):
        start()
        said = ""
        try:
            with Disk(refused).in_use():
                run(directory)
        except StoreError as error:
            said = str(error)
        assert "\n" not in said and (not said or str(directory) in said)
        if name not in DAMAGED and found(directory):
            assert list(check_index(directory)) == [], f"after {refused}: {said}"
        assert complete() == expected, f"after {refused}: {said}"
    return disk.asked


@pytest.mark.parametrize(
    ("way", "name"),
    [*(("exact", name) for name in ("make", "index", "prune", "publish", "restore")), ("lists", "publish")],
)
def test_any_file_may_not_grow(tmp_path: Path, way: str, name: str) -> None:
    """As on a full disk, in the middle of what SQLite and FAISS write."""
    with searched(way):
        refuse_to_grow(tmp_path, name, range(8192, 8192 * (24 if way == "exact" else 8), 8192 - 512))


def refuse_to_grow(tmp_path: Path, name: str, sizes: Iterable[int]) -> None:
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    begin, run = RUNS[name]
    begin(tmp_path / "begun")
    if (tmp_path / "begun").exists():
        shutil.copytree(tmp_path / "begun", tmp_path / "expected")
    run(tmp_path / "expected")
    expected = found(tmp_path / "expected")
    assert expected
    refused = 0
    for size in sizes:
        directory = tmp_path / "index"
        shutil.rmtree(directory, ignore_errors=True)
        if (tmp_path / "begun").exists():
            shutil.copytree(tmp_path / "begun", directory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            run(directory)
        except StoreError as error:
            assert "\n" not in (said := str(error)) and str(directory) in said  # noqa: PT017
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if name not in DAMAGED and found(directory):
            assert list(check_index(directory)) == []
        assert not list(directory.glob(".*.partial*"))
        run(directory)
        assert list(check_index(directory)) == []
        assert found(directory) == expected
    assert refused > 2


def test_restoring_may_be_killed_at_any_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a log that a reader still needs, which belongs to the damaged manifest alone."""
    directory = tmp_path / "index"
    instants: list[Path] = []
    build(directory)
    expected = answer(directory)
    with IndexReader.open(directory):
        with IndexWriter.resume(directory) as writer:
            writer.commit(images=[image(300)], files=[(photo(300), image(300).hash)])
            writer.catalog._db.execute("DROP TRIGGER file_gone")
        assert (directory / "manifest.sqlite-wal").stat().st_size

        def recording(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **options: Any) -> Any:
                instants.append(tmp_path / str(len(instants)))
                shutil.copytree(directory, instants[-1], ignore=shutil.ignore_patterns("*-shm"))
                return function(*arguments, **options)

            return called

        with monkeypatch.context() as patches:
            for name in ("replace", "unlink", "fsync"):
                patches.setattr(os, name, recording(REAL[name]))
            restore(directory / "manifest.sqlite", "a trigger is missing")
    assert len(instants) >= 6
    for instant in [*instants, directory]:
        repair_index(instant)
        assert list(check_index(instant)) == []
        assert answer(instant) == expected, instant.name


def test_a_copy_has_room_or_the_one_before_stays(tmp_path: Path) -> None:
    """As on a disk that is full in the middle of it."""
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    build(tmp_path)
    copied = tmp_path / "manifest.backup.sqlite"
    before = copied.read_bytes()
    with IndexWriter.resume(tmp_path) as writer:
        writer.commit(images=[image(n) for n in MORE], files=[(photo(n), image(n).hash) for n in MORE])
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        try:
            note = writer.back_up_if_behind()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert note is not None and str(copied) in note and "\n" not in note
        assert copied.read_bytes() == before and not list(tmp_path.glob(".*.partial*"))
        assert writer.back_up_if_behind() is None
    assert copied.read_bytes() != before


def test_where_there_is_no_room_a_damaged_manifest_is_left_as_it_is(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    break_layout(tmp_path)
    catalog = tmp_path / "manifest.sqlite"
    before = catalog.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(StoreError, match="make room"):
            repair_index(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert catalog.read_bytes() == before
    assert not [*tmp_path.glob("manifest.sqlite.*"), *tmp_path.glob(".*.partial*")]
    assert repair_index(tmp_path).left == ()
