"""A power cut: the order in which files reach the disk, get their names, and are named by a commit.

Killing a process cannot show it, as the system goes on writing. So the calls are watched.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bridgetower.files.atomic import replace_file
from bridgetower.index.maintenance import forget
from bridgetower.index.recovery.backup import keep_log, restore
from bridgetower.index.writer import IndexWriter
from tests.faults.small import FINGERPRINT, bring_up_to_date, build, image, photo, searched

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the file of a descriptor is not known here")

REAL_FSYNC, REAL_REPLACE = os.fsync, os.replace


@contextmanager
def watched(writer: IndexWriter | None = None) -> Iterator[list[str]]:
    """What is put on the disk, renamed and committed, in order: "fsync NAME", "rename OLD NEW", "commit"."""
    calls: list[str] = []

    def fsync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        calls.append(f"fsync {name}")
        REAL_FSYNC(descriptor)

    def replace(old: Any, new: Any) -> None:
        calls.append(f"rename {Path(old).name} {Path(new).name}")
        REAL_REPLACE(old, new)

    def statement(sql: str) -> None:
        if sql == "COMMIT":
            calls.append("commit")

    if writer is not None:
        writer.catalog._db.set_trace_callback(statement)
    with patch("os.fsync", fsync), patch("os.replace", replace):
        yield calls
    if writer is not None:
        writer.catalog._db.set_trace_callback(None)


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """SQLite puts a transaction on the disk by itself, in this setting: 2 is FULL."""
    build(tmp_path / "index")
    for way in (
        lambda: IndexWriter.open(tmp_path / "index", FINGERPRINT),
        lambda: IndexWriter.resume(tmp_path / "index"),
    ):
        with way() as writer:
            assert writer.catalog._db.execute("PRAGMA synchronous").fetchone() == (2,)
            assert writer.catalog._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("way", ["exact", "lists"])
def test_a_vector_file_is_on_the_disk_before_it_gets_its_name_and_is_named(tmp_path: Path, way: str) -> None:
    with searched(way):
        build(tmp_path / "index")
        with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer, watched(writer) as calls:
            writer.publish()
    codes = ["vectors-3.codes"] if way == "lists" else []
    files = [*codes, "vectors-3.faiss"]
    assert calls == [
        *(f"fsync {name}.tmp" for name in files),
        *(f"rename {name}.tmp {name}" for name in files),
        "fsync index",
        "commit",
    ]


def test_lists_that_are_trained_again_are_on_the_disk_before_a_name_changes(tmp_path: Path) -> None:
    """The file of codes is written twice: with the lists as they were, and with the new ones."""
    with searched("lists"), patch("bridgetower.index.vectors.faiss.build.serves", lambda *_: False):
        build(tmp_path / "index")
        with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
            added = range(100, 110)
            writer.commit(images=[image(n) for n in added], files=[(photo(n), image(n).hash) for n in added])
            with watched(writer) as calls:
                writer.publish()
    assert calls == [
        "fsync vectors-3.codes.tmp",
        "fsync vectors-3.codes.tmp",
        "fsync vectors-3.faiss.tmp",
        "rename vectors-3.codes.tmp vectors-3.codes",
        "rename vectors-3.faiss.tmp vectors-3.faiss",
        "fsync index",
        "commit",
    ]


def test_a_new_folder_is_on_the_disk_before_anything_is_committed_in_it(tmp_path: Path) -> None:
    with watched() as calls, IndexWriter.open(tmp_path / "some" / "where" / "index", FINGERPRINT):
        pass
    assert calls[:3] == ["fsync where", "fsync some", f"fsync {tmp_path.name}"]


def test_a_copy_is_on_the_disk_before_it_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    build(tmp_path / "index")
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer, watched() as calls:
        assert writer.back_up() is None
    [first, second, third] = calls
    unfinished = first.removeprefix("fsync ")
    assert unfinished.startswith(".manifest.backup.sqlite.")
    assert (second, third) == (f"rename {unfinished} manifest.backup.sqlite", "fsync index")


def test_the_copy_is_gone_from_the_disk_before_anything_is_forgotten(tmp_path: Path) -> None:
    build(tmp_path / "index")
    with IndexWriter.resume(tmp_path / "index") as writer:
        copied, real = tmp_path / "index" / "manifest.backup.sqlite", os.unlink

        def unlink(path: Any, **options: Any) -> None:
            calls.append(f"unlink {Path(path).name}")
            real(path, **options)

        with watched(writer) as calls, patch("os.unlink", unlink):
            forget(writer, [photo(1).path])
        assert calls[:3] == ["unlink manifest.backup.sqlite", "fsync index", "commit"]
        assert copied.exists()


def test_a_damaged_manifest_and_its_log_have_other_names_before_the_copy_has_theirs(tmp_path: Path) -> None:
    """Without its log a manifest may look like an older state that is sound; with that log another would be damaged."""
    directory = tmp_path / "killed"
    build(tmp_path / "index")
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.commit(images=[image(100)], files=[(photo(100), image(100).hash)])
        shutil.copytree(tmp_path / "index", directory)
    with watched() as calls:
        kept = restore(directory / "manifest.sqlite", "a page is damaged").kept
    assert kept is not None and kept.exists()
    *others, fsync, rename, last = calls
    assert others == [
        f"rename manifest.sqlite {kept.name}",
        "fsync killed",
        f"rename manifest.sqlite-wal {kept.name}-wal",
        "fsync killed",
    ]
    unfinished = fsync.removeprefix("fsync ")
    assert unfinished.startswith(".manifest.sqlite.")
    assert (rename, last) == (f"rename {unfinished} manifest.sqlite", "fsync killed")
    assert not (directory / "manifest.sqlite-wal").exists() and not (directory / "manifest.sqlite-shm").exists()


def test_a_replaced_file_is_on_the_disk_before_it_has_the_name(tmp_path: Path) -> None:
    with watched() as calls:
        replace_file(tmp_path / "file", lambda path: path.write_text("new"))
    first, second, third = calls
    unfinished = first.removeprefix("fsync ")
    assert unfinished.startswith(".file.") and second == f"rename {unfinished} file"
    assert third == f"fsync {tmp_path.name}"


def test_the_copy_of_a_damaged_log_is_on_the_disk_before_the_log_goes(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    build(directory)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(100)], files=[(photo(100), image(100).hash)])
        shutil.copytree(directory, tmp_path / "killed")
    log = tmp_path / "killed" / "manifest.sqlite-wal"
    size = log.stat().st_size
    sizes = []

    def replace(old: Path, new: Path) -> None:
        sizes.append(log.stat().st_size)
        REAL_REPLACE(old, new)

    with patch("os.replace", replace):
        kept = keep_log(tmp_path / "killed" / "manifest.sqlite")
    assert sizes == [size] == [kept.stat().st_size]
    assert not log.exists() or not log.stat().st_size
    bring_up_to_date(tmp_path / "killed")
