"""Saving what can be read of a damaged manifest: into a new one, which takes its place.

_legible   the damaged database, as far as SQLite gets with it
_readable  the rows of a table that can be read: all that lie around what is damaged
_copy      those of them whose sums are right
_gather    images from the pages themselves, where what leads to them is lost: they are what took time to make
"""

import os
import re
import shutil
import sqlite3
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bridgetower.atomic import fsync_directory, replace_file
from bridgetower.disk import BUSY_S, CACHE_KIB, UNREADABLE, explained, size_of
from bridgetower.errors import DamagedIndexError, StoreError
from bridgetower.manifest_writer import ManifestWriter
from bridgetower.records import Fingerprint
from bridgetower.regular import is_own
from bridgetower.schema import FINGERPRINT_2, HASH_BYTES, PAGE_BYTES, SCHEMA, SUMMED, crc32_of, statements
from bridgetower.strewn import strewn_rows
from bridgetower.write_ahead_log import log_of

_FRESH = ".new"
_SUFFIXES = ("", "-wal", "-shm", "-journal")  # of a database, and what SQLite puts beside it
_LAYOUT_PAGES = 32  # more than tables and indexes begin on
_PATIENCE = 100_000  # reads that may fail, for each table
_ROWS = 1024  # that are copied in one transaction
_COLUMNS = f"id, {SUMMED['images']}, crc32"  # of images, as they stand in a row
_INSERT_IMAGE = f"INSERT INTO images ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PLAINLY_LARGER = 2  # times a manifest without images, and its pages are of more than tables that are empty


class Salvaged(NamedTuple):
    """What became of a damaged manifest."""

    kept: Path  # where it is now
    images: int  # that are in the new one
    files: int
    said: int | None  # images that the old one should have had, where it says so
    dropped: tuple[Path, ...]  # files whose row could be read, but not used
    roots: tuple[Path, ...]  # the same of roots
    emptied: bool  # no image could be read, and there were some


def salvage(path: Path) -> Salvaged:
    """Copy what can be read of a damaged manifest, and is whole, into a new one; put that in its place.

    The damaged one is kept beside it. The caller holds the lock. Raises StoreError, and leaves it as it is, where not
    even what made the vectors can be read, or the disk has no room for the new one. Whenever it is killed, the old one
    is there with all that its log holds, or the new one is.
    """
    try:
        return _salvage(path)
    finally:
        with suppress(OSError):
            _remove_fresh(path)


def keep_log(path: Path) -> Path:
    """Copy the damaged log of a manifest, then have SQLite put into the manifest what it can read of it; the copy.

    The caller holds the lock. Raises StoreError where the disk has no room for the copy, or a reader needs the log.
    """
    with explained(path):
        kept = log_of(_damaged(path))
        replace_file(kept, partial(shutil.copyfile, log_of(path)))
    try:
        if not _fold(path):
            raise StoreError(f"{log_of(path)}: still in use by a search: run it again when that has ended")
    except StoreError:
        if size_of(log_of(path)) == size_of(kept):  # the log is still there as a whole
            with suppress(OSError):
                kept.unlink()
        raise
    return kept


def _salvage(path: Path) -> Salvaged:
    fresh = path.with_name(path.name + _FRESH)
    with explained(path):
        _remove_fresh(path)
        old, made_by = _legible(path)
        with closing(old):
            used = min(_used_bytes(old), sum(size_of(_beside(path, suffix)) for suffix in ("", "-wal")))
            ManifestWriter.open(fresh, made_by).close()
            with closing(sqlite3.connect(fresh, isolation_level=None)) as new:
                # Without a log of its own: closing folds one into the file, and says nothing where that fails. Nor need
                # a journal be on the disk: what is not complete is thrown away.
                if new.execute("PRAGMA journal_mode = MEMORY").fetchone()[0] != "memory":
                    raise _incomplete(fresh)
                new.execute("PRAGMA synchronous = FULL")
                new.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                new.execute("CREATE TEMP TABLE gathered (id INTEGER PRIMARY KEY)")
                said = _copy_state(old, new, path.parent)
                roots = tuple(_copy_roots(old, new))
                _copy_queries(old, new)
                _copy_images(old, new)
                if said is None or _counts(new)[0] < said:
                    _gather_images(path, new)
                files = tuple(_copy_files(old, new))
                _drop_what_was_removed(new)
                written = _counts(new)
        with open(fresh, "rb+") as file:
            os.fsync(file.fileno())
        _require_whole(fresh, written)
        images, kept_files = written
        emptied = not images and (bool(said) or used > _PLAINLY_LARGER * fresh.stat().st_size)
        kept = _put_in_place(fresh, path)
    return Salvaged(kept, images, kept_files, said, files, roots, emptied)


