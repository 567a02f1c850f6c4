"""What happens around an index while it is used: others at work, clocks that jump, rights and drives that go away."""

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bridgetower
from bridgetower.errors import InputError, PictureError, StoreError
from bridgetower.files import walk
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.maintenance import prune
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.records import Skipped, WalkedFile
from bridgetower.retrieval import indexing
from bridgetower.retrieval.indexing import index
from tests.fakes import FakeEncoder, paint
from tests.faults.ordeal import contents
from tests.faults.small import IMAGES, answer, build, image, photo


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    build(tmp_path / "index")
    return tmp_path / "index"


# Others at work


def test_a_reader_keeps_its_state_while_the_index_is_pruned_made_smaller_and_repaired(directory: Path) -> None:
    before = answer(directory)
    with IndexReader.open(directory) as pruned_under, IndexReader.open(directory) as repaired_under:
        with IndexWriter.resume(directory) as writer:
            writer.drop([photo(number).path for number in IMAGES[:50]])
            assert sum(writer.prune()) == 59
            writer.tidy()
            writer.catalog.vacuum()
            assert writer.back_up_if_behind() is None
        assert len(answer(directory)) == 10
        found = [(c.content, frozenset(c.files)) for c in pruned_under.nearest(image(0).vector[None])]
        assert sorted(found, key=str) == sorted(((hash, photos) for hash, photos, _ in before), key=str)
        with IndexWriter.resume(directory) as writer:
            writer.catalog._db.execute("DROP TRIGGER file_gone")
        assert repair_index(directory).restored is not None
        assert len(answer(directory)) == 10
        found = [(c.content, frozenset(c.files)) for c in repaired_under.nearest(image(0).vector[None])]
        assert sorted(found, key=str) == sorted(((hash, photos) for hash, photos, _ in before), key=str)


def test_an_index_is_verified_beside_its_writer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Catalog.read
    with IndexWriter.resume(directory) as writer:
        assert list(check_index(directory)) == []

        def read_slowly(path: Path) -> Catalog:  # a new vector file takes the place of the old one meanwhile
            catalog = read(path)
            writer.publish()
            return catalog

        monkeypatch.setattr(Catalog, "read", read_slowly)
        assert list(check_index(directory)) == []
        with pytest.raises(StoreError, match=f"process {os.getpid()} on .* has been writing this index since"):
            repair_index(directory)
        with pytest.raises(StoreError, match="has been writing this index since"):
            IndexWriter.resume(directory)


