"""A file that was replaced or altered with its size and time kept is seen; an unchanged one is never opened."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.records import EVERYTHING, File, WalkedFile
from bridgetower.retrieval.candidates import Candidates
from bridgetower.transfer.export import export
from bridgetower.transfer.import_index import import_folder
from tests.fakes import FakeEncoder, paint
from tests.unit.retrieval.indexing.conftest import content, run

pytestmark = pytest.mark.usefixtures("decode_here")

TIME = 1_600_000_000 * 10**9


def padded(path: Path, colour: str) -> Path:
    """A picture of exactly 300 bytes and an old time."""
    paint(path, colour)
    path.write_bytes(path.read_bytes().ljust(300, b"\0"))
    os.utime(path, ns=(TIME, TIME))
    return path


def hash_of(path: Path, directory: Path) -> bytes:
    with IndexReader.open(directory) as reader:
        known = reader.catalog.known(path)
        assert known is not None and known.image is not None
        return reader.catalog.content(known.image, EVERYTHING)[0]


@pytest.mark.parametrize("way", ["renamed over", "written in place"])
def test_a_picture_with_the_size_and_time_of_the_one_before(way: str, tmp_path: Path) -> None:
    picture = padded(tmp_path / "photos" / "a.png", "red")
    run([tmp_path / "photos"], tmp_path / "index")
    before = picture.stat()
    if way == "renamed over":
        padded(tmp_path / "new.png", "blue").replace(picture)
    else:
        padded(picture, "blue")
    assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    query = FakeEncoder().embed_texts(["red"])
    with IndexReader.open(tmp_path / "index") as reader:
        [candidate] = Candidates(reader, query).take(1)
        assert candidate.content is None  # what was kept of the picture before is not taken for it
    assert run([tmp_path / "photos"], tmp_path / "index").encoded == 1
    assert hash_of(picture, tmp_path / "index") == content(picture)


def test_unchanged_files_are_not_opened_and_touched_ones_not_decoded(photos: Path, tmp_path: Path) -> None:
    number = run([photos], tmp_path / "index").encoded
    with patch("bridgetower.files.content.read", side_effect=AssertionError("it was opened")):
        assert run([photos], tmp_path / "index").unchanged == number
    for path in photos.iterdir():
        path.chmod(0o600)
    report = run([photos], tmp_path / "index")
    assert (report.unchanged, report.encoded, report.reused) == (0, 0, number)
    with patch("bridgetower.files.content.read", side_effect=AssertionError("it was opened")):
        assert run([photos], tmp_path / "index").unchanged == number


def test_imported_files_get_what_this_machine_knows_of_them(photos: Path, tmp_path: Path) -> None:
    padded(photos / "a.png", "red")
    (photos / "bad.png").write_bytes(b"no picture")
    number = run([photos], tmp_path / "index").encoded
    with IndexReader.open(tmp_path / "index") as reader:
        export(reader, tmp_path / "export")
    import_folder(tmp_path / "export", tmp_path / "other")
    with patch("bridgetower.files.content.read", side_effect=AssertionError("it was opened")):
        assert run([photos], tmp_path / "other").unchanged == number
    padded(photos / "a.png", "blue")
    assert run([photos], tmp_path / "other").encoded == 1
    with IndexReader.open(tmp_path / "other") as reader:
        known = reader.catalog.known(photos / "bad.png")
    assert known is not None
    assert known.file.ctime_ns == (photos / "bad.png").stat().st_ctime_ns


@pytest.mark.parametrize(
    ("stored", "now", "same"),
    [
        ((5, 100), (5, 100), True),
        ((5, 100), (5, 101), False),
        ((5, 100), (6, 100), False),
        ((0, 0), (5, 100), True),  # of an older format
        ((5, 100), (0, 0), True),  # no status of this system
        ((0, 100), (5, 100), True),
        ((5, 100), (0, 100), True),  # Windows, from the listing of a folder
        ((5, 7), (6, 7), True),  # FAT: the inode is another after each mount, and both times are one
        ((5, 7), (5, 8), False),
    ],
)
def test_the_rule_is_one_in_sql_and_in_python(
    stored: tuple[int, int], now: tuple[int, int], same: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    file = File(path, 3, 7, *stored)
    assert file.is_unchanged(File(path, 3, 7, *now)) is same
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        with writer.catalog.transaction():
            writer.catalog.put_skipped(file, "no picture")
        writer.catalog.meet([WalkedFile(os.fsencode(path), 3, 7, *now)])
        assert len(list(writer.catalog.still_skipped())) == same
        assert len(list(writer.catalog.changed())) == (not same)


def test_a_library_that_was_copied_to_another_disk_is_read_and_not_encoded(photos: Path, tmp_path: Path) -> None:
    number = run([photos], tmp_path / "index").encoded
    shutil.copytree(photos, tmp_path / "disk")
    shutil.rmtree(photos)
    (tmp_path / "disk").rename(photos)
    report = run([photos], tmp_path / "index")
    assert (report.reused, report.encoded) == (number, 0)
