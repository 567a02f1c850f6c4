"""An index of an older format, as it was written then: it is read as it is; writing to it makes it one of today's."""

import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from bridgetower.errors import StoreError
from bridgetower.index.catalog import schema
from bridgetower.index.catalog.schema import FORMAT_VERSION, SUMMED_IN
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.records import Filter, Fingerprint
from tests.fakes import stored

# One index in four formats: 24 images, the last not in the vector file; one is an orphan, one a copy; odd names; a
# skipped file; three roots.
DATA = Path(__file__).parents[3] / "data"
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", 16)
ODD = Path(os.fsdecode(b"/photos/odd/\xff\n\xc3\xa9.jpg"))


@pytest.fixture(params=[2, 3, 4, 5])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(DATA / f"index-format-{request.param}", tmp_path / "index")
    return tmp_path / "index"


def version(directory: Path) -> int:
    [(found,)] = dump(directory, "PRAGMA user_version")
    return int(found)


def dump(directory: Path, sql: str) -> list[tuple]:
    with sqlite3.connect(directory / "manifest.sqlite") as db:
        rows = db.execute(sql).fetchall()
    db.close()
    return rows


def require_answers(directory: Path) -> None:
    with IndexReader.open(directory) as store:
        assert len(store) == 23
        found: dict[Path, float] = {}
        for candidate in store.nearest(np.eye(1, 16, dtype=np.float32)):
            found |= {photo.path: candidate.similarity for photo in candidate.files}
        assert len(found) == 24 and {ODD, Path("/scans/page.tiff"), Path("/photos/late.jpg")} <= set(found)
        assert found[Path("/photos/copy of 03.jpg")] == found[Path("/photos/03.jpg")]
        np.testing.assert_allclose(found[Path("/photos/00.jpg")], stored(store, 1)[0], atol=1e-6)
        assert [skipped.path for skipped in store.catalog.skipped()] == [Path("/photos/bad.jpg")]


def test_reading_takes_it_as_it_is(old: Path) -> None:
    before = (old / "manifest.sqlite").read_bytes()
    require_answers(old)
    with IndexReader.open(old) as store:
        assert store.summary().format_version == version(old)
        digest = None if version(old) == 2 else "a" * 64
        assert store.fingerprint == replace(FINGERPRINT, tokenizer_sha256=digest)
    assert list(check_index(old)) == []
    assert (old / "manifest.sqlite").read_bytes() == before


def test_writing_brings_it_forward_with_all_that_it_holds(old: Path, tmp_path: Path) -> None:
    tables = SUMMED_IN[version(old)] | {"files": "path, size, mtime_ns, image, reason"}
    for younger in ("parts", "keeping", "store"):
        tables.pop(younger, None)
    before = {table: dump(old, f"SELECT {columns} FROM {table}") for table, columns in tables.items()}
    assert len(before["images"]) == 24
    IndexWriter.open(old, FINGERPRINT).close()
    assert {table: dump(old, f"SELECT {columns} FROM {table}") for table, columns in tables.items()} == before
    assert dump(old, "SELECT * FROM orphans") == [(23,)]
    assert dump(old, "SELECT seq FROM sqlite_sequence WHERE name = 'images'") == [(24,)]

    IndexWriter.open(tmp_path / "new", FINGERPRINT).close()
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    assert dump(old, schema) == dump(tmp_path / "new", schema)
    assert version(old) == FORMAT_VERSION
    assert dump(old, "SELECT DISTINCT decoding FROM images") == [(0,)]
    assert sorted(
        dump(old, "SELECT DISTINCT inode, ctime_ns, taken_at, sidecars, metadata, decoding FROM files"), key=repr
    ) == [
        (0, 0, None, 0, 0, 0),  # skipped
        (0, 0, None, 0, 0, None),
    ]
    assert list(check_index(old)) == []
    require_answers(old)


def test_a_damaged_row_stays_damaged_on_the_way(old: Path) -> None:
    for sql in (
        "UPDATE images SET width = width + 1 WHERE id = 5",
        "UPDATE files SET size = size + 1 WHERE path = CAST('/photos/07.jpg' AS BLOB)",
        "UPDATE files SET reason = 'another' WHERE reason IS NOT NULL",
    ):
        dump(old, sql)
    before = [(finding.part, finding.path) for finding in check_index(old)]
    assert len(before) == 3
    IndexWriter.open(old, FINGERPRINT).close()
    assert [(finding.part, finding.path) for finding in check_index(old)] == before


def test_an_image_is_taken_back_from_a_copy_of_an_older_format(old: Path) -> None:
    copy = old / "manifest.backup.sqlite"
    shutil.copy(old / "manifest.sqlite", copy)
    IndexWriter.open(old, FINGERPRINT).close()
    dump(old, "UPDATE images SET width = width + 1 WHERE id = 5")
    assert [finding.part for finding in check_index(old)] == ["images"]
    assert repair_index(old).left == ()
    require_answers(old)


def test_a_copy_of_an_older_format_is_restored_and_brought_forward(old: Path) -> None:
    shutil.move(old / "manifest.sqlite", old / "manifest.backup.sqlite")
    assert repair_index(old).left == ()
    assert version(old) == FORMAT_VERSION
    require_answers(old)


def test_times_limit_a_search_in_every_format(old: Path) -> None:
    def found() -> set[int]:
        with IndexReader.open(old) as store:
            return set(store.catalog.images_within(Filter(since=0, before=2_000_000_000)))

    before = found()
    assert before
    IndexWriter.open(old, FINGERPRINT).close()
    assert found() == before


def test_the_tokenizer_is_noted_with_the_next_run_and_kept(tmp_path: Path) -> None:
    old = shutil.copytree(DATA / "index-format-2", tmp_path / "index")
    for digest in ("a" * 64, "b" * 64):
        IndexWriter.open(old, replace(FINGERPRINT, tokenizer_sha256=digest)).close()
        with IndexReader.open(old) as store:
            assert store.fingerprint.tokenizer_sha256 == "a" * 64


def test_a_failure_on_the_way_leaves_the_old_one_whole(old: Path) -> None:
    before = version(old)
    broken = (*schema.UPGRADES[before][:-1], "DROP TABLE there_is_none")
    with (
        patch.dict(schema.UPGRADES, {before: broken}),
        pytest.raises(StoreError),
        CatalogWriter.open(old / "manifest.sqlite", FINGERPRINT).transaction(),
    ):
        pytest.fail("it opened")
    assert version(old) == before
    require_answers(old)
    IndexWriter.open(old, FINGERPRINT).close()
    require_answers(old)
