"""Images whose rows are whole, where what leads to them is lost."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from bridgetower.schema import PAGE_BYTES, SUMMED, crc32_of
from bridgetower.store import Store
from bridgetower.strewn import strewn_rows
from bridgetower.verify import repair, verify
from bridgetower.writer import NewImage, Writer
from tests.indexes import FINGERPRINT, add, assert_holds, build, image, path_of

COLUMNS = f"id, {SUMMED['images']}, crc32"
LIVE, REMOVED = range(300), range(300, 400)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """More images than a page holds, and others that were removed."""
    build(tmp_path / "index", *LIVE)
    with Writer.open(tmp_path / "index", FINGERPRINT) as writer:
        add(writer, *REMOVED)
        writer.forget(*map(path_of, REMOVED))
        assert sum(writer.prune()) == len(REMOVED)
        writer.finish()
    return tmp_path / "index"


def row_of(image: NewImage) -> list[object]:
    row = (image.hash, 640, 480, None, image.vector.astype("<f2").tobytes())
    return [None, *row, crc32_of(*row)]


def strike(manifest: Path) -> None:
    """Alter the page from which all images hang."""
    with contextlib.closing(sqlite3.connect(manifest)) as db:
        [root] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'images'").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(manifest, "rb+") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(b"\xff")


def test_the_rows_of_pages_are_those_of_the_table(directory: Path) -> None:
    with Writer.open(directory, FINGERPRINT) as writer:
        add(writer, *range(1000, 1020))  # in the log
        expected = {row[0]: row[1:] for row in writer.manifest._db.execute(f"SELECT {COLUMNS} FROM images")}
        rows = [(number, tuple(row[1:])) for number, row in strewn_rows(directory / "manifest.sqlite", 7)]
    assert len(expected) == 320
    assert expected.items() <= dict(row for row in rows if row[0] in expected).items()
    assert all(row == expected[number] for number, row in rows if number in expected)


def test_images_outlive_the_loss_of_what_leads_to_them(directory: Path) -> None:
    strike(directory / "manifest.sqlite")
    repaired = repair(directory)
    assert repaired.salvaged is not None and not repaired.salvaged.emptied
    assert (repaired.salvaged.images, repaired.dropped, repaired.left) == (len(LIVE), (), ())
    assert list(verify(directory)) == []
    assert_holds(directory, *LIVE)


def test_what_was_removed_does_not_come_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a page that is free may still hold it; its vector may be one of another model."""
    old = image(REMOVED[0])
    removed = [(1000, row_of(old)), (0, row_of(image(LIVE[5])))]  # the second came back since
    monkeypatch.setattr("bridgetower.salvage.strewn_rows", lambda *which: [*removed, *strewn_rows(*which)])
    strike(directory / "manifest.sqlite")
    assert (salvaged := repair(directory).salvaged) is not None and salvaged.images == len(LIVE)
    with Store.open(directory) as store:
        assert store.manifest.image_id(old.hash) is None and store.summary().orphans == 0
    assert list(verify(directory)) == []
