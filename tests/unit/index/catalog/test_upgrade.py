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
from bridgetower.index.catalog.schema import FINGERPRINT_2, FORMAT_VERSION, SUMMED
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.records import Fingerprint
from tests.fakes import stored

# 24 images, the last not in the vector file; one is an orphan, one a copy; odd names; a skipped file; three roots
FORMAT_2 = Path(__file__).parents[3] / "data" / "index-format-2"
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", 16)
ODD = Path(os.fsdecode(b"/photos/odd/\xff\n\xc3\xa9.jpg"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(FORMAT_2, tmp_path / "index")
    return tmp_path / "index"


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
        assert store.summary().format_version == 2
        assert store.fingerprint == FINGERPRINT and store.fingerprint.tokenizer_sha256 is None
    assert list(check_index(old)) == []
    assert (old / "manifest.sqlite").read_bytes() == before


def test_writing_brings_it_forward_with_all_that_it_holds(old: Path, tmp_path: Path) -> None:
    tables = SUMMED | {"fingerprint": FINGERPRINT_2, "files": "path, size, mtime_ns, image, reason"}
    before = {table: dump(old, f"SELECT {columns} FROM {table}") for table, columns in tables.items()}
    assert len(before["images"]) == 24
    IndexWriter.open(old, FINGERPRINT).close()
    assert {table: dump(old, f"SELECT {columns} FROM {table}") for table, columns in tables.items()} == before
    assert dump(old, "SELECT * FROM orphans") == [(23,)]
    assert dump(old, "SELECT seq FROM sqlite_sequence WHERE name = 'images'") == [(24,)]

    IndexWriter.open(tmp_path / "new", FINGERPRINT).close()
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    assert dump(old, schema) == dump(tmp_path / "new", schema)
    assert dump(old, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert list(check_index(old)) == []
    require_answers(old)


def test_the_tokenizer_is_noted_with_the_next_run_and_kept(old: Path) -> None:
    for digest in ("a" * 64, "b" * 64):
        IndexWriter.open(old, replace(FINGERPRINT, tokenizer_sha256=digest)).close()
        with IndexReader.open(old) as store:
            assert store.fingerprint.tokenizer_sha256 == "a" * 64


def test_a_failure_on_the_way_leaves_the_old_one_whole(old: Path) -> None:
    broken = (*schema.UPGRADES[2][:-1], "DROP TABLE there_is_none")
    with (
        patch.dict(schema.UPGRADES, {2: broken}),
        pytest.raises(StoreError),
        CatalogWriter.open(old / "manifest.sqlite", FINGERPRINT).transaction(),
    ):
        pytest.fail("it opened")
    assert dump(old, "PRAGMA user_version") == [(2,)]
    require_answers(old)
    IndexWriter.open(old, FINGERPRINT).close()
    require_answers(old)
