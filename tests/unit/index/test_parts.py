"""`parts` has room for further vectors of an image: they are carried along by programs that know nothing of them."""

import sqlite3
from pathlib import Path

import pytest

from bridgetower.index.catalog.schema import crc32_of
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.vectors.float16 import pack
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File
from tests.fakes import FakeEncoder

FINGERPRINT = FakeEncoder().fingerprint
RED, GREEN, BLUE = FakeEncoder().embed_texts(["red", "green", "blue"])
HASHES = [bytes([number]) * 32 for number in (1, 2)]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Two images, of which the first has two parts, as a later program would write them."""
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        images = [NewImage(hash, 10, 10, None, vector) for hash, vector in zip(HASHES, (RED, GREEN), strict=True)]
        files = [(File(Path(f"/photos/{hash[0]}.jpg"), 1, 1), hash) for hash in HASHES]
        writer.commit(images=images, files=files)
        with writer.catalog.transaction():
            for part in (1, 2):
                row = (part, pack(BLUE, 3))
                sql = "INSERT INTO parts VALUES (1, ?, ?, ?)"
                writer.catalog._db.execute(sql, (*row, crc32_of(HASHES[0], *row)))
        writer.finish()
    return tmp_path / "index"


def parts(directory: Path) -> list[tuple[int, int]]:
    with sqlite3.connect(directory / "manifest.sqlite") as db:
        found = db.execute("SELECT image, part FROM parts ORDER BY 1, 2").fetchall()
    db.close()
    return found


def test_a_search_passes_over_them_and_a_run_keeps_them(index: Path) -> None:
    assert list(check_index(index)) == []
    with IndexReader.open(index) as reader:
        [images] = reader.recall(BLUE[None], 10)
        assert len(images) == 2 and images[0].similarity < 0.5
    with IndexWriter.open(index, FINGERPRINT) as writer:
        writer.publish()
        writer.back_up()
    assert parts(index) == [(1, 1), (1, 2)]


def test_they_go_with_their_image(index: Path) -> None:
    with IndexWriter.open(index, FINGERPRINT) as writer:
        writer.forget(Path("/photos/1.jpg"))
        assert parts(index) == [(1, 1), (1, 2)]
        assert sum(writer.prune()) == 1
    assert parts(index) == []


def test_they_go_with_an_image_that_another_decoding_replaces(index: Path) -> None:
    newer = NewImage(HASHES[0], 10, 10, None, BLUE, decoding=99)
    with IndexWriter.open(index, FINGERPRINT) as writer:
        writer.commit(images=[newer])
    assert parts(index) == []
    assert list(check_index(index)) == []


@pytest.mark.parametrize("column", ["vector = x'000000000000'", "part = 7"])
def test_damage_is_found_and_mended(column: str, index: Path) -> None:
    with sqlite3.connect(index / "manifest.sqlite") as db:
        db.execute(f"UPDATE parts SET {column} WHERE part = 2")
    db.close()
    [finding] = check_index(index)
    assert (finding.part, finding.path) == ("parts", Path("/photos/1.jpg"))
    repaired = repair_index(index)
    assert (repaired.left, repaired.dropped) == ((), ())
    assert parts(index) == [(1, 1)]
