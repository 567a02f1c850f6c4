"""The files that a run meets, compared with the catalog: which are unchanged, changed or new, and which are gone.

docs/index-format.md says when a file counts as unchanged (*Paths*), and what makes a run look at it again all the same
(*Decodings*).
"""

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from bridgetower.index.catalog.filters import UNDER, range_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.schema import crc32_of, new_sum
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.records import (
    DECODING_VERSION,
    IN_CLOUD,
    LARGEST,
    METADATA_VERSION,
    File,
    Skipped,
    WalkedFile,
    path_of,
)

# The files that a run meets, those that a sweep spares and drops, and those with an image that all sweeps have dropped.
# These tables are not part of the index and end with the connection. SQLite keeps them in a temporary file, so that
# millions of files need no memory.
TABLES = (
    "PRAGMA temp_store = FILE",
    """CREATE TEMP TABLE seen (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, ctime_ns INTEGER,
        sidecars INTEGER) WITHOUT ROWID""",
    *(f"CREATE TEMP TABLE {name} (path BLOB PRIMARY KEY) WITHOUT ROWID" for name in ("spared", "gone", "dropped")),
)
_ROWS = 1024  # of changed files, fetched at a time
_SEEN_ROWS = 256  # inserted by one statement: twice as fast as one by one
_INSERT_SEEN = "INSERT OR IGNORE INTO seen VALUES "
_UNCHANGED = """((files.size, files.mtime_ns) IS (seen.size, seen.mtime_ns) AND (0 IN (files.ctime_ns, seen.ctime_ns)
    OR files.ctime_ns = seen.ctime_ns AND (files.ctime_ns = files.mtime_ns
        OR 0 IN (files.inode, seen.inode) OR files.inode = seen.inode)))"""
# Unchanged, and read by this version of the decoding and of the metadata. Each file looks for its image in the SQL
# index of decodings: rows of images are large, and `changed` would list the older images again for each of its parts.
_UP_TO_DATE = f"""({_UNCHANGED} AND files.sidecars = seen.sidecars AND metadata >= {METADATA_VERSION}
    AND ifnull(files.decoding >= {DECODING_VERSION}, true)
    AND NOT EXISTS (SELECT 1 FROM images INDEXED BY images_by_decoding
        WHERE decoding IN ({", ".join(map(str, range(DECODING_VERSION)))}) AND id = image))"""


class Sweep(NamedTuple):
    """The numbers of files that a sweep removed and kept."""

    removed: int
    kept: int  # above 0 only if the scan met no file at all: the disk may be unmounted, so all were kept


