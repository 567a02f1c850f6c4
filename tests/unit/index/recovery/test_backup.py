"""The copy of a manifest: when it is made, and what cannot harm it or come back with it."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridgetower.errors import DamagedIndexError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.maintenance import forget, prune
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.retrieval import indexing
from bridgetower.retrieval.indexing import index
from bridgetower.transfer.export import export
from bridgetower.transfer.import_index import import_folder
from tests.fakes import FakeEncoder, paint
from tests.indexes import ENVIRONMENT, FINGERPRINT, PRELUDE, add, assert_holds, build, image, path_of

pytestmark = pytest.mark.usefixtures("decode_here")

COPY = "manifest.backup.sqlite"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An index of a hundred images, with its copy."""
    build(tmp_path / "index", *range(100))
    return tmp_path / "index"


def copied_images(directory: Path) -> int:
    with closing(Catalog.read_copy(directory / COPY)) as copy:
        assert list(copy.damage()) == []
        return copy.count_images()


def run(directory: Path, *numbers: int, changed: bool = True) -> str | None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        if numbers:
            add(writer, *numbers)
        return writer.finish(changed=changed)


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000))


def tear(directory: Path) -> None:
    """Damage the manifest so that it is read as before, and only a check of all of it shows that."""
    with IndexWriter.resume(directory) as writer:
        writer.catalog._db.execute("DROP TRIGGER file_gone")


# When it is made


def test_a_run_copies_what_more_than_a_twentieth_was_added_to(directory: Path) -> None:
    assert copied_images(directory) == 100
    run(directory, *range(100, 105))
    assert copied_images(directory) == 100
    run(directory, 105)
    assert copied_images(directory) == 106


def test_files_that_are_gone_count_too(directory: Path) -> None:
    for gone, expected in (([0, 1, 2, 3, 4], 0), ([5], 6)):
        with IndexWriter.open(directory, FINGERPRINT) as writer:
            writer.drop(map(path_of, gone))
            writer.finish()
        with closing(Catalog.read_copy(directory / COPY)) as copy:
            assert copy.count_orphans() == expected


def test_how_much_a_copy_lacks_outlives_a_kill(directory: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, *range(100, 110))
    assert copied_images(directory) == 100
    run(directory, changed=False)
    assert copied_images(directory) == 110


def test_an_index_that_had_no_copy_yet_is_as_it_was_and_gets_one(directory: Path) -> None:
    (directory / COPY).unlink()
    before = (directory / "manifest.sqlite").read_bytes()
    assert list(check_index(directory)) == []
    with IndexReader.open(directory) as store:
        assert store.strays() == []
    IndexWriter.open(directory, FINGERPRINT).close()
    assert (directory / "manifest.sqlite").read_bytes() == before and not (directory / COPY).exists()
    run(directory, 100)
    assert copied_images(directory) == 101


def test_an_index_without_pictures_needs_none(tmp_path: Path) -> None:
    assert run(tmp_path / "index") is None
    assert not (tmp_path / "index" / COPY).exists()