def _used_bytes(db: sqlite3.Connection) -> int:
    """Of the pages of a damaged manifest, those that hold something; 0 where that cannot be told."""
    with suppress(*UNREADABLE):
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int(pages - free) * int(size)
    return 0


def _counts(db: sqlite3.Connection) -> tuple[int, int]:
    """Images and files."""
    images, files = (db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("images", "files"))
    return images, files


def _require_whole(fresh: Path, written: tuple[int, int]) -> None:
    """Raise StoreError unless what is on the disk is what was written, and needs no log."""
    if size_of(log_of(fresh)):
        raise _incomplete(fresh)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        try:
            whole = db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok" and _counts(db) == written
        except UNREADABLE:
            whole = False
    if not whole:
        raise _incomplete(fresh)


def _incomplete(fresh: Path) -> StoreError:
    return StoreError(f"{fresh}: could not be written whole: make room, then run it again (the old one is as it was)")


def _legible(path: Path) -> tuple[sqlite3.Connection, Fingerprint]:
    """A connection that reads the damaged manifest at `path` as far as it goes, and what made the vectors in it.

    Where its first page is of no use, it gets one as a new manifest has it: tables of the same layout begin on the same
    pages.
    """
    db = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True, isolation_level=None, timeout=BUSY_S)
    if made_by := _maker(db):
        return db, made_by
    db.close()
    grafted = path.with_name(path.name + _FRESH)
    for vacuumed in (False, True):
        page = _first_page(grafted, vacuumed=vacuumed)
        _copy_to_new(path, grafted)
        with open(grafted, "rb+") as file:
            pages = max(os.fstat(file.fileno()).st_size // len(page), _LAYOUT_PAGES)  # of one that was cut, too
            file.truncate(pages * len(page))
            file.write(page[:18] + b"\1\1" + page[20:28] + struct.pack(">III", pages, 0, 0) + page[40:])
        db = sqlite3.connect(grafted, isolation_level=None)
        made_by = _maker(db)
        grafted.unlink()  # it lives on as long as it is open
        if made_by:
            return db, made_by
        db.close()
    raise StoreError(
        f"{path}: nothing can be saved of it, not even what made its vectors: restore it from a copy, or build a new "
        "index in another place with --index DIR"
    )


def _first_page(place: Path, *, vacuumed: bool) -> bytes:
    anything = Fingerprint("", "", "", "", "", 0, "", 0)
    manifest = ManifestWriter.open(place, anything)
    if vacuumed:
        manifest.vacuum()
    manifest.close()
    page = place.read_bytes()[:PAGE_BYTES]
    for suffix in _SUFFIXES:
        _beside(place, suffix).unlink(missing_ok=True)
    return page


def _maker(db: sqlite3.Connection) -> Fingerprint | None:
    """What made the vectors of a manifest of this format; None where that cannot be read."""
    tables = {sql for sql in SCHEMA if sql.startswith(("CREATE TABLE images", "CREATE TABLE files"))}
    with suppress(*UNREADABLE):
        if tables <= statements(db):
            for summed in (SUMMED["fingerprint"], FINGERPRINT_2):
                if (row := _row(db, "fingerprint", summed)) is not None:
                    return Fingerprint(*row)
    return None


def _row(db: sqlite3.Connection, table: str, summed: str) -> tuple[Any, ...] | None:
    """The columns `summed` of the only row of a table; None where they cannot be read or are not whole."""
    with suppress(*UNREADABLE):
        row = db.execute(f"SELECT {summed}, crc32 FROM {table}").fetchone()
        if row is not None and crc32_of(*row[:-1]) == row[-1]:
            return tuple(row[:-1])
    return None


def _copy_state(old: sqlite3.Connection, new: sqlite3.Connection, directory: Path) -> int | None:
    """When it was made, and the last generation, as no name of a file is used twice; how many images it counted."""
    generations = [int(n) for path in directory.iterdir() for n in re.findall(r"^vectors-(\d{1,18})\.", path.name)]
    now = int(time.time())
    state, said = _row(old, "state", SUMMED["state"]), None
    if state is not None:
        generations.append(state[2])
        with suppress(*UNREADABLE):
            [said] = old.execute("SELECT images FROM state").fetchone()
    row = (now if state is None else state[0], now, max(generations, default=0), 0, None)
    new.execute(f"UPDATE state SET ({SUMMED['state']}, crc32) = (?, ?, ?, ?, ?, ?)", (*row, crc32_of(*row)))
    return said if isinstance(said, int) else None


def _copy_roots(old: sqlite3.Connection, new: sqlite3.Connection) -> Iterator[Path]:
    """Yields those that are not whole."""
    with new:
        new.execute("BEGIN")
        for path, at, crc32 in _readable(old, "roots", "path", "scanned_at, crc32", _between_paths):
            if crc32_of(path, at) == crc32:
                new.execute("INSERT OR IGNORE INTO roots VALUES (?, ?, ?)", (path, at, crc32))
            elif isinstance(path, bytes):
                yield Path(os.fsdecode(path))


def _copy_queries(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    with new:
        new.execute("BEGIN")
        for id, vector, crc32 in _readable(old, "queries", "id", "vector, crc32", _between_ids(1 << 16)):
            if crc32_of(vector) == crc32:
                new.execute("INSERT OR IGNORE INTO queries VALUES (?, ?, ?)", (id, vector, crc32))


def _copy_images(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """With their ids, of which none is used twice."""
    known = [0]
    for sql in ("SELECT seq FROM sqlite_sequence WHERE name = 'images'", "SELECT max(id) FROM images"):
        with suppress(*UNREADABLE):
            known += [row[0] for row in old.execute(sql) if isinstance(row[0], int)]
    last = max(known)
    columns = _COLUMNS.removeprefix("id, ")
    for rows in _some(_readable(old, "images", "id", columns, _between_ids(last or 1 << 32))):
        with new:
            new.execute("BEGIN")
            whole = (row for row in rows if crc32_of(*row[1:-1]) == row[-1] and len(row[1]) == HASH_BYTES)
            new.executemany(_INSERT_IMAGE, whole)
    new.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'", (last,))


def _gather_images(path: Path, new: sqlite3.Connection) -> None:
    """Those that stand in a page of the manifest or its log, whatever leads to it; some may have been removed."""
    found = ((number, row) for number, row in strewn_rows(path, len(_COLUMNS.split(","))) if row[0] is None)
    for rows in _some(found):
        with new:
            new.execute("BEGIN")
            for number, (_, *row) in rows:
                *summed, crc32 = row
                if crc32_of(*summed) == crc32 and isinstance(row[0], bytes) and len(row[0]) == HASH_BYTES:
                    # The same content may have been removed and come back, as another image.
                    new.execute(
                        "DELETE FROM images WHERE hash = ? AND id < ? AND id IN (SELECT id FROM gathered)",
                        (row[0], number),
                    )
                    added = new.execute(_INSERT_IMAGE, (number, *row)).rowcount
                    if added == 1:
                        new.execute("INSERT INTO gathered VALUES (?)", (number,))


def _drop_what_was_removed(new: sqlite3.Connection) -> None:
    """Of the images that were gathered, those that no file leads to: another model may have made them."""
    with new:
        new.execute("BEGIN")
        new.execute("DELETE FROM images WHERE id IN (SELECT id FROM gathered) AND id IN (SELECT image FROM orphans)")
        new.execute("DELETE FROM pruned")


def _copy_files(old: sqlite3.Connection, new: sqlite3.Connection) -> Iterator[Path]:
    """Yields those whose row cannot be used: it is not whole, or its image was lost."""
    for rows in _some(_readable(old, "files", "path", "size, mtime_ns, image, reason, crc32", _between_paths)):
        with new:
            new.execute("BEGIN")
            for row in rows:
                path, size, mtime_ns, image, reason, crc32 = row
                found = new.execute("SELECT hash FROM images WHERE id = ?", (image,)).fetchone()
                hash = None if found is None else found[0]
                if crc32_of(path, size, mtime_ns, hash, reason) == crc32:
                    new.execute("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
                elif isinstance(path, bytes):
                    yield Path(os.fsdecode(path))


def _some(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while some := [row for row, _ in zip(rows, range(_ROWS), strict=False)]:
        yield some


def _readable(
    db: sqlite3.Connection, table: str, key: str, columns: str, between: Callable[[Any, Any], Any]
) -> Iterator[tuple[Any, ...]]:
    """The rows of a damaged table that can be read; rows that are not whole are among them.

    Reads on in order of the key until that fails, then halves what is left, and goes on with both: the widest first.
    """
    ranges: deque[tuple[Any, Any]] = deque([(None, None)])
    failures = 0
    while ranges and failures < _PATIENCE:
        low, high = ranges.popleft()
        bounds = [f"{key} > ?"] * (low is not None) + [f"{key} <= ?"] * (high is not None)
        where = f"WHERE {' AND '.join(bounds)}" if bounds else ""
        try:
            values = [value for value in (low, high) if value is not None]
            for row in db.execute(f"SELECT {key}, {columns} FROM {table} {where} ORDER BY {key}", values):
                yield row
                low = row[0]
        except UNREADABLE:
            failures += 1
            middle = between(low, high)
            if middle is not None:
                ranges += [(low, middle), (middle, high)]


def _between_ids(last: int) -> Callable[[int | None, int | None], int | None]:
    def between(low: int | None, high: int | None) -> int | None:
        low, high = low or 0, last if high is None else high
        middle = (low + high) // 2
        return middle if low < middle < high else None

    return between


def _between_paths(low: Any, high: Any) -> bytes | None:
    """A key in the middle; None where there is none worth asking for."""
    low, high = low or b"", high or b"\xff" * 8
    if not (isinstance(low, bytes) and isinstance(high, bytes)):
        return None
    shortest = min(len(low), len(high))
    common = next((place for place in range(shortest) if low[place] != high[place]), shortest)
    width = common + 8
    numbers = (int.from_bytes(key[:width].ljust(width, b"\0"), "big") for key in (low, high))
    middle = (sum(numbers) // 2).to_bytes(width, "big")
    return middle if common <= len(low) and low < middle < high else None


def _put_in_place(fresh: Path, path: Path) -> Path:
    """The new manifest takes the name of the old one, which is kept; where that is.

    A log belongs to whatever has its name: beside the new one it would destroy it. So it goes first, and before that
    all that it holds is put into the old one.
    """
    kept, log = _damaged(path), log_of(path)
    if not _fold(path):  # a reader needs it, or SQLite cannot make sense of it
        folded = path.with_name(path.name + _FRESH + "-old")
        _copy_to_new(path, folded)
        _copy_to_new(log, log_of(folded))
        if _fold(folded):
            with open(folded, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(folded, path)  # whole with the log as without
        else:
            os.replace(log_of(folded), log_of(kept))
    try:
        os.link(path, kept)
    except OSError:  # a file system that has no links
        copy = path.with_name(path.name + _FRESH + "-kept")
        _copy_to_new(path, copy)
        os.replace(copy, kept)
    fsync_directory(path.parent)
    log.unlink(missing_ok=True)
    _beside(path, "-shm").unlink(missing_ok=True)
    fsync_directory(path.parent)
    os.replace(fresh, path)
    fsync_directory(path.parent)
    return kept


def _damaged(path: Path) -> Path:
    """A name for a manifest that is kept, which nothing has yet; nor has the log that goes with it."""
    number = int(time.time())
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists() or log_of(kept).exists():
        number += 1
    return kept


def _copy_to_new(path: Path, copy: Path) -> None:
    with open(path, "rb") as source, open(copy, "xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _fold(path: Path) -> bool:
    """Put what the log of a manifest holds into its file; whether the log is empty, or none is there, after that.

    StoreError where the disk does not take it.
    """
    with (
        suppress(DamagedIndexError),
        explained(path),
        closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as db,
    ):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not size_of(log_of(path))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def unfinished(path: Path) -> list[Path]:
    """All that was made on the way to a new manifest in the place of `path`, and is there."""
    names = [_FRESH, _FRESH + "-old", _FRESH + "-kept"]
    return [one for name in names for suffix in _SUFFIXES if is_own(one := path.with_name(path.name + name + suffix))]


def _remove_fresh(path: Path) -> None:
    for one in unfinished(path):
        one.unlink()
