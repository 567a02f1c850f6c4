"""The writer's connection to the manifest: all that is written to it, as SQL, and what a run meets beside it."""

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from bridgetower.errors import NoIndexError
from bridgetower.files.regular import is_own
from bridgetower.index.catalog.connection import absent, backup_of
from bridgetower.index.catalog.filters import UNDER, range_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.catalog.schema import (
    APPLICATION_ID,
    FORMAT_VERSION,
    PAGE_BYTES,
    SCHEMA,
    SUMMED,
    UPGRADES,
    crc32_of,
)
from bridgetower.index.catalog.sqlite_errors import BUSY_S, CACHE_KIB, explained, require_own_files, size_of
from bridgetower.index.catalog.write_ahead_log import log_of
from bridgetower.records import LARGEST, File, Fingerprint, Skipped, WalkedFile, path_of

# Not INSERT OR REPLACE, which removes the old row without a word to the triggers.
_PUT_FILE = """INSERT INTO files VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET size = excluded.size,
    mtime_ns = excluded.mtime_ns, image = excluded.image, reason = excluded.reason, crc32 = excluded.crc32"""

# What one run meets, and what its sweep spares and drops: not part of the index, gone with the connection. In a
# temporary file, where it outgrows SQLite's cache: a run over millions of files holds none of them in memory.
_TEMPORARY = (
    "PRAGMA temp_store = FILE",
    "CREATE TEMP TABLE seen (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER) WITHOUT ROWID",
    *(f"CREATE TEMP TABLE {name} (path BLOB PRIMARY KEY) WITHOUT ROWID" for name in ("spared", "gone")),
)
_COPIED_PAGES = 1024  # in one step of a copy
_ROWS = 1024  # of changed files that are fetched at a time
_SEEN_ROWS = 256  # that are inserted by one statement: twice as fast as one by one
_MEET = "INSERT OR IGNORE INTO seen VALUES "
_AS_KNOWN = "(files.size, files.mtime_ns) IS (seen.size, seen.mtime_ns)"


class Sweep(NamedTuple):
    """What became of the files of a root that its scan did not meet."""

    removed: int
    kept: int  # above 0 only if the scan met nothing at all: an unmounted disk looks like that, so all were kept


