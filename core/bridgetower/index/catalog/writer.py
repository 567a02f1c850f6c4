"""The connection of the writer to the catalog: all changes as SQL."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Self

from bridgetower.errors import NoIndexError
from bridgetower.files.regular_files import is_own
from bridgetower.index.catalog.changed_files import TABLES, ChangedFiles
from bridgetower.index.catalog.connection import absent, backup_of
from bridgetower.index.catalog.filters import UNDER, range_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Keeping, StoreRow, Tuning
from bridgetower.index.catalog.schema import (
    APPLICATION_ID,
    FORMAT_VERSION,
    PAGE_BYTES,
    SCHEMA,
    SUMMED,
    crc32_of,
    new_sum,
    upgrade,
)
from bridgetower.index.catalog.sqlite_errors import BUSY_S, CACHE_KIB, explained, require_own_files, size_of
from bridgetower.index.catalog.write_ahead_log import log_of
from bridgetower.records import DECODING_VERSION, LARGEST, File, Fingerprint

# Not INSERT OR REPLACE, which removes the old row without calling the triggers.
_FILE = (
    "size",
    "mtime_ns",
    "inode",
    "ctime_ns",
    "taken_at",
    "sidecars",
    "metadata",
    "decoding",
    "image",
    "reason",
    "crc32",
)
_PUT_FILE = f"""INSERT INTO files (path, {", ".join(_FILE)}) VALUES (?{", ?" * len(_FILE)})
    ON CONFLICT (path) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _FILE)}"""

_COPIED_PAGES = 1024  # in one step of a copy


class CatalogWriter(ChangedFiles):
    """A catalog that can also be changed; its queries see the latest committed state and its own changes.

    Raises as `Catalog` does.
    """

    _is_writing = False  # in a transaction

    @classmethod
    def open(cls, path: Path, fingerprint: Fingerprint | None = None) -> Self:
        """Open the manifest at `path`; create it with this fingerprint if neither it nor its copy exists.

        The caller holds the lock. Without a fingerprint, raises NoIndexError if there is no manifest.
        """
        with explained(path):
            require_own_files(path)
            has_log = size_of(log_of(path))
        if has_log:  # refuse a damaged log: SQLite would move its readable part into the file and remove it
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
                    catalog._require_format()  # before a change: another program may own the file
                catalog._db.execute("PRAGMA journal_mode = WAL")
                catalog._db.execute("PRAGMA synchronous = FULL")
                catalog._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                catalog._db.create_function("crc32_of", -1, crc32_of, deterministic=True)
                for statement in TABLES:
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
        """Upgrade an older format, version by version, each in one transaction."""
        self._db.execute("PRAGMA foreign_keys = OFF")
        while (version := self._pragma("user_version")) != FORMAT_VERSION:
            with self.transaction():
                upgrade(self._db, version)
                self._db.execute(f"PRAGMA user_version = {version + 1}")
        self._db.execute("PRAGMA foreign_keys = ON")

    # Changes: call these within `transaction`

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the changes of the block to the disk; on an exception, none. A nested block joins the outer one."""
        if self._is_writing:  # not `in_transaction`: a signal may have left one open
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
        """Set the time of the last change to now."""
        self._set_state(updated_at=int(time.time()))

    def set_fingerprint(self, fingerprint: Fingerprint) -> None:
        model, revision = _valid_utf8(fingerprint.model), _valid_utf8(fingerprint.revision)
        row = astuple(replace(fingerprint, model=model, revision=revision))
        sql = f"INSERT OR REPLACE INTO fingerprint VALUES (1, {', '.join('?' * len(row))}, ?)"
        self._db.execute(sql, (*row, crc32_of(*row)))

    def add_image(
        self, hash: bytes, width: int, height: int, taken_at: int | None, decoding: int, vector: bytes
    ) -> None:
        """Add an image with a new id. If there is one with this hash, it stays as it is, unless its decoding is older:
        then the new image takes its place, and its files."""
        old = self._one("SELECT id FROM images WHERE hash = ? AND decoding < ?", (hash, decoding))
        if old is not None:
            self._db.execute("UPDATE images SET hash = CAST(id AS BLOB) WHERE id = ?", old)  # hashes are unique
        row = (hash, width, height, taken_at, decoding, vector)
        sql = f"INSERT INTO images ({SUMMED['images']}, crc32) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        self._db.execute(sql, (*row, crc32_of(*row)))
        if old is not None:
            self._db.execute("UPDATE files SET image = ? WHERE image = ?", (self.image_id(hash), *old))
            self._db.execute("DELETE FROM images WHERE id = ?", old)

    def confirm(self, hash: bytes, taken_at: int | None, decoding: int) -> None:
        """Store when an image was taken, and that it agrees with this version of the decoding, if not a newer one."""
        new = "hash, width, height, :taken_at, max(decoding, :decoding), vector"
        sql = f"""UPDATE images SET taken_at = :taken_at, decoding = max(decoding, :decoding),
            crc32 = {new_sum("images", SUMMED["images"], new)} WHERE hash = :hash"""
        self._db.execute(sql, {"hash": hash, "taken_at": taken_at, "decoding": decoding})

    def put_file(self, file: File, hash: bytes) -> None:
        """Store a file of the image with this hash. Raises ValueError if there is no such image."""
        image = self.image_id(hash)
        if image is None:
            raise ValueError(f"{file.path}: its content was not added to the index")
        self._put(file, None, image, hash, None)

    def put_skipped(self, file: File, reason: str) -> None:
        decoding = DECODING_VERSION if file.decoding is None else file.decoding
        self._put(file, decoding, None, None, _valid_utf8(reason))

    def _put(self, file: File, decoding: int | None, image: int | None, hash: bytes | None, reason: str | None) -> None:
        # A wrong clock may give a time that SQLite cannot hold; each run reads such a file again.
        mtime_ns, ctime_ns = (max(-LARGEST, min(at, LARGEST)) for at in (file.mtime_ns, file.ctime_ns))
        path = os.fsencode(file.path)
        row = (path, file.size, mtime_ns, file.inode, ctime_ns, file.taken_at, file.sidecars, file.metadata, decoding)
        self._db.execute(_PUT_FILE, (*row, image, reason, crc32_of(*row, hash, reason)))

    def add_root(self, root: Path) -> None:
        """Store a root that was not scanned yet; a known root stays as it is."""
        row = (os.fsencode(root), None)
        self._db.execute("INSERT OR IGNORE INTO roots VALUES (?, ?, ?)", (*row, crc32_of(*row)))

    def forget(self, path: Path) -> int:
        """Drop the files and roots at or below `path`; return the number of files."""
        self._db.execute(f"DELETE FROM roots WHERE {UNDER}", range_of(path))
        return self._db.execute(f"DELETE FROM files WHERE {UNDER}", range_of(path)).rowcount

    def drop_files(self, paths: Iterable[Path]) -> None:
        """Drop files, also as roots."""
        keys = [(os.fsencode(path),) for path in paths]
        self._db.executemany("DELETE FROM roots WHERE path = ?", keys)
        self._db.executemany("DELETE FROM files WHERE path = ?", keys)

    def drop_roots(self, roots: Iterable[Path]) -> None:
        """Drop roots, but not the files below them."""
        self._db.executemany("DELETE FROM roots WHERE path = ?", ((os.fsencode(root),) for root in roots))

    def drop_images(self, images: Iterable[int]) -> None:
        """Drop images and their files."""
        keys = [(image,) for image in images]
        self._db.executemany("DELETE FROM files WHERE image = ?", keys)
        self._db.executemany("DELETE FROM images WHERE id = ?", keys)

    def put_back(self, row: tuple[Any, ...]) -> bool:
        """Restore the row of an image: the id, the summed columns, the sum. Return False if the row is equal already,
        is missing, or another image has this hash now."""
        id, *content = row
        columns = f"({SUMMED['images']}, crc32)"
        sql = f"""UPDATE OR IGNORE images SET {columns} = (?, ?, ?, ?, ?, ?, ?)
            WHERE id = ? AND {columns} IS NOT (?, ?, ?, ?, ?, ?, ?)"""
        return self._db.execute(sql, (*content, id, *content)).rowcount == 1

    def put_vector_back(self, image: int, vector: bytes) -> bool:
        """Restore the vector of an image whose row has the right sum with it; return whether it has."""
        row = self._one(f"SELECT {SUMMED['images']}, crc32 FROM images WHERE id = ?", (image,))
        if row is None or crc32_of(*row[:-2], vector) != row[-1]:
            return False
        self._db.execute("UPDATE images SET vector = ? WHERE id = ?", (vector, image))
        return True

    def drop_parts(self, parts: Iterable[tuple[int, int]]) -> None:
        """Drop parts of images, each given by the id of its image and its number."""
        self._db.executemany("DELETE FROM parts WHERE image = ? AND part = ?", parts)

    def prune(self, most: int) -> int:
        """Remove at most `most` orphans, lowest ids first; return how many were removed."""
        sql = "DELETE FROM images WHERE id IN (SELECT image FROM orphans ORDER BY image LIMIT ?)"
        return self._db.execute(sql, (most,)).rowcount

    def recount(self) -> None:
        """Set the counts and the tables `orphans` and `pruned` to what the other tables say."""
        self._db.execute("UPDATE state SET images = (SELECT count(*) FROM images)")
        self._db.execute("DELETE FROM orphans")
        self._db.execute(
            "INSERT INTO orphans SELECT id FROM images WHERE NOT EXISTS (SELECT 1 FROM files WHERE image = id)"
        )
        self._db.execute("DELETE FROM pruned WHERE image IN (SELECT id FROM images)")

    def set_queries(self, vectors: Iterable[bytes]) -> None:
        """Replace the vectors of texts with which recall is measured."""
        self._db.execute("DELETE FROM queries")
        rows = ((vector, crc32_of(vector)) for vector in vectors)
        self._db.executemany("INSERT INTO queries (vector, crc32) VALUES (?, ?)", rows)

    def publish(
        self,
        generation: int,
        covered: int,
        sha256: bytes | None,
        tuning: Tuning | None = None,
        *,
        holds_pruned: bool = False,
    ) -> None:
        """Store which vector file readers use from now on, and how it is searched; `tuning` None: exactly.

        `sha256` is None for a table in a database. `holds_pruned`: the file still holds images that were removed.
        """
        # Images above `covered` were removed before any vector file held them.
        above = "WHERE image > (SELECT covered FROM state)" if holds_pruned else ""
        self._db.execute(f"DELETE FROM pruned {above}")
        self._set_state(generation=generation, covered=covered, vectors_sha256=sha256)
        self._db.execute("DELETE FROM tuning")
        if tuning is not None:
            sql = "INSERT INTO tuning VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.execute(sql, (*tuning, crc32_of(*tuning)))

    def set_store(self, store: StoreRow | None) -> None:
        """Store which database recalls from now on; None: vector files. The data of another one are named no more."""
        before = self.store()
        if (before and before[:2]) != (store and store[:2]):
            self._set_state(covered=0, vectors_sha256=None)
            for table in ("tuning", "pruned"):
                self._db.execute(f"DELETE FROM {table}")
        self._db.execute("DELETE FROM store")
        if store is not None:
            self._db.execute("INSERT INTO store VALUES (1, ?, ?, ?, ?, ?, ?, ?)", (*store, crc32_of(*store)))

    def set_keeping(self, keeping: Keeping | None) -> None:
        """Store which features the index keeps; None: none."""
        self._db.execute("DELETE FROM keeping")
        if keeping is not None:
            made_by = None if keeping.made_by is None else _valid_utf8(keeping.made_by)
            row = keeping._replace(made_by=made_by)
            self._db.execute("INSERT INTO keeping VALUES (1, ?, ?, ?, ?)", (*row, crc32_of(*row)))

    def drop_derived(self) -> None:
        """Drop the name of the vector file, its tuning and the vectors of texts, which are of another model."""
        self._set_state(covered=0, vectors_sha256=None)
        for table in ("queries", "tuning", "pruned"):
            self._db.execute(f"DELETE FROM {table}")

    # Maintenance of the file: call these outside of a transaction

    def vacuum(self) -> None:
        """Return the free space in the file to the disk, which needs twice the used space free meanwhile."""
        with explained(self.path):
            self._db.execute("VACUUM")

    def fold(self) -> bool:
        """Move the commits in the log into the file; return False if a reader still needs the log."""
        with explained(self.path):
            self._db.execute("PRAGMA busy_timeout = 1000")
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._db.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S:.0f}")
        return not busy

    def copy_to(self, path: Path) -> None:
        """Write the committed state into the empty file at `path`. The caller syncs it to the disk."""
        with explained(backup_of(self.path)), closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")  # an incomplete copy is discarded
            copy.execute("PRAGMA synchronous = OFF")
            # In steps, because Python handles signals only between steps, when SQLite calls `progress`.
            self._db.backup(copy, pages=_COPIED_PAGES, progress=lambda *left: None)


def _valid_utf8(text: str) -> str:
    """Return `text` as valid UTF-8, as TEXT values must be: bytes of a path that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