READ_ONLY = """
import os, sys
from pathlib import Path
import bridgetower.index.vectors.faiss.flat, bridgetower.index.maintenance
from bridgetower.index.reader import IndexReader
from bridgetower.index.check import repair_index, check_index
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
place = Path(sys.argv[1])
print(list(check_index(place)))
with IndexReader.open(place) as store:
    print(bridgetower.index.maintenance.would_prune(store).images)
try:
    repair_index(place)
except Exception as error:
    print(type(error).__name__, error)
"""


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[Path]:
    """A copy that others may read and not write."""
    place = Path(tempfile.mkdtemp())
    shutil.copytree(directory, place / "index")
    for path in (place, *place.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield place / "index"
    for path in (place, *(path for path in place.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_read_only_index_is_verified_and_not_repaired(directory: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(bridgetower.__file__).parents[1])}
    with read_only(directory) as copy:
        command = [sys.executable, "-W", "error", "-c", READ_ONLY, str(copy)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found, orphans, refused = done.stdout.splitlines()
        assert (found, orphans) == ("[]", "9")
        assert refused.startswith("StoreError") and "make its folder writable" in refused


# Clocks


@pytest.mark.parametrize("now", [0.0, -86400.0 * 365, 4_102_444_800.0])
def test_a_clock_that_jumps_changes_no_content(directory: Path, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    before = answer(directory)
    monkeypatch.setattr("time.time", lambda: now)
    with IndexWriter.resume(directory) as writer:
        writer.catalog.meet(WalkedFile(os.fsencode(photo(n).path), photo(n).size, photo(n).mtime_ns) for n in IMAGES)
        assert writer.sweep(Path("/photos")).removed == 1  # the skipped file
        writer.publish()
    assert answer(directory) == before
    assert list(check_index(directory)) == []
    with IndexReader.open(directory) as store:
        summary = store.summary()
        assert summary.updated_at == int(now) and summary.roots[0].scanned_at == int(now)


# Drives


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(40):
        paint(tmp_path / "drive" / f"{number // 10}" / f"{number:02}.png", (number, 255 - number, 40))
    return tmp_path / "drive"


def run(photos: Path, directory: Path) -> indexing.IndexReport:
    fake = FakeEncoder()
    with IndexWriter.open(directory, fake.fingerprint) as writer:
        return index([photos], writer, lambda: Model.from_parts(fake))


@pytest.mark.parametrize("fails", ["listing", "looking", "reading"])
def test_a_drive_that_fails_in_the_middle_of_a_run_loses_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    directory = tmp_path / "another"
    run(photos, directory)
    before = contents(directory)
    scandir, look_at = os.scandir, walk._Walk._file

    def listing(folder: bytes) -> object:
        path = Path(os.fsdecode(folder))
        if path.parent == photos and path.name >= "2":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(folder)

    def looking(one: walk._Walk, path: bytes, look: Callable[[], os.stat_result], beside: dict) -> WalkedFile | Skipped:
        def failing() -> os.stat_result:
            raise OSError(errno.EIO, "Input/output error", os.fsdecode(path))

        return look_at(one, path, failing if Path(os.fsdecode(path)).name >= "20" else look, beside)

    def reading(path: Path) -> bytes:
        if path.name >= "20":
            raise PictureError(path, "Input/output error")
        return path.read_bytes()

    with monkeypatch.context() as patch:
        if fails == "listing":
            patch.setattr("bridgetower.files.walk.os.scandir", listing)
        elif fails == "looking":
            patch.setattr(walk._Walk, "_file", looking)
        else:
            for path in photos.rglob("*.png"):
                os.utime(path, ns=(1, 1))
            patch.setattr("bridgetower.files.content.read", reading)
        report = run(photos, directory)
        assert report.removed == 0 and report.skipped
    after = contents(directory)
    assert {photo.path for photo in after} == {photo.path for photo in before}
    assert set(after.values()) == set(before.values())
    assert list(check_index(directory)) == []
    report = run(photos, directory)
    assert (report.encoded, report.removed, report.skipped) == (0, 0, ())


def test_a_drive_that_goes_away_in_the_middle_of_a_run_loses_nothing(photos: Path, tmp_path: Path) -> None:
    directory, fake = tmp_path / "another", FakeEncoder()
    fake.batch_size = 4
    run(photos, directory)
    before = {photo.path: content for photo, content in contents(directory).items()}
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(1, 1))

    def unmount(progress: indexing.Progress) -> None:
        if progress.done == 20 and photos.exists():
            photos.rename(tmp_path / "elsewhere")

    with IndexWriter.open(directory, fake.fingerprint) as writer:
        report = index([photos], writer, lambda: Model.from_parts(fake), on_progress=unmount)
    assert report.removed == 0
    with pytest.raises(InputError, match="no such file or folder"):
        run(photos, directory)
    photos.mkdir()  # the empty mount point
    assert run(photos, directory).absent == (photos,)
    with IndexWriter.resume(directory) as writer:
        assert prune(writer).absent == (photos,)
    assert {photo.path: content for photo, content in contents(directory).items()} == before
    photos.rmdir()
    (tmp_path / "elsewhere").rename(photos)
    assert run(photos, directory).encoded == 0
    assert list(check_index(directory)) == []


def test_a_full_disk_leaves_a_sound_index_readable(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has no room for its shared memory there; on a tmpfs without space it fails in this way."""
    with IndexReader.open(directory) as reader:
        expected = len(reader)
    opened: list[bool] = []
    snapshot = Catalog._snapshot.__func__  # type: ignore[attr-defined]

    def on_a_full_disk(cls: type[Catalog], path: Path, *, immutable: bool) -> Catalog:
        opened.append(immutable)
        if not immutable:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error
        found: Catalog = snapshot(cls, path, immutable=immutable)
        return found

    monkeypatch.setattr(Catalog, "_snapshot", classmethod(on_a_full_disk))
    with IndexReader.open(directory) as reader:
        assert len(reader) == expected
    assert list(check_index(directory)) == []
    assert opened[:2] == [False, True]
    (directory / "manifest.sqlite-wal").write_bytes(b"not yet in the manifest")
    with pytest.raises(StoreError, match="the disk is full: make room"):
        IndexReader.open(directory)
