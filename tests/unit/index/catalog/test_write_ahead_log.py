"""The log of a database that was left by a killed writer: whole, torn, or altered by a disk."""

import os
import shutil
import sqlite3
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridgetower.index.catalog import write_ahead_log
from bridgetower.index.catalog.schema import PAGE_BYTES
from bridgetower.index.catalog.write_ahead_log import FRAME_HEADER_BYTES, HEADER_BYTES, log_of, lost_commits

FRAME = FRAME_HEADER_BYTES + PAGE_BYTES
COMMITS, ROWS_EACH = 20, 3


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database that was killed after `COMMITS` transactions, each of several pages, all of them in the log alone."""
    path = tmp_path / "written.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, content BLOB)")
        for _ in range(COMMITS):
            db.execute("BEGIN")
            db.executemany("INSERT INTO rows (content) VALUES (?)", [(os.urandom(5000),)] * ROWS_EACH)
            db.execute("COMMIT")
        killed = tmp_path / "killed.sqlite"
        shutil.copy(path, killed)
        shutil.copy(log_of(path), log_of(killed))
    return killed


def commits(log: bytes | bytearray) -> list[int]:
    """The frames that end a transaction."""
    ends = [struct.unpack_from(">I", log, at + 4)[0] for at in range(HEADER_BYTES, len(log), FRAME)]
    return [number for number, pages in enumerate(ends) if pages]


def rows_that_sqlite_reads(database: Path) -> int:
    with closing(sqlite3.connect(database)) as db:
        return int(db.execute("SELECT count(*) FROM rows").fetchone()[0])


def places(log: bytes) -> Iterator[tuple[int, int]]:
    """A place in the header and in the page of every frame, and the number of the frame."""
    for number, at in enumerate(range(HEADER_BYTES, len(log), FRAME)):
        for place in (0, 5, 9, 14, 18, 23, FRAME_HEADER_BYTES + 1, FRAME_HEADER_BYTES + 4444, FRAME - 1):
            yield number, at + place


def test_a_whole_log_and_none_have_lost_nothing(database: Path, tmp_path: Path) -> None:
    assert lost_commits(database) == 0
    assert rows_that_sqlite_reads(database) == COMMITS * ROWS_EACH
    assert lost_commits(tmp_path / "other.sqlite") == 0


def test_a_long_log_takes_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_ahead_log, "_FRAMES", 1)
    peaks = []
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE rows (content BLOB)")
        for pages in (1, 100, 900):
            db.execute("INSERT INTO rows VALUES (zeroblob(?))", (pages * PAGE_BYTES,))
            tracemalloc.start()
            assert lost_commits(tmp_path / "a.sqlite") == 0
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    _, short, long = peaks  # the first look takes what it takes to import
    assert long < short + 50_000  # a frame that is held takes some hundreds of bytes


def test_every_flipped_bit_is_seen_unless_it_lies_in_the_last_transaction(database: Path) -> None:
    log = log_of(database)
    whole = log.read_bytes()
    *_, before_last, last = commits(whole)
    for number, place in places(whole):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        log.write_bytes(flipped)
        lost = lost_commits(database)
        assert lost or number > before_last, (number, place)
        assert lost <= COMMITS + 2 and number <= last  # the flip itself may look like the end of one


def test_it_says_how_many_commits_sqlite_does_not_read(database: Path) -> None:
    log = log_of(database)
    content = bytearray(log.read_bytes())
    content[HEADER_BYTES + FRAME * (commits(content)[5] + 1) + 100] ^= 1
    log.write_bytes(content)
    lost = lost_commits(database)
    assert lost == COMMITS + 1 - 6  # the first one made the table
    assert rows_that_sqlite_reads(database) == (COMMITS - lost) * ROWS_EACH


@pytest.mark.parametrize("place", [0, 3, 6, 10, 17, 21, 26, 31])
def test_a_damaged_header_loses_all(database: Path, place: int) -> None:
    log = log_of(database)
    content = bytearray(log.read_bytes())
    content[place] ^= 16
    log.write_bytes(content)
    assert lost_commits(database) == COMMITS + 1


def test_a_torn_end_is_no_damage(database: Path) -> None:
    """A crash may leave any part of the transaction that was being written, its last frame among them."""
    log = log_of(database)
    whole = log.read_bytes()
    *_, before, last = commits(whole)
    begin = HEADER_BYTES + FRAME * (before + 1)
    for cut in range(begin, len(whole), 1234):
        log.write_bytes(whole[:cut])
        assert lost_commits(database) == 0
    for missing in range(before + 1, last + 1):
        at = HEADER_BYTES + FRAME * missing
        log.write_bytes(whole[:at] + bytes(FRAME) + whole[at + FRAME :])
        assert lost_commits(database) == 0


def test_frames_that_are_left_of_an_older_log_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE rows (content BLOB)")
        for _ in range(10):
            db.execute("INSERT INTO rows VALUES (randomblob(20000))")
        db.execute("PRAGMA wal_checkpoint(RESTART)")
        db.execute("INSERT INTO rows VALUES (1)")
        size = log_of(path).stat().st_size
        assert size > 10 * FRAME and lost_commits(path) == 0
        with open(log_of(path), "rb+") as log:  # the one transaction of the new log is torn
            log.seek(HEADER_BYTES + 100)
            log.write(b"\xff")
        assert lost_commits(path) == 0
