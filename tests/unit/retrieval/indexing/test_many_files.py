"""Runs over many files: what they hold in memory, and what they leave alone."""

import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest

from bridgetower.encoders.runtime import BATCH_SIZE
from bridgetower.files.content import read
from bridgetower.index.writer import IndexWriter
from bridgetower.pictures.decode_pool import DecodePool, Picture
from bridgetower.records import File, Refused, WalkedFile
from bridgetower.retrieval.indexing import index
from tests.fakes import FakeEncoder, paint
from tests.unit.retrieval.indexing.conftest import never, run


def test_files_in_memory_are_bounded_in_bytes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of pictures may be as large as the memory: one file is 2 GB at most."""
    files = [path.stat().st_size for path in photos.iterdir()]
    for stage in ("retrieval.contents", "encoders.local_engine"):
        monkeypatch.setattr(f"bridgetower.{stage}.READ_AHEAD", 2 * max(files))
    real, lock, held, most = DecodePool.decode, threading.Lock(), [0], [0]

    def counted_read(path: Path) -> bytes:
        data = read(path)
        with lock:
            held[0] += len(data)
            most[0] = max(most[0], held[0])
        return data

    def decode(decoders: DecodePool, content: bytes) -> Picture | Refused:
        time.sleep(0.01)  # reading is faster
        found = real(decoders, content)
        with lock:
            held[0] -= len(content)
        return found

    monkeypatch.setattr("bridgetower.files.content.read", counted_read)
    monkeypatch.setattr(DecodePool, "decode", decode)
    assert run([photos], tmp_path / "index").encoded == BATCH_SIZE + 3
    assert most[0] <= 5 * max(files) < sum(files)  # twice what may be read ahead, and one in between


def test_a_rename_of_a_folder_needs_no_engine(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    photos.rename(tmp_path / "renamed")
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        report = index([tmp_path / "renamed"], writer, never)
    assert (report.reused, report.encoded) == (BATCH_SIZE + 3, 0)


def test_what_has_changed_is_read_in_the_order_of_paths_over_several_pages(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.index.catalog.changed_files._ROWS", 5)
    monkeypatch.setattr("bridgetower.index.catalog.changed_files._SEEN_ROWS", 3)
    files = [WalkedFile(b"/a/%02d" % number, 1, 1) for number in range(17)]
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        assert writer.catalog.meet(reversed(files)) == 17
        for number, photo in enumerate(writer.catalog.changed()):
            assert os.fsencode(photo.path) == files[number].path
            writer.commit(skipped=[(photo, "no picture")])
        assert number == 16
        assert [*writer.catalog.changed()] == []
        assert len([*writer.catalog.changed(retry=True)]) == len([*writer.catalog.still_skipped()]) == 17


def test_the_search_for_older_decodings_takes_linear_time(tmp_path: Path) -> None:
    def steps(number: int) -> int:
        """Hundreds of instructions of SQLite that it takes to find all files as changed."""
        with (
            IndexWriter.open(tmp_path / str(number), FakeEncoder().fingerprint) as writer,
            writer.catalog.transaction(),
        ):
            for at in range(number):
                writer.catalog.add_image(at.to_bytes(32), 1, 1, None, 0, b"vector")
                writer.catalog.put_file(File(Path(f"/photos/{at:05}.jpg"), 1, 1), at.to_bytes(32))
            writer.catalog.meet(WalkedFile(b"/photos/%05d.jpg" % at, 1, 1) for at in range(number))
            counted: list[None] = []
            writer.catalog._db.set_progress_handler(lambda: counted.append(None), 100)
            assert sum(1 for _ in writer.catalog.changed()) == number
            return len(counted)

    assert steps(16_384) < 9 * steps(2048)


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(number: int) -> Iterator[WalkedFile]:
        return (WalkedFile(b"/photos/%03d/%03d.jpg" % divmod(at, 100), 1000 + at, at) for at in range(number))

    def peak(number: int) -> int:
        with IndexWriter.open(tmp_path / str(number), FakeEncoder().fingerprint) as writer:
            photos = (File(Path(os.fsdecode(path)), size, at) for path, size, at, *_ in tree(number))
            while batch := [(photo, "not a picture") for photo in islice(photos, 2000)]:
                writer.commit(skipped=batch)
            db = writer.catalog._db
            with writer.catalog.transaction():  # pictures, without the work
                db.execute("INSERT INTO images VALUES (1, x'00', 1, 1, NULL, 1, x'0000', 0)")
                db.execute("UPDATE files SET image = 1, reason = NULL, decoding = NULL")
        monkeypatch.setattr(
            "bridgetower.retrieval.indexing.scan", lambda paths, rules, passed_over, **options: tree(number)
        )
        with IndexWriter.open(tmp_path / str(number), FakeEncoder().fingerprint) as writer:
            monkeypatch.setattr(writer, "finish", lambda changed: None)
            tracemalloc.start()
            try:
                report = index([Path("/photos")], writer, never)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
                assert (report.unchanged, report.removed) == (number, 0)

    small, large = peak(2000), peak(20_000)
    assert large < small + 20_000  # bytes: one for each of the files would be more than their number


def test_a_run_with_nothing_to_do_publishes_a_vector_file_that_is_gone_and_reads_none(
    photos: Path, tmp_path: Path
) -> None:
    run([photos], tmp_path / "index")
    with patch("bridgetower.index.vectors.faiss.generation.Generation.intact", side_effect=AssertionError):
        run([photos], tmp_path / "index")
        (tmp_path / "index" / "vectors-1.faiss").unlink()
        run([photos], tmp_path / "index")
    assert (tmp_path / "index" / "vectors-2.faiss").exists()
    (tmp_path / "index" / "vectors-2.faiss").write_bytes(b"damaged")
    paint(photos / "new.png", "red")
    run([photos], tmp_path / "index")
    assert (tmp_path / "index" / "vectors-3.faiss").exists()