def test_forgetting_and_pruning_always_renew_it(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        assert forget(writer, [path_of(7)]).note is None
    with closing(Catalog.read_copy(directory / COPY)) as copy:
        assert (copy.known(path_of(7)), copy.count_orphans(), copy.count_images()) == (None, 1, 100)
    with IndexWriter.resume(directory) as writer:
        assert prune(writer).images == 1
    assert copied_images(directory) == 99


def test_the_copy_of_another_index_is_replaced(directory: Path, tmp_path: Path) -> None:
    shutil.copy(directory / COPY, tmp_path)
    shutil.rmtree(directory)
    build(directory, *range(200, 300))
    with IndexWriter.resume(directory) as writer, writer.catalog.transaction():
        writer.catalog._set_state(created_at=1)
    shutil.copy(tmp_path / COPY, directory)
    run(directory, changed=False)
    with closing(Catalog.read_copy(directory / COPY)) as copy:
        assert copy.image_id(image(200).hash) is not None


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(12):
        paint(tmp_path / "photos" / f"{number:02}.png", (number * 20, 255 - number * 20, 40))
    return tmp_path / "photos"


def index_photos(photos: Path, directory: Path, stop_at: int | None = None) -> indexing.IndexReport:
    def watch(progress: indexing.Progress) -> None:
        if progress.encoded == stop_at:
            raise KeyboardInterrupt

    fake = FakeEncoder()
    with IndexWriter.open(directory, fake.fingerprint) as writer:
        fake.batch_size = 4
        return index([photos], writer, lambda: Model.from_parts(fake), on_progress=watch)


def test_a_run_that_is_broken_off_makes_none_and_the_next_one_does(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        index_photos(photos, tmp_path / "new", stop_at=8)
    with IndexReader.open(tmp_path / "new") as store:
        assert len(store) == 8
    assert not (tmp_path / "new" / COPY).exists()
    assert index_photos(photos, tmp_path / "new").encoded == 4
    assert copied_images(tmp_path / "new") == 12


def test_an_import_makes_one(directory: Path, tmp_path: Path) -> None:
    with IndexReader.open(directory) as store:
        export(store, tmp_path / "export")
    assert import_folder(tmp_path / "export", tmp_path / "other").note is None
    assert copied_images(tmp_path / "other") == 100


# Where it cannot be made


def test_without_room_a_run_says_so_and_the_copy_from_before_stays(
    photos: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (directory / COPY).read_bytes()
    fill_the_disk(monkeypatch)
    note = run(directory, *range(100, 110))
    assert note is not None and str(directory / COPY) in note and "make room" in note
    assert (directory / COPY).read_bytes() == before
    assert list(check_index(directory)) == []
    report = index_photos(photos, tmp_path / "new")
    assert report.encoded == 12 and report.note is not None and "make room" in report.note
    with IndexReader.open(directory) as store:
        export(store, tmp_path / "export")
    assert import_folder(tmp_path / "export", tmp_path / "other").note is not None


def test_without_room_what_was_forgotten_cannot_come_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch)
    for way in (lambda writer: forget(writer, [path_of(7)]), prune):
        with IndexWriter.resume(directory) as writer:
            note = way(writer).note
        assert note is not None and "make room" in note
        assert not (directory / COPY).exists()
    monkeypatch.undo()
    run(directory, changed=False)
    assert copied_images(directory) == 99


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_what_a_kill_in_the_middle_of_forgetting_leaves_brings_nothing_back(directory: Path) -> None:
    script = f"""{PRELUDE}
import signal
from bridgetower.index import maintenance
from bridgetower.index.recovery import backup
backup.make = lambda catalog: os.kill(os.getpid(), signal.SIGKILL)
with IndexWriter.resume(Path(sys.argv[1])) as writer:
    maintenance.forget(writer, [file(7)[0].path])
"""
    done = subprocess.run([sys.executable, "-c", script, str(directory)], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    with IndexReader.open(directory) as store:
        assert len(store) == 99
    assert not (directory / COPY).exists()
    run(directory, changed=False)
    assert copied_images(directory) == 100


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
@pytest.mark.parametrize("where", ["damage", "fsync_directory"])
def test_a_kill_in_the_middle_of_a_copy_leaves_one_that_is_whole(directory: Path, where: str) -> None:
    """Before the new one has the name, or as soon as it has it."""
    script = f"""{PRELUDE}
import signal
from bridgetower.files import atomic
from bridgetower.index.recovery import backup
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
with IndexWriter.resume(Path(sys.argv[1])) as writer:
    writer.commit(images=map(image, range(100, 110)), files=map(file, range(100, 110)))
    writer.publish()
    backup.damage = atomic.fsync_directory = die
    if sys.argv[2] == "fsync_directory":
        backup.damage = lambda path: iter(())
    writer.back_up_if_behind()
"""
    command = [sys.executable, "-c", script, str(directory), where]
    assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode == -signal.SIGKILL
    unfinished = list(directory.glob(f".{COPY}.*.partial"))
    assert len(unfinished) == (where == "damage")
    assert copied_images(directory) == (100 if where == "damage" else 110)
    assert list(check_index(directory)) == []
    run(directory, changed=False)
    assert copied_images(directory) == 110
    assert not list(directory.glob(".*.partial*"))


def test_a_copy_that_is_broken_off_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, *range(100, 110))
        writer.publish()
        with monkeypatch.context() as patches:
            patches.setattr("os.fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.finish()
    assert copied_images(directory) == 100
    assert not list(directory.glob(".*.partial*"))


def test_a_damaged_manifest_takes_no_place_of_a_good_copy(directory: Path) -> None:
    tear(directory)
    before = (directory / COPY).read_bytes()
    note = run(directory, *range(100, 110))
    assert note is not None and "`bt verify --repair`" in note
    for way in (lambda writer: forget(writer, [path_of(7)]), prune):
        with IndexWriter.resume(directory) as writer, pytest.raises(DamagedIndexError, match="file_gone"):
            way(writer)
    assert (directory / COPY).read_bytes() == before and not list(directory.glob(".*.partial*"))
    assert repair_index(directory).left == ()
    assert_holds(directory, *range(100))


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_nothing_is_written_through_a_link_in_its_place(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    (directory / COPY).unlink()
    (directory / COPY).symlink_to(tmp_path / "letter")
    note = run(directory, *range(100, 110))
    assert note is not None and "not a file but a link" in note
    with IndexWriter.resume(directory) as writer:
        forget(writer, [path_of(7)])
    assert (directory / COPY).is_symlink() and (tmp_path / "letter").read_text() == "mine"
    assert list(check_index(directory)) == []


# When it is restored


def test_what_was_forgotten_stays_forgotten_and_the_rest_is_there(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        forget(writer, [path_of(7)])
    run(directory, 100, 101)
    tear(directory)
    repaired = repair_index(directory)
    assert repaired.restored is not None and (repaired.restored.images, repaired.restored.files) == (100, 99)
    assert (repaired.left, repaired.note) == ((), None)
    assert_holds(directory, *range(7), *range(8, 100))
    with IndexWriter.resume(directory) as writer:
        assert writer.catalog.image_id(image(7).hash) is not None  # its vector is kept until `prune`
    run(directory, 100, 101)
    assert list(check_index(directory)) == []


def test_a_damaged_log_gives_way_to_a_copy_that_is_later(directory: Path, tmp_path: Path) -> None:
    """What was forgotten in the part of the log that is lost would else come back."""
    with IndexReader.open(directory):  # so that the log stays
        with IndexWriter.open(directory, FINGERPRINT) as writer:
            add(writer, 100)
            add(writer, 101)
            forget(writer, [path_of(7)])
        shutil.copytree(directory, tmp_path / "damaged", ignore=shutil.ignore_patterns("*-shm"))
    log = tmp_path / "damaged" / "manifest.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[32 + 24 + 4000] ^= 1
    log.write_bytes(content)
    repaired = repair_index(tmp_path / "damaged")
    assert repaired.log is not None and repaired.restored is not None and repaired.left == ()
    assert_holds(tmp_path / "damaged", *range(7), *range(8, 102))


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_sqlite_would_apply_to_the_damaged_manifest_goes_along_with_it(directory: Path, suffix: str) -> None:
    beside = directory / f"manifest.sqlite{suffix}"
    beside.write_bytes(b"of the damaged one")
    (directory / "manifest.sqlite").write_bytes(b"this is not SQLite" * 1000)
    restored = repair_index(directory).restored
    assert restored is not None and restored.kept is not None
    assert restored.kept.with_name(restored.kept.name + suffix).read_bytes() == b"of the damaged one"
    assert_holds(directory, *range(100))


def test_rows_of_a_copy_that_are_not_whole_are_dropped(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        writer.catalog._db.execute("UPDATE images SET width = 5 WHERE id = 3")
        assert writer.back_up() is None
    tear(directory)
    assert {finding.part for finding in check_index(directory)} == {"manifest", "images", "backup"}
    repaired = repair_index(directory)
    assert repaired.restored is not None and repaired.left == ()
    assert repaired.dropped == (path_of(2),)
    assert_holds(directory, *range(2), *range(3, 100))
    assert copied_images(directory) == 99