class ChangedFiles(Catalog):
    """A catalog beside the files that a run has met; they are held in temporary tables, until `close`."""

    def meet(self, files: Iterable[WalkedFile]) -> int:
        """Note files that a walk met, which `sweep` then keeps, until `close`; return how many were not noted yet."""
        files, met = iter(files), 0
        while batch := list(islice(files, _SEEN_ROWS)):
            sql = _INSERT_SEEN + ",".join(["(?, ?, ?, ?, ?, ?)"] * len(batch))
            with explained(self.path):
                try:
                    met += self._db.execute(sql, list(chain.from_iterable(batch))).rowcount
                except OverflowError:  # a wrong clock: SQLite cannot hold the time
                    batch = [
                        WalkedFile(path, size, *(0 if abs(number) > LARGEST else number for number in numbers))
                        for path, size, *numbers in batch
                    ]
                    met += self._db.execute(sql, list(chain.from_iterable(batch))).rowcount
        return met

    def has_met(self, path: Path) -> bool:
        """Return whether a file was met at or below `path`."""
        return self._one(f"SELECT 1 FROM seen WHERE {UNDER} LIMIT 1", range_of(path)) is not None

    def newest_met(self, place: int, under: Path | None = None) -> int | None:
        """Return the mtime (ns) of the file that is the newest but `place` of those met at or below `under`; None if
        none is."""
        where, parameters = ("true", {}) if under is None else (UNDER, range_of(under))
        sql = f"SELECT mtime_ns FROM seen WHERE {where} ORDER BY mtime_ns DESC LIMIT 1 OFFSET :place"
        row = self._one(sql, {**parameters, "place": place})
        return None if row is None else row[0]

    def count_unchanged(self) -> int:
        """Return how many files that have an image are unchanged and up to date."""
        return self._count(f"seen JOIN files USING (path) WHERE {_UP_TO_DATE} AND reason IS NULL")

    def fill_unknown(self) -> None:
        """Store inode and time of change of the unchanged files that lack them, which are imported ones."""
        start, hash = "files.path, files.size, files.mtime_ns", "(SELECT hash FROM images WHERE id = image)"
        old, new = (
            f"{start}, {table}.inode, {table}.ctime_ns, taken_at, files.sidecars, metadata, decoding, {hash}, reason"
            for table in ("files", "seen")
        )
        sql = f"""UPDATE files SET inode = seen.inode, ctime_ns = seen.ctime_ns, crc32 = {new_sum("files", old, new)}
            FROM seen WHERE seen.path = files.path AND files.ctime_ns = 0 AND seen.ctime_ns <> 0 AND {_UNCHANGED}"""
        with explained(self.path):
            self._db.execute(sql)

    def still_skipped(self) -> Iterator[Skipped]:
        """Yield the skipped files that are unchanged and up to date, sorted by path."""
        sql = f"""SELECT path, reason FROM seen JOIN files USING (path)
            WHERE {_UP_TO_DATE} AND reason IS NOT NULL ORDER BY path"""
        return (Skipped(path_of(path), reason) for path, reason in self._all(sql))

    def changed(self, *, retry: bool = False, again: Collection[str] = ()) -> Iterator[File]:
        """Yield the met files that are new, have changed or are not up to date, sorted by the bytes of their paths.
        With `retry` also those that are still skipped, else those of them whose reason is one of `again`.
        Files whose content is in the cloud only are left as the index has them.

        The caller may store files between two steps.
        """
        sql = f"""SELECT seen.path, seen.size, seen.mtime_ns, seen.sidecars FROM seen LEFT JOIN files USING (path)
            WHERE seen.path > ? AND seen.size <> {IN_CLOUD}
                AND (NOT {_UP_TO_DATE} OR reason IS NOT NULL AND (? OR reason IN (SELECT value FROM json_each(?))))
            ORDER BY seen.path LIMIT {_ROWS}"""
        rows: list[tuple[Any, ...]] = [(b"",)]
        while rows := list(self._all(sql, (rows[-1][0], retry, json.dumps(list(again))))):
            for path, size, mtime_ns, sidecars in rows:
                yield File(path_of(path), size, mtime_ns, sidecars=sidecars)

    def sweep(self, root: Path, spared: Collection[Path], *, present: bool = False) -> Sweep:
        """Drop the files at or below `root` that were not met, except for files at or below a path in `spared`.

        A dropped file below `root` that was itself a root is dropped as a root, too. If no file was met, all are kept,
        unless `present` says that the root is there.
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
            self._db.execute(f"INSERT OR IGNORE INTO dropped SELECT path FROM files WHERE image IS NOT NULL AND {gone}")
            self._db.execute(f"DELETE FROM roots WHERE path <> ? AND {gone}", (os.fsencode(root),))
            self._db.execute(f"DELETE FROM files WHERE {gone}")
        key, now = os.fsencode(root), int(time.time())
        self._db.execute("UPDATE roots SET scanned_at = ?, crc32 = ? WHERE path = ?", (now, crc32_of(key, now), key))
        return Sweep(removed=removed, kept=0)

    def count_dropped(self, folder: Path) -> int:
        """Return how many files with an image, at or below `folder`, the sweeps have dropped until now."""
        return self._count(f"dropped WHERE {UNDER}", range_of(folder))