class CatalogWriter(Catalog):
    """What a Manifest is, and writing; the state is the one that this connection last wrote or saw.

    What it raises is as there.
    """

    _is_writing = False  # in a transaction

    @classmethod
    def open(cls, path: Path, fingerprint: Fingerprint | None = None) -> Self:
        """Open the manifest at `path`; create the index with this fingerprint if there is none, nor a copy of one.

        The caller holds the lock. Without a fingerprint, raises NoIndexError where there is none.
        """
        with explained(path):
            require_own_files(path)
            has_log = size_of(log_of(path))
        if has_log:  # SQLite folds it into the file as far as it can read it, and removes it
            with suppress(NoIndexError):
                Catalog.read(path).close()
        may_create = fingerprint is not None and not is_own(backup_of(path))
        if not may_create and not size_of(path):
            raise absent(path)
        with explained(path):
            catalog = cls(path, sqlite3.connect(path, isolation_level=None, timeout=BUSY_S))
        try:
            with explained(path):
                blank = catalog._is_blank()
                if blank and not may_create:
                    raise absent(path)
                if blank:
                    catalog._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                else:
                    catalog._require_format()  # before a file that may not be ours is touched
                catalog._db.execute("PRAGMA journal_mode = WAL")
                catalog._db.execute("PRAGMA synchronous = FULL")
                catalog._db.execute("PRAGMA foreign_keys = ON")
                catalog._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                for statement in _TEMPORARY:
                    catalog._db.execute(statement)
                if blank and fingerprint is not None:
                    catalog._create(fingerprint)
                catalog._upgrade()
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _create(self, fingerprint: Fingerprint) -> None:
        with self.transaction():
            for statement in SCHEMA:
                self._db.execute(statement)
            now = int(time.time())
            state = (now, now, 0, 0, None)
            self._db.execute(
                f"INSERT INTO state ({SUMMED['state']}, crc32, images) VALUES (?, ?, ?, ?, ?, ?, 0)",
                (*state, crc32_of(*state)),
            )
            self.set_fingerprint(fingerprint)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _upgrade(self) -> None:
        """Bring an older format forward, version by version, each in one transaction."""
        while (version := self._pragma("user_version")) != FORMAT_VERSION:
            self._db.create_function("crc32_of", -1, crc32_of, deterministic=True)
            with self.transaction():
                for statement in UPGRADES[version]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {version + 1}")

    # Writing: each of these belongs into a `with transaction()`

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; on leaving it without an exception, it is on the disk. In another one, a part of that."""
        if self._is_writing:  # what SQLite says may be left of one that a signal broke off
            yield
            return
        with explained(self.path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._is_writing = True
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # after some failures SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._is_writing = False

    def _set_state(self, **changed: Any) -> None:
        *summed, _ = self.state()._replace(**changed)
        sql = f"UPDATE state SET ({SUMMED['state']}, crc32) = (?, ?, ?, ?, ?, ?)"
        self._db.execute(sql, (*summed, crc32_of(*summed)))

    def touch(self) -> None:
        """Note the time of this change."""
        self._set_state(updated_at=int(time.time()))

    def set_fingerprint(self, fingerprint: Fingerprint) -> None:
        model, revision = _text(fingerprint.model), _text(fingerprint.revision)
        row = astuple(replace(fingerprint, model=model, revision=revision))
        sql = f"INSERT OR REPLACE INTO fingerprint VALUES (1, {', '.join('?' * len(row))}, ?)"
        self._db.execute(sql, (*row, crc32_of(*row)))

    def add_image(self, hash: bytes, width: int, height: int, taken_at: int | None, vector: bytes) -> bool:
        """Add an image; False if its content is there already, which then keeps its id and its vector."""
        row = (hash, width, height, taken_at, vector)
        sql = (
            f"INSERT INTO images (id, {SUMMED['images']}, crc32) VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        return self._db.execute(sql, (*row, crc32_of(*row))).rowcount == 1

    def put_file(self, photo: File, hash: bytes) -> None:
        """Say that a file has this content; ValueError if no image has."""
        image = self.image_id(hash)
        if image is None:
            raise ValueError(f"{photo.path}: its content was not added to the index")
        self._put(photo, image, hash, None)

    def put_skipped(self, photo: File, reason: str) -> None:
        self._put(photo, None, None, _text(reason))

    def _put(self, photo: File, image: int | None, hash: bytes | None, reason: str | None) -> None:
        # A clock gone wild may give a time that SQLite cannot hold; such a file is read anew by each run.
        mtime_ns = max(-LARGEST, min(photo.mtime_ns, LARGEST))
        path = os.fsencode(photo.path)
        row = (path, photo.size, mtime_ns, image, reason, crc32_of(path, photo.size, mtime_ns, hash, reason))
        self._db.execute(_PUT_FILE, row)

    def add_root(self, root: Path) -> None:
        row = (os.fsencode(root), None)
        self._db.execute("INSERT OR IGNORE INTO roots VALUES (?, ?, ?)", (*row, crc32_of(*row)))

    def forget(self, path: Path) -> int:
        """Drop the files and roots at or below `path`; how many files that were."""
        self._db.execute(f"DELETE FROM roots WHERE {UNDER}", range_of(path))
        return self._db.execute(f"DELETE FROM files WHERE {UNDER}", range_of(path)).rowcount

    def drop_files(self, paths: Iterable[Path]) -> None:
        """Drop files, and the roots that they were by themselves."""
        keys = [(os.fsencode(path),) for path in paths]
        self._db.executemany("DELETE FROM roots WHERE path = ?", keys)
        self._db.executemany("DELETE FROM files WHERE path = ?", keys)

    def drop_roots(self, roots: Iterable[Path]) -> None:
        """Drop roots, and none of the files below them."""
        self._db.executemany("DELETE FROM roots WHERE path = ?", ((os.fsencode(root),) for root in roots))

    def drop_images(self, images: Iterable[int]) -> None:
        """Drop images and the files that lead to them."""
        keys = [(image,) for image in images]
        self._db.executemany("DELETE FROM files WHERE image = ?", keys)
        self._db.executemany("DELETE FROM images WHERE id = ?", keys)

    def put_back(self, row: tuple[Any, ...]) -> bool:
        """Make the row of an image what it was: the id, what is summed, the sum. False where it is that already, is
        gone, or another image has this content by now."""
        id, *content = row
        columns = f"({SUMMED['images']}, crc32)"
        sql = f"""UPDATE OR IGNORE images SET {columns} = (?, ?, ?, ?, ?, ?)
            WHERE id = ? AND {columns} IS NOT (?, ?, ?, ?, ?, ?)"""
        return self._db.execute(sql, (*content, id, *content)).rowcount == 1

    def prune(self, most: int) -> int:
        """Remove the first orphans, at most so many; how many they were."""
        sql = "DELETE FROM images WHERE id IN (SELECT image FROM orphans ORDER BY image LIMIT ?)"
        return self._db.execute(sql, (most,)).rowcount

    def recount(self) -> None:
        """Make the counts those of the tables."""
        self._db.execute("UPDATE state SET images = (SELECT count(*) FROM images)")
        self._db.execute("DELETE FROM orphans")
        self._db.execute(
            "INSERT INTO orphans SELECT id FROM images WHERE NOT EXISTS (SELECT 1 FROM files WHERE image = id)"
        )
        self._db.execute("DELETE FROM pruned WHERE image IN (SELECT id FROM images)")

    def sweep(self, root: Path, spared: Collection[Path], *, present: bool = False) -> Sweep:
        """Drop the files at or below `root` that were not met, except for what is at or below a path in `spared`.

        A file below it that was a root itself is one no more when it is dropped. If nothing was met, all is kept
        unless `present` says that the root is there all the same.
        """
        if not present and not self.has_met(root):
            kept = self._count(f"files WHERE {UNDER}", range_of(root))
            if kept:
                return Sweep(removed=0, kept=kept)
        for table in ("spared", "gone"):
            self._db.execute(f"DELETE FROM {table}")
        for path in spared:
            self._db.execute(f"INSERT OR IGNORE INTO spared SELECT path FROM files WHERE {UNDER}", range_of(path))
        stays = (f"EXISTS (SELECT 1 FROM {table} WHERE {table}.path = files.path)" for table in ("seen", "spared"))
        sql = f"INSERT INTO gone SELECT path FROM files WHERE {UNDER} AND NOT {' AND NOT '.join(stays)}"
        removed = self._db.execute(sql, range_of(root)).rowcount
        if removed:
            gone = "path IN (SELECT path FROM gone)"
            self._db.execute(f"DELETE FROM roots WHERE path <> ? AND {gone}", (os.fsencode(root),))
            self._db.execute(f"DELETE FROM files WHERE {gone}")
        key, now = os.fsencode(root), int(time.time())
        self._db.execute("UPDATE roots SET scanned_at = ?, crc32 = ? WHERE path = ?", (now, crc32_of(key, now), key))
        return Sweep(removed=removed, kept=0)

    def set_queries(self, vectors: Iterable[bytes]) -> None:
        """Keep vectors of texts by which recall is measured from now on."""
        self._db.execute("DELETE FROM queries")
        rows = ((vector, crc32_of(vector)) for vector in vectors)
        self._db.executemany("INSERT INTO queries (vector, crc32) VALUES (?, ?)", rows)

    def publish(
        self, generation: int, covered: int, sha256: bytes, tuning: Tuning | None = None, *, holds_pruned: bool = False
    ) -> None:
        """Name the vector file that readers use from now on, and how it is searched; None: exactly.

        `holds_pruned`: it still holds the images that were removed.
        """
        # Those above what was covered were removed before any file held them.
        above = "WHERE image > (SELECT covered FROM state)" if holds_pruned else ""
        self._db.execute(f"DELETE FROM pruned {above}")
        self._set_state(generation=generation, covered=covered, vectors_sha256=sha256)
        self._db.execute("DELETE FROM tuning")
        if tuning is not None:
            sql = "INSERT INTO tuning VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.execute(sql, (*tuning, crc32_of(*tuning)))

    def drop_derived(self) -> None:
        """Name no vector file, and keep no vectors of texts, until there are others: these are of another model."""
        self._set_state(covered=0, vectors_sha256=None)
        for table in ("queries", "tuning", "pruned"):
            self._db.execute(f"DELETE FROM {table}")

    # Looking after the file: outside of a transaction

    def vacuum(self) -> None:
        """Give the free space inside the file back to the disk, on which as much as is used must be free twice."""
        with explained(self.path):
            self._db.execute("VACUUM")

    def fold(self) -> bool:
        """Fold the log into the file; False where a reader still needs it."""
        with explained(self.path):
            self._db.execute("PRAGMA busy_timeout = 1000")
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._db.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S:.0f}")
        return not busy

    def copy_to(self, path: Path) -> None:
        """Write the committed state into the empty file at `path`. The caller sees to it that this is on the disk."""
        with explained(backup_of(self.path)), closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")  # a copy that is not complete is thrown away
            copy.execute("PRAGMA synchronous = OFF")
            # In steps, between which Python takes a signal: it does so where it calls `progress`.
            self._db.backup(copy, pages=_COPIED_PAGES, progress=lambda *left: None)

    # What a run meets, in a temporary table: none of it needs a transaction

    def meet(self, files: Iterable[WalkedFile]) -> int:
        """Note what a walk met, which `sweep` then keeps; how many files that were. Vanishes with the connection."""
        files, met = iter(files), 0
        while batch := list(islice(files, _SEEN_ROWS)):
            sql = _MEET + ",".join(["(?, ?, ?)"] * len(batch))
            with explained(self.path):
                try:
                    met += self._db.execute(sql, list(chain.from_iterable(batch))).rowcount
                except OverflowError:  # a clock gone wild: a time that SQLite cannot hold equals none
                    batch = [WalkedFile(path, size, 0 if abs(at) > LARGEST else at) for path, size, at in batch]
                    met += self._db.execute(sql, list(chain.from_iterable(batch))).rowcount
        return met

    def has_met(self, path: Path) -> bool:
        """Whether anything was met at or below `path`."""
        return self._one(f"SELECT 1 FROM seen WHERE {UNDER} LIMIT 1", range_of(path)) is not None

    def count_unchanged(self) -> int:
        """Files that were met with the size and time that they are known by, and that lead to an image."""
        return self._count(f"seen JOIN files USING (path) WHERE {_AS_KNOWN} AND reason IS NULL")

    def still_skipped(self) -> Iterator[Skipped]:
        """Files that were met with the size and time that they were skipped with, sorted by path."""
        sql = f"""SELECT path, reason FROM seen JOIN files USING (path)
            WHERE {_AS_KNOWN} AND reason IS NOT NULL ORDER BY path"""
        return (Skipped(path_of(path), reason) for path, reason in self._all(sql))

    def changed(self, *, retry: bool = False) -> Iterator[File]:
        """Files that were met and are new or have changed, sorted by the bytes of their paths; with `retry` also those
        that are still skipped. They may be put while this goes on."""
        sql = f"""SELECT seen.path, seen.size, seen.mtime_ns FROM seen LEFT JOIN files USING (path)
            WHERE seen.path > ? AND (NOT {_AS_KNOWN} OR ? AND reason IS NOT NULL) ORDER BY seen.path LIMIT {_ROWS}"""
        rows: list[tuple[Any, ...]] = [(b"",)]
        while rows := list(self._all(sql, (rows[-1][0], retry))):
            for path, size, mtime_ns in rows:
                yield File(path_of(path), size, mtime_ns)


def _text(text: str) -> str:
    """A TEXT value is UTF-8: what a path that is not brings into a message is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
