"""One writer and many readers at an index: what each sees of the others, and what is left when one is killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridgetower.errors import StoreError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from tests.indexes import (
    FINGERPRINT,
    PRELUDE,
    add,
    assert_answers,
    assert_holds,
    build,
    first_line,
    image,
    path_of,
    run,
    start,
    vector_files,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "somewhere" / "index"


# Readers


def test_readers_see_one_state_whole_while_the_writer_goes_on(directory: Path) -> None:
    build(directory, *range(10))
    query = image(500).vector
    with (
        IndexReader.open(directory) as early,
        IndexReader.open(directory) as unused,
        IndexWriter.open(directory, FINGERPRINT) as writer,
    ):
        assert_answers(early, query, *range(10))
        add(writer, *range(10, 30))
        writer.forget(path_of(3))
        with IndexReader.open(directory) as late:
            writer.finish()  # removes the vector file that the first two opened
            assert vector_files(directory) == ["vectors-2.faiss"]
            after = [n for n in range(30) if n != 3]
            assert_answers(early, query, *range(10))
            assert_answers(unused, query, *range(10))
            assert_answers(late, query, *after)
            assert unused.summary().files == 10
            assert unused.catalog.paths_of(4) == (path_of(3),)
    assert_holds(directory, *after)


def test_a_reader_that_finds_its_vector_file_removed_takes_the_state_that_has_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(directory, *range(10))
    read = Catalog.read

    def read_slowly(path: Path) -> Catalog:  # the writer publishes between the snapshot and the opening of the file
        monkeypatch.undo()
        catalog = read(path)
        build(directory, *range(10, 20))
        assert vector_files(directory) == ["vectors-2.faiss"]
        return catalog

    monkeypatch.setattr(Catalog, "read", read_slowly)
    with IndexReader.open(directory) as store:
        assert_answers(store, image(500).vector, *range(20))
        assert store.damage is None


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[Path]:
    """A copy that others may read and not write, where the owner's rights do not reach past the permissions."""
    place = Path(tempfile.mkdtemp())
    copy = place / "index"
    shutil.copytree(directory, copy)
    for path in (place, copy, *copy.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield copy
    place.chmod(0o755)
    copy.chmod(0o755)
    shutil.rmtree(place)


READ_ONLY = (
    PRELUDE
    + """
import bridgetower.index.vectors.faiss.flat  # before the rights go, which may be needed to import anything
query = image(3).vector[None]
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    with IndexReader.open(Path(sys.argv[1])) as store:
        print(len(store.recall(query, 100)[0]), store.recall(query, 1)[0][0].image)
except Exception as error:
    print(type(error).__name__, error)
try:
    IndexWriter.open(Path(sys.argv[1]), FINGERPRINT)
except Exception as error:
    print(type(error).__name__, error)
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_read_only_index_can_be_searched(directory: Path) -> None:
    build(directory, *range(10))
    with read_only(directory) as copy:
        before = {path.name: path.read_bytes() for path in copy.iterdir()}
        assert set(before) == {"manifest.sqlite", "manifest.backup.sqlite", "vectors-1.faiss", "writer.lock"}
        found, refused = run(READ_ONLY, copy)
        assert found == "10 4"
        assert refused.startswith("StoreError") and "make its folder writable" in refused
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_read_only_copy_of_an_index_that_was_being_written_is_read_whole_or_refused(directory: Path) -> None:
    build(directory, *range(5))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, *range(5, 10))
        with read_only(directory) as copy:
            assert (copy / "manifest.sqlite-wal").stat().st_size > 0
            assert run(READ_ONLY, copy)[0] == "10 4"
        shm = directory / "manifest.sqlite-shm"
        hidden = shm.read_bytes()
        with read_only(directory) as copy:
            (copy.parent).chmod(0o755)
            copy.chmod(0o755)
            (copy / shm.name).unlink()
            copy.chmod(0o555)
            assert run(READ_ONLY, copy)[0].startswith("StoreError")  # never the old half alone
        assert shm.read_bytes() == hidden


def test_a_manifest_that_changes_under_a_reader_without_locks_is_noticed(directory: Path) -> None:
    build(directory, *range(10))
    catalog = Catalog._snapshot(directory / "manifest.sqlite", immutable=True)
    assert catalog.counts().files == 10
    build(directory, 10)
    with pytest.raises(StoreError, match="changed while it was read"):
        catalog.counts()
    catalog.close()


# Writers


HOLD = """
writer = IndexWriter.open(Path(sys.argv[1]), FINGERPRINT)
print("holds", flush=True)
time.sleep(60)
"""


def test_a_second_writer_learns_who_is_at_work_and_a_dead_one_is_no_obstacle(directory: Path) -> None:
    holder = start(HOLD, directory)
    try:
        assert first_line(holder) == "holds"
        signed = json.loads((directory / "writer.lock").read_text())
        assert signed["pid"] == holder.pid
        message = rf"{re.escape(str(directory))}: process {holder.pid} on {re.escape(signed['host'])} .* since 20\d\d-"
        with pytest.raises(StoreError, match=message):
            IndexWriter.open(directory, FINGERPRINT)
        assert json.loads((directory / "writer.lock").read_text()) == signed
        IndexReader.open(directory).close()  # readers do not care
    finally:
        holder.kill()
        holder.communicate()
    build(directory, 1)
    assert_holds(directory, 1)


def test_a_second_writer_in_the_same_process_is_refused_too(directory: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            IndexWriter.open(directory, FINGERPRINT)
        add(writer, 1)
    build(directory, 2)
    assert_holds(directory, 1, 2)


COMMIT_FOR_EVER = """
import bridgetower.index.vectors.faiss.store
bridgetower.index.vectors.faiss.store._UNCOVERED_MIN = 20  # publish often, to be killed there too
writer = IndexWriter.open(Path(sys.argv[1]), FINGERPRINT)
for start in range(int(sys.argv[2]), 100_000, 4):
    batch = range(start, start + 4)
    writer.commit(images=[image(n) for n in batch], files=[file(n) for n in batch])
    print(start + 4, flush=True)
    if start % 40 == 0:
        writer.publish()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killing_the_writer_loses_no_committed_batch(directory: Path) -> None:
    committed = 0
    for round in range(5):
        writer = start(COMMIT_FOR_EVER, directory, str(committed))
        lines = [first_line(writer) for _ in range(5 + 7 * round)]
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        committed = int([*lines, *rest.split()][-1])
        with IndexReader.open(directory) as store:
            found = len(store)
        assert found in (committed, committed + 4)  # the last batch may have been committed and not reported
        committed = found
        assert_holds(directory, *range(committed))
    with IndexWriter.open(directory, FINGERPRINT) as last:
        last.finish()
        assert len(vector_files(directory)) == 1
    assert_holds(directory, *range(committed))
