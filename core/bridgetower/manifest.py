"""The manifest of an index: one SQLite file that holds everything that cannot be computed again cheaply.

All SQL of the project stands here, and nothing else does: vectors come and go as bytes, so that looking at an index
needs neither numpy nor FAISS. The layout and its invariants are described in docs/index-format.md.
"""

import errno
import json
import os
import re
import shutil
import sqlite3
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from bridgetower.errors import DamagedIndexError, NoIndexError, StoreError
from bridgetower.records import INT8, File, Filter, Fingerprint, Photo, Skipped

_INTEGER = 2**63 - 1  # the largest that SQLite holds
FORMAT_VERSION = 2
_APPLICATION_ID = 0x42546978  # "BTix"

SCHEMA = (
    """CREATE TABLE fingerprint (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        model TEXT NOT NULL,
        revision TEXT NOT NULL,
        weights_sha256 TEXT NOT NULL,
        config_sha256 TEXT NOT NULL,
        preprocessing TEXT NOT NULL,
        preprocessing_version INTEGER NOT NULL,
        precision_family TEXT NOT NULL,
        dim INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        images INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        covered INTEGER NOT NULL,
        vectors_sha256 BLOB
    ) STRICT""",
    """CREATE TABLE tuning (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        lists INTEGER NOT NULL,
        trained INTEGER NOT NULL,
        effort INTEGER NOT NULL,
        candidates INTEGER NOT NULL,
        recall REAL NOT NULL,
        texts INTEGER NOT NULL,
        pictures INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE queries (
        id INTEGER PRIMARY KEY,
        vector BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE roots (
        path BLOB PRIMARY KEY,
        scanned_at INTEGER
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        taken_at INTEGER,
        vector BLOB NOT NULL,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE files (
        path BLOB PRIMARY KEY,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        image INTEGER REFERENCES images (id),
        reason TEXT,
        crc32 INTEGER NOT NULL,
        CHECK ((image IS NULL) <> (reason IS NULL))
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE orphans (image INTEGER PRIMARY KEY) STRICT",
    "CREATE TABLE pruned (image INTEGER PRIMARY KEY) STRICT",
    "CREATE INDEX files_by_image ON files (image) WHERE image IS NOT NULL",
    "CREATE INDEX images_by_time ON images (taken_at)",
    """CREATE TRIGGER image_added AFTER INSERT ON images BEGIN
        UPDATE state SET images = images + 1;
        INSERT INTO orphans VALUES (NEW.id);
    END""",
    """CREATE TRIGGER image_pruned AFTER DELETE ON images BEGIN
        UPDATE state SET images = images - 1;
        DELETE FROM orphans WHERE image = OLD.id;
        INSERT INTO pruned VALUES (OLD.id);
    END""",
    """CREATE TRIGGER file_added AFTER INSERT ON files WHEN NEW.image IS NOT NULL BEGIN
        DELETE FROM orphans WHERE image = NEW.image;
    END""",
    """CREATE TRIGGER file_changed AFTER UPDATE OF image ON files WHEN OLD.image IS NOT NEW.image BEGIN
        DELETE FROM orphans WHERE image = NEW.image;
        INSERT INTO orphans SELECT OLD.image
            WHERE OLD.image IS NOT NULL AND NOT EXISTS (SELECT 1 FROM files WHERE image = OLD.image);
    END""",
    """CREATE TRIGGER file_gone AFTER DELETE ON files WHEN OLD.image IS NOT NULL BEGIN
        INSERT INTO orphans SELECT OLD.image
            WHERE NOT EXISTS (SELECT 1 FROM files WHERE image = OLD.image);
    END""",
)

_PAGE_BYTES = 8192  # holds seven vectors of 512 numbers; of SQLite's 4096 a quarter would stay empty
_CACHE_KIB = 65_536  # of the writer: hashes arrive in no order, all over their index
_BUSY_S = 30.0  # only a writer ever waits, and only on a file system without shared memory (no WAL)
_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)  # the second: SQLite quotes what it cannot read
_HASH_BYTES = 32
_ROWS = 1024  # rows that are fetched or buffered at a time
# A folder and all below it, as one range of the primary key: `path >= root`, `path < after`, and of these not the
# neighbours such as "photos-old" that sort between "photos" and "photos/". Parameters: see `_range`.
_UNDER = "path >= :root AND path < :after AND (path = :root OR path >= :below)"
# The time of a picture. Over all files it comes from the index of times alone, as images are large rows.
_TIME = """(image IN (SELECT id FROM images WHERE taken_at >= :since AND taken_at < :before)
    OR mtime_ns >= :since_ns AND mtime_ns < :before_ns AND image IN (SELECT id FROM images WHERE taken_at IS NULL))"""
_TIME_OF_ONE = """CASE WHEN taken_at IS NULL THEN mtime_ns >= :since_ns AND mtime_ns < :before_ns
    ELSE taken_at >= :since AND taken_at < :before END"""
_SEALED = "hash, width, height, taken_at, vector, crc32"  # what an image is, and the sum by which damage is seen
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
_SEEN_ROWS = 256  # that are inserted by one statement: twice as fast as one by one
_MEET = "INSERT OR IGNORE INTO seen VALUES "
_AS_KNOWN = "(files.size, files.mtime_ns) IS (seen.size, seen.mtime_ns)"

# What the triggers see to; where it is not so, as rows of these.
_OUT_OF_USE = {
    "an image with a file is in orphans": """orphans
        WHERE EXISTS (SELECT 1 FROM files WHERE files.image = orphans.image)""",
    "what is in orphans is not there": "orphans WHERE image NOT IN (SELECT id FROM images)",
    "an image that is there is in pruned": "pruned WHERE image IN (SELECT id FROM images)",
}
_IN_USE = {
    "an image without a file is not in orphans": """images WHERE id NOT IN (SELECT image FROM orphans)
        AND NOT EXISTS (SELECT 1 FROM files WHERE image = id)""",
}

# What version 1 lacks is computed on the way; ids are kept.
_FROM_1 = (
    "DROP INDEX files_by_image",
    *(f"ALTER TABLE {name} RENAME TO old_{name}" for name in ("fingerprint", "state", "roots", "images", "files")),
    *SCHEMA,
    "INSERT INTO fingerprint SELECT * FROM old_fingerprint",
    "INSERT INTO state SELECT one, created_at, updated_at, 0, generation, covered, vectors_sha256 FROM old_state",
    "INSERT INTO roots SELECT * FROM old_roots",
    """INSERT INTO images SELECT id, hash, width, height, taken_at, vector,
        image_crc32(hash, width, height, taken_at, vector) FROM old_images""",
    """INSERT INTO files SELECT path, size, mtime_ns, image, reason, file_crc32(path, size, mtime_ns, hash, reason)
        FROM old_files LEFT JOIN old_images ON old_images.id = image""",
    *(f"DROP TABLE old_{name}" for name in ("files", "images", "roots", "state", "fingerprint")),
)
_UPGRADES = {1: _FROM_1}


class Known(NamedTuple):
    """What the index holds about a path; exactly one of `image` and `reason` is None."""

    size: int  # bytes
    mtime_ns: int
    image: int | None  # id of the image
    reason: str | None  # why the file was skipped


class State(NamedTuple):
    """The single row that says when the index changed and which vector file belongs to it."""

    created_at: int  # unix seconds
    updated_at: int
    images: int  # orphans included
    generation: int  # 0: no vector file was published yet
    covered: int  # the vector file holds the images with id <= covered
    vectors_sha256: bytes | None


class Tuning(NamedTuple):
    """How the vector file is searched, if not exactly, and how well that was found to do."""

    lists: int  # into which the vectors are sorted
    trained: int  # images that there were when the lists were chosen
    effort: int  # lists that a search reads
    candidates: int  # vectors that it then looks at again
    recall: float  # of the true 100 nearest, the share that is found, in [0, 1]
    texts: int  # queries that it was measured with
    pictures: int


class Sweep(NamedTuple):
    """What became of the files of a root that its scan did not meet."""

    removed: int
    kept: int  # above 0 only if the scan met nothing at all: an unmounted disk looks like that, so all were kept


class Entry(NamedTuple):
    """An image with all that the index holds of it."""

    hash: bytes  # SHA-256 of the content
    width: int  # upright pixels
    height: int
    taken_at: int | None  # unix seconds
    vector: bytes  # dim little-endian float16
    photos: tuple[Photo, ...]  # its files, sorted by the bytes of their paths


class Counts(NamedTuple):
    files: int  # that lead to an image
    images: int  # that have a file
    orphans: int  # images that have none
    skipped: int  # files


class ImageRow(NamedTuple):
    """What there is to check of an image; where `whole` is False, anything may stand here."""

    id: int
    hash: bytes
    vector: bytes
    whole: bool  # its sum is right


class Space(NamedTuple):
    """Bytes of the manifest."""

    used: int
    free: int  # inside the file, for rows that come


class Salvaged(NamedTuple):
    """What became of a damaged manifest."""

    kept: Path  # where it is now
    images: int  # that are in the new one
    files: int
    said: int | None  # images that the old one should have had, where it says so
    dropped: tuple[Path, ...]  # files whose row could be read, but not used


class Manifest:
    """A connection to manifest.sqlite: either a snapshot for reading, or the writer's.

    Every failure of SQLite is raised as StoreError with the path and the way out, except for misuse by our own code.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, *, immutable: bool = False) -> None:
        self.path = path
        self._db = db
        self._stat = _identity(path) if immutable else None

    @classmethod
    def read(cls, path: Path, *, older: bool = False) -> Self:
        """Open one committed state, held until `close`. Raises NoIndexError, or StoreError if it cannot be read.

        With `older` also that of a format which a writer brings forward; only what made it can be asked then.
        """
        with explained(path), suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
            return cls._read(path, older)
        raise _absent(path)

    @classmethod
    def _read(cls, path: Path, older: bool) -> Self:
        try:
            return cls._snapshot(path, older, immutable=False)
        except sqlite3.Error as error:
            # Where SQLite may not create its -shm file it cannot join the log. Without a log the file is complete.
            log = path.with_name(path.name + "-wal")
            if _code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) or _size(log):
                raise
        return cls._snapshot(path, older, immutable=True)

    @classmethod
    def _snapshot(cls, path: Path, older: bool = False, *, immutable: bool) -> Self:
        uri = path.absolute().as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro")
        manifest = cls(path, sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_S), immutable=immutable)
        try:
            manifest._db.execute("BEGIN")
            if manifest._is_blank():  # this first look at the file is what fixes the snapshot
                raise _absent(path)
            manifest._require_format(upgradable=older)
        except BaseException:
            manifest.close()
            raise
        return manifest

    @classmethod
    def write(cls, path: Path, fingerprint: Fingerprint | None = None) -> Self:
        """Open for writing; create the index with this fingerprint if there is none. The caller holds the lock.

        Without a fingerprint, raises NoIndexError where there is none.
        """
        if fingerprint is None and not _size(path):
            raise _absent(path)
        with explained(path):
            manifest = cls(path, sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S))
        try:
            with explained(path):
                blank = manifest._is_blank()
                if blank and fingerprint is None:
                    raise _absent(path)
                if blank:
                    manifest._db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                else:
                    manifest._require_format(upgradable=True)  # before a file that may not be ours is touched
                manifest._db.execute("PRAGMA journal_mode = WAL")
                manifest._db.execute("PRAGMA synchronous = FULL")
                manifest._db.execute("PRAGMA foreign_keys = ON")
                manifest._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                for statement in _TEMPORARY:
                    manifest._db.execute(statement)
                if blank and fingerprint is not None:
                    manifest._create(fingerprint)
                manifest._upgrade()
        except BaseException:
            manifest.close()
            raise
        return manifest

    def _create(self, fingerprint: Fingerprint) -> None:
        with self.transaction():
            for statement in SCHEMA:
                self._db.execute(statement)
            now = int(time.time())
            self._db.execute("INSERT INTO state VALUES (1, ?, ?, 0, 0, 0, NULL)", (now, now))
            self.set_fingerprint(fingerprint)
            self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _upgrade(self) -> None:
        """Bring an older format forward, version by version, each in one transaction."""
        while (version := self._pragma("user_version")) != FORMAT_VERSION:
            self._db.create_function("image_crc32", 5, _image_crc32, deterministic=True)
            self._db.create_function("file_crc32", 5, _file_crc32, deterministic=True)
            with self.transaction():
                for statement in _UPGRADES[version]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {version + 1}")

    def _is_blank(self) -> bool:
        tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        return not tables and not self._pragma("application_id") and not self._pragma("user_version")

    def _require_format(self, *, upgradable: bool = False) -> None:
        version = self._pragma("user_version")
        if self._pragma("application_id") != _APPLICATION_ID:
            if set(SCHEMA) <= _layout(self._db):
                raise self._damaged("its header is not as it was written")
            raise StoreError(f"{self.path}: a database of another program: name another place with --index DIR")
        if version == FORMAT_VERSION or (upgradable and version in _UPGRADES):
            return
        if version in _UPGRADES:
            advice = "`bt index` on any of its folders brings it forward, and encodes nothing again"
        elif version > FORMAT_VERSION:
            advice = "update bt"
        else:
            advice = "build a new index in another place with --index DIR"
        raise StoreError(f"{self.path}: index format {version}, this bt reads format {FORMAT_VERSION}: {advice}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        """End the snapshot or the writing; what was not committed is gone. May be called twice."""
        self._db.close()

    # Reading

    def _rows(self, sql: str, parameters: Any = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Rows in lists of at most `_ROWS`."""
        with explained(self.path):
            cursor = self._db.execute(sql, parameters)
            while rows := cursor.fetchmany(_ROWS):
                self._require_unchanged()
                yield rows

    def _all(self, sql: str, parameters: Any = ()) -> Iterator[tuple[Any, ...]]:
        for rows in self._rows(sql, parameters):
            yield from rows

    def _one(self, sql: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        with explained(self.path):
            row: tuple[Any, ...] | None = self._db.execute(sql, parameters).fetchone()
            self._require_unchanged()
            return row

    def _require_unchanged(self) -> None:
        if self._stat is not None and _identity(self.path) != self._stat:
            raise StoreError(f"{self.path}: changed while it was read without a lock: run the command again")

    def _damaged(self, what: str) -> DamagedIndexError:
        return DamagedIndexError(self.path, what)

    def _typed(self, rows: Iterator[tuple[Any, ...]], *types: Any) -> Iterator[tuple[Any, ...]]:
        """`rows` whose values have these types; what a disk has altered may come as anything."""
        for row in rows:
            if not _fits(row, types):
                raise self._damaged("a row is not as it was written")
            yield row

    def fingerprint(self) -> Fingerprint:
        """What made the vectors. StoreError where that cannot be."""
        made_by = Fingerprint(*self._single("fingerprint", [field.type for field in fields(Fingerprint)]))
        if (wrong := _implausible(made_by)) is not None:
            raise self._damaged(f"the {wrong} of its fingerprint is {getattr(made_by, wrong)!r}")
        return made_by

    def state(self) -> State:
        state = State(*self._single("state", State.__annotations__.values()))
        if min(state.images, state.generation, state.covered) < 0:
            raise self._damaged("its counts are below zero")
        return state

    def _single(self, table: str, types: Iterable[Any]) -> tuple[Any, ...]:
        row = self._one(f"SELECT * FROM {table}")
        if row is None:
            raise self._damaged(f"its table {table} is empty")
        if not _fits(row[1:], types):
            raise self._damaged(f"its table {table} is not as it was written")
        return row[1:]

    def has_images(self) -> bool:
        """Whether there is any image, orphans included."""
        return self._one("SELECT 1 FROM images LIMIT 1") is not None

    def known(self, path: Path) -> Known | None:
        row = self._one("SELECT size, mtime_ns, image, reason FROM files WHERE path = ?", (os.fsencode(path),))
        return None if row is None else Known(*row)

    def image_id(self, hash: bytes) -> int | None:
        row = self._one("SELECT id FROM images WHERE hash = ?", (hash,))
        return None if row is None else int(row[0])

    def vector(self, image: int) -> bytes | None:
        """The vector of an image, as it was stored."""
        row = self._one(f"SELECT id, {_SEALED} FROM images WHERE id = ?", (image,))
        return None if row is None else self._unsealed([row])[0][1]

    def vectors(self, after: int = 0) -> Iterator[list[tuple[int, bytes]]]:
        """Ids and vectors of all images with a higher id, orphans included, ascending, some at a time, as stored."""
        for rows in self._rows(f"SELECT id, {_SEALED} FROM images WHERE id > ? ORDER BY id", (after,)):
            yield self._unsealed(rows)

    def vectors_of(self, images: Sequence[int]) -> Iterator[list[tuple[int, bytes]]]:
        """Ids and vectors of these images, as they were stored; what there is not is left out."""
        sql = f"SELECT id, {_SEALED} FROM images WHERE id IN (SELECT value FROM json_each(?))"
        for start in range(0, len(images), _ROWS):
            for rows in self._rows(sql, (json.dumps(images[start : start + _ROWS]),)):
                yield self._unsealed(rows)

    def _unsealed(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, bytes]]:
        """Ids and vectors of rows of `_SEALED`. StoreError where one is not as it was written."""
        for id, *row, crc32 in rows:
            if not _holds(_image_crc32, row, crc32):
                raise self._damaged(f"image {id} is not as it was written")
        return [(row[0], row[5]) for row in rows]

    def orphans(self) -> Iterator[int]:
        """Ids of the images that have no file, ascending."""
        return (id for (id,) in self._all("SELECT image FROM orphans ORDER BY image"))

    def pruned(self) -> Iterator[int]:
        """Ids of the images that were removed since the vector file was published, ascending."""
        return (id for (id,) in self._all("SELECT image FROM pruned ORDER BY image"))

    def count_pruned(self, covered: int) -> int:
        """Images with an id up to `covered` that were removed since the vector file was published."""
        return self._count("pruned WHERE image <= ?", (covered,))

    def highest_image(self) -> int:
        """The highest id of an image; 0 where there is none."""
        row = self._one("SELECT max(id) FROM images")
        return int(row[0] or 0) if row else 0

    def queries(self) -> list[bytes]:
        """Vectors of texts by which recall is measured."""
        return [vector for (vector,) in self._all("SELECT vector FROM queries ORDER BY id")]

    def tuning(self) -> Tuning | None:
        """How the vector file is searched; None where it is searched exactly, or there is none."""
        row = self._one("SELECT * FROM tuning")
        return None if row is None else Tuning(*row[1:])

    def count_images(self, after: int = 0) -> int:
        """Images with a higher id, orphans included."""
        return self._count("images WHERE id > ?", (after,)) if after else self.state().images

    def _count(self, what: str, parameters: Any = ()) -> int:
        row = self._one(f"SELECT count(*) FROM {what}", parameters)
        return int(row[0]) if row else 0

    def counts(self) -> Counts:
        orphans = self._count("orphans")
        return Counts(
            files=self._count("files WHERE image IS NOT NULL"),
            images=self.state().images - orphans,
            orphans=orphans,
            skipped=self._count("files WHERE image IS NULL"),
        )

    def count_live(self, after: int = 0) -> int:
        """Images with a file and a higher id."""
        return self.count_images(after) - self._count("orphans WHERE image > ?", (after,))

    def photos(self, image: int) -> tuple[Path, ...]:
        """The files that hold this image, sorted by the bytes of their paths."""
        rows = self._typed(self._all("SELECT path FROM files WHERE image = ? ORDER BY path", (image,)), bytes)
        return tuple(_path(path) for (path,) in rows)

    def content(self, image: int, filter: Filter) -> tuple[bytes, tuple[Photo, ...]]:
        """The hash of an image, no orphan, and its files that pass the filter, sorted by the bytes of their paths.

        StoreError where a row is not as it was written, or not found.
        """
        sql = f"""SELECT hash, path, size, mtime_ns, files.crc32 FROM files JOIN images ON id = image
            WHERE image = :image AND {_where(filter, _TIME_OF_ONE)} ORDER BY path"""
        rows = list(self._all(sql, {"image": image, **_limits(filter)}))
        if not rows:
            raise self._damaged(f"image {image}, or what leads to it, cannot be found")
        return rows[0][0], tuple(self._photo(tuple(row), hash, None) for hash, *row in rows)

    def entries(self) -> Iterator[Entry]:
        """Every image with its files, orphans included, ascending by id; StoreError as `content`."""
        sql = "SELECT image, path, size, mtime_ns, crc32 FROM files WHERE image BETWEEN ? AND ? ORDER BY image, path"
        for images in self._rows(f"SELECT id, {_SEALED} FROM images ORDER BY id"):
            self._unsealed(images)
            hashes = {row[0]: row[1] for row in images}
            photos: dict[int, list[Photo]] = {id: [] for id in hashes}
            for image, *row in self._all(sql, (images[0][0], images[-1][0])):
                photos[image].append(self._photo(tuple(row), hashes[image], None))
            for id, hash, width, height, taken_at, vector, _ in images:
                yield Entry(hash, width, height, taken_at, vector, tuple(photos[id]))

    def _photo(self, row: tuple[Any, ...], hash: bytes | None, reason: str | None) -> Photo:
        """The file of a row (path, size, mtime_ns, crc32). StoreError where it is not as it was written."""
        path, size, mtime_ns, crc32 = row
        if not _holds(_file_crc32, (path, size, mtime_ns, hash, reason), crc32):
            raise self._damaged(f"the row of {_shown(path)} is not as it was written")
        return Photo(_path(path), size, mtime_ns)

    def images_within(self, filter: Filter) -> Iterator[int]:
        """Ids of the images with a file that passes the filter, ascending."""
        sql = f"SELECT DISTINCT image FROM files WHERE image IS NOT NULL AND {_where(filter, _TIME)} ORDER BY image"
        return (id for (id,) in self._all(sql, _limits(filter)))

    def skipped(self) -> Iterator[Skipped]:
        rows = self._typed(
            self._all("SELECT path, reason FROM files WHERE reason IS NOT NULL ORDER BY path"), bytes, str
        )
        return (Skipped(_path(path), reason) for path, reason in rows)

    def skipped_files(self) -> Iterator[tuple[Photo, str]]:
        """The files that were skipped, and why, sorted by the bytes of their paths; StoreError as `content`."""
        sql = "SELECT path, size, mtime_ns, crc32, reason FROM files WHERE reason IS NOT NULL ORDER BY path"
        return ((self._photo(tuple(row), None, reason), reason) for *row, reason in self._all(sql))

    def reasons(self, limit: int) -> tuple[tuple[str, int], ...]:
        """Why files were skipped, and how many, the most frequent reasons first."""
        sql = "SELECT reason, count(*) FROM files WHERE reason IS NOT NULL GROUP BY reason ORDER BY 2 DESC, 1 LIMIT ?"
        return tuple((reason, count) for reason, count in self._typed(self._all(sql, (limit,)), str, int))

    def roots(self) -> Iterator[tuple[Path, int | None]]:
        """Each root and when its last complete scan ended (unix seconds), sorted by path."""
        rows = self._typed(self._all("SELECT path, scanned_at FROM roots ORDER BY path"), bytes, int | None)
        return ((_path(path), at) for path, at in rows)

    def count_under(self, root: Path) -> int:
        """Files at or below `root` that lead to an image."""
        return self._count(f"files WHERE image IS NOT NULL AND {_UNDER}", _range(root))

    def knows(self, path: Path) -> bool:
        """Whether a file or a root lies at or below `path`."""
        sql = f"SELECT 1 FROM files WHERE {_UNDER} UNION ALL SELECT 1 FROM roots WHERE {_UNDER} LIMIT 1"
        return self._one(sql, _range(path)) is not None

    def names_in(self, folder: Path, most: int) -> list[str]:
        """The names of files and folders directly below `folder`, in order of their bytes, at most so many."""
        names: list[str] = []
        parameters = _range(folder)
        below = after = parameters["below"]
        while len(names) < most:
            row = self._one("SELECT path FROM files WHERE path > ? AND path < ? LIMIT 1", (after, parameters["after"]))
            if row is None:
                break
            name = row[0][len(below) :].partition(os.fsencode(os.sep))[0]
            names.append(os.fsdecode(name))
            after = _range(folder / names[-1])["after"]  # of all that lies below it, the first is enough
        return names

    def files(self) -> Iterator[Path]:
        """Every file, skipped ones included, sorted by the bytes of their paths."""
        return (_path(path) for (path,) in self._typed(self._all("SELECT path FROM files ORDER BY path"), bytes))

    def contents(self) -> Iterator[tuple[bytes, bool]]:
        """The hash of every image, and whether it is an orphan."""
        sql = "SELECT hash, id IN (SELECT image FROM orphans) FROM images"
        return ((hash, bool(orphan)) for hash, orphan in self._typed(self._all(sql), bytes, int))

    def orphaned_by(self, gone: Iterable[Path]) -> Iterator[bytes]:
        """The hashes of the images that have no file but those of `gone`. Changes nothing."""
        with explained(self.path):
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (path BLOB PRIMARY KEY) WITHOUT ROWID")
            self._db.execute("DELETE FROM gone")
            self._db.executemany("INSERT INTO gone VALUES (?)", ((os.fsencode(path),) for path in gone))
        sql = """SELECT hash FROM images WHERE id IN (SELECT image FROM files WHERE path IN gone)
            AND NOT EXISTS (SELECT 1 FROM files WHERE image = id AND path NOT IN gone)"""
        return (hash for (hash,) in self._typed(self._all(sql), bytes))

    def space(self) -> Space:
        with explained(self.path):
            page, pages, free = (self._pragma(name) for name in ("page_size", "page_count", "freelist_count"))
        return Space(used=page * (pages - free), free=page * free)

    # Verifying

    def require_consistent(self) -> None:
        """Raise DamagedIndexError where an image is said to be out of use and is not: a search would not find it."""
        for what, sql in _OUT_OF_USE.items():
            if self._one(f"SELECT 1 FROM {sql} LIMIT 1") is not None:
                raise self._damaged(what)

    def damage(self) -> Iterator[str]:
        """What SQLite finds wrong with the file, and where its layout is not that of the format."""
        for (found,) in self._all("PRAGMA integrity_check"):
            yield from (line for line in str(found).splitlines() if line != "ok")
        yield from (f"a row of {table} leads nowhere" for table, *_ in self._all("PRAGMA foreign_key_check"))
        with explained(self.path):
            layout = _layout(self._db)
        yield from (f"its layout lacks {' '.join(sql.split()[:3])}" for sql in SCHEMA if sql not in layout)
        yield from (f"its layout has what is not of the format: {sql:.40}" for sql in layout if sql not in SCHEMA)

    def image_rows(self) -> Iterator[list[ImageRow]]:
        """Every image, ascending, some at a time."""
        for rows in self._rows(f"SELECT id, {_SEALED} FROM images ORDER BY id"):
            yield [ImageRow(id, row[0], row[4], _holds(_image_crc32, row, crc32)) for id, *row, crc32 in rows]

    def file_rows(self) -> Iterator[list[tuple[Path, bool]]]:
        """Every file, and whether its sum is right, sorted by the bytes of their paths, some at a time."""
        sql = """SELECT path, size, mtime_ns, hash, reason, files.crc32 FROM files LEFT JOIN images ON id = image
            ORDER BY path"""
        for rows in self._rows(sql):
            if not all(isinstance(row[0], bytes) for row in rows):
                raise self._damaged("a path is not as it was written")
            yield [(_path(row[0]), _holds(_file_crc32, row, crc32)) for *row, crc32 in rows]

    def miscounted(self) -> Iterator[str]:
        """Where the counts that the triggers keep are not those of the tables."""
        said, images = self.state().images, self._count("images")
        if said != images:
            yield f"there are {images} images, not {said}"
        for what, sql in (_OUT_OF_USE | _IN_USE).items():
            if number := self._count(sql):
                yield f"{what} ({number})"

    # Writing: each of these belongs into a `with transaction()`

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; on leaving it without an exception, it is on the disk."""
        with explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # after some failures SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def touch(self) -> None:
        """Note the time of this change."""
        self._db.execute("UPDATE state SET updated_at = ?", (int(time.time()),))

    def set_fingerprint(self, fingerprint: Fingerprint) -> None:
        f = fingerprint
        preprocessing = (f.preprocessing, f.preprocessing_version, f.precision_family)
        row = (_text(f.model), _text(f.revision), f.weights_sha256, f.config_sha256, *preprocessing, f.dim)
        self._db.execute("INSERT OR REPLACE INTO fingerprint VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def add_image(self, hash: bytes, width: int, height: int, taken_at: int | None, vector: bytes) -> bool:
        """Add an image; False if its content is there already, which then keeps its id and its vector."""
        row = (hash, width, height, taken_at, vector)
        sql = f"INSERT INTO images ({_SEALED}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return self._db.execute(sql, (*row, _image_crc32(*row))).rowcount == 1

    def put_file(self, photo: Photo, hash: bytes) -> None:
        """Say that a file has this content; ValueError if no image has."""
        image = self.image_id(hash)
        if image is None:
            raise ValueError(f"{photo.path}: its content was not added to the index")
        self._put(photo, image, hash, None)

    def put_skipped(self, photo: Photo, reason: str) -> None:
        self._put(photo, None, None, _text(reason))

    def _put(self, photo: Photo, image: int | None, hash: bytes | None, reason: str | None) -> None:
        # A clock gone wild may give a time that SQLite cannot hold; such a file is read anew by each run.
        mtime_ns = max(-_INTEGER, min(photo.mtime_ns, _INTEGER))
        path = os.fsencode(photo.path)
        row = (path, photo.size, mtime_ns, image, reason, _file_crc32(path, photo.size, mtime_ns, hash, reason))
        self._db.execute(_PUT_FILE, row)

    def add_root(self, root: Path) -> None:
        self._db.execute("INSERT OR IGNORE INTO roots VALUES (?, NULL)", (os.fsencode(root),))

    def forget(self, path: Path) -> int:
        """Drop the files and roots at or below `path`; how many files that were."""
        self._db.execute(f"DELETE FROM roots WHERE {_UNDER}", _range(path))
        return self._db.execute(f"DELETE FROM files WHERE {_UNDER}", _range(path)).rowcount

    def drop_files(self, paths: Iterable[Path]) -> None:
        """Drop files, and the roots that they were by themselves."""
        keys = [(os.fsencode(path),) for path in paths]
        self._db.executemany("DELETE FROM roots WHERE path = ?", keys)
        self._db.executemany("DELETE FROM files WHERE path = ?", keys)

    def drop_images(self, images: Iterable[int]) -> None:
        """Drop images and the files that lead to them."""
        keys = [(image,) for image in images]
        self._db.executemany("DELETE FROM files WHERE image = ?", keys)
        self._db.executemany("DELETE FROM images WHERE id = ?", keys)

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
            kept = self._count(f"files WHERE {_UNDER}", _range(root))
            if kept:
                return Sweep(removed=0, kept=kept)
        for table in ("spared", "gone"):
            self._db.execute(f"DELETE FROM {table}")
        for path in spared:
            self._db.execute(f"INSERT OR IGNORE INTO spared SELECT path FROM files WHERE {_UNDER}", _range(path))
        stays = (f"EXISTS (SELECT 1 FROM {table} WHERE {table}.path = files.path)" for table in ("seen", "spared"))
        sql = f"INSERT INTO gone SELECT path FROM files WHERE {_UNDER} AND NOT {' AND NOT '.join(stays)}"
        removed = self._db.execute(sql, _range(root)).rowcount
        if removed:
            gone = "path IN (SELECT path FROM gone)"
            self._db.execute(f"DELETE FROM roots WHERE path <> ? AND {gone}", (os.fsencode(root),))
            self._db.execute(f"DELETE FROM files WHERE {gone}")
        self._db.execute("UPDATE roots SET scanned_at = ? WHERE path = ?", (int(time.time()), os.fsencode(root)))
        return Sweep(removed=removed, kept=0)

    def set_queries(self, vectors: Iterable[bytes]) -> None:
        """Keep vectors of texts by which recall is measured from now on."""
        self._db.execute("DELETE FROM queries")
        self._db.executemany("INSERT INTO queries (vector) VALUES (?)", ((vector,) for vector in vectors))

    def publish(
        self, generation: int, covered: int, sha256: bytes, tuning: Tuning | None = None, *, holds_pruned: bool = False
    ) -> None:
        """Name the vector file that readers use from now on, and how it is searched; None: exactly.

        `holds_pruned`: it still holds the images that were removed.
        """
        row = (generation, covered, sha256)
        self._db.execute("UPDATE state SET generation = ?, covered = ?, vectors_sha256 = ?", row)
        if not holds_pruned:
            self._db.execute("DELETE FROM pruned")
        self._db.execute("DELETE FROM tuning")
        if tuning is not None:
            self._db.execute("INSERT INTO tuning VALUES (1, ?, ?, ?, ?, ?, ?, ?)", tuning)

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
            self._db.execute(f"PRAGMA busy_timeout = {1000 * _BUSY_S:.0f}")
        return not busy

    # What a run meets, in a temporary table: none of it needs a transaction

    def meet(self, files: Iterable[File]) -> int:
        """Note what a walk met, which `sweep` then keeps; how many files that were. Vanishes with the connection."""
        files, met = iter(files), 0
        while batch := list(islice(files, _SEEN_ROWS)):
            sql = _MEET + ",".join(["(?, ?, ?)"] * len(batch))
            with explained(self.path):
                try:
                    met += self._db.execute(sql, list(chain.from_iterable(batch))).rowcount
                except OverflowError:  # a clock gone wild: a time that SQLite cannot hold equals none
                    batch = [File(path, size, 0 if abs(at) > _INTEGER else at) for path, size, at in batch]
                    met += self._db.execute(sql, list(chain.from_iterable(batch))).rowcount
        return met

    def has_met(self, path: Path) -> bool:
        """Whether anything was met at or below `path`."""
        return self._one(f"SELECT 1 FROM seen WHERE {_UNDER} LIMIT 1", _range(path)) is not None

    def count_unchanged(self) -> int:
        """Files that were met with the size and time that they are known by, and that lead to an image."""
        return self._count(f"seen JOIN files USING (path) WHERE {_AS_KNOWN} AND reason IS NULL")

    def still_skipped(self) -> Iterator[Skipped]:
        """Files that were met with the size and time that they were skipped with, sorted by path."""
        sql = f"""SELECT path, reason FROM seen JOIN files USING (path)
            WHERE {_AS_KNOWN} AND reason IS NOT NULL ORDER BY path"""
        return (Skipped(_path(path), reason) for path, reason in self._all(sql))

    def changed(self, *, retry: bool = False) -> Iterator[Photo]:
        """Files that were met and are new or have changed, sorted by the bytes of their paths; with `retry` also those
        that are still skipped. They may be put while this goes on."""
        sql = f"""SELECT seen.path, seen.size, seen.mtime_ns FROM seen LEFT JOIN files USING (path)
            WHERE seen.path > ? AND (NOT {_AS_KNOWN} OR ? AND reason IS NOT NULL) ORDER BY seen.path LIMIT {_ROWS}"""
        rows: list[tuple[Any, ...]] = [(b"",)]
        while rows := list(self._all(sql, (rows[-1][0], retry))):
            for path, size, mtime_ns in rows:
                yield Photo(_path(path), size, mtime_ns)


# Salvaging


def salvage(path: Path) -> Salvaged:
    """Copy what can be read of a damaged manifest, and is whole, into a new one; put that in its place.

    The damaged one is kept beside it. The caller holds the lock. Raises StoreError, and leaves it as it is, where not
    even what made the vectors can be read.
    """
    fresh = path.with_name(path.name + _FRESH)
    with explained(path):
        _remove_with_log(fresh)
        old, made_by = _legible(path)
        with closing(old):
            state = _row(old, "state", State.__annotations__.values())
            new = Manifest.write(fresh, made_by)
            try:
                _copy(old, new)
                dropped = tuple(_copy_files(old, new))
                counts = new.counts()
            finally:
                new.close()
        with open(fresh, "rb+") as file:
            os.fsync(file.fileno())
        kept = _put_in_place(fresh, path)
    said = None if state is None else state[2]
    return Salvaged(kept, counts.images + counts.orphans, counts.files + counts.skipped, said, dropped)


_FRESH = ".new"
_LAYOUT_PAGES = 32  # more than tables and indexes begin on
_PATIENCE = 100_000  # reads that may fail, for each table


def _legible(path: Path) -> tuple[sqlite3.Connection, Fingerprint]:
    """A connection that reads the damaged manifest at `path` as far as it goes, and what made the vectors in it.

    Where its first page is of no use, it gets one as a new manifest has it: tables of the same layout begin on the same
    pages.
    """
    db = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_S)
    if made_by := _maker(db):
        return db, made_by
    db.close()
    grafted = path.with_name(path.name + _FRESH)
    for vacuumed in (False, True):
        page = _first_page(grafted, vacuumed=vacuumed)
        shutil.copyfile(path, grafted)
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
    manifest = Manifest.write(place, anything)
    if vacuumed:
        manifest.vacuum()
    manifest.close()
    page = place.read_bytes()[:_PAGE_BYTES]
    _remove_with_log(place)
    return page


def _layout(db: sqlite3.Connection) -> set[str]:
    """The statements that made the tables and all that belongs to them."""
    rows = db.execute("SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {bytes(sql or b"").decode("utf-8", "replace") for (sql,) in rows}


def _maker(db: sqlite3.Connection) -> Fingerprint | None:
    """What made the vectors of a manifest of this format; None where that cannot be read."""
    try:
        layout = _layout(db)
    except _UNREADABLE:
        return None
    row = _row(db, "fingerprint", [field.type for field in fields(Fingerprint)])
    tables = {sql for sql in SCHEMA if sql.startswith(("CREATE TABLE images", "CREATE TABLE files"))}
    made_by = Fingerprint(*row) if tables <= layout and row is not None else None
    return None if made_by is None or _implausible(made_by) else made_by


def _row(db: sqlite3.Connection, table: str, types: Iterable[Any]) -> tuple[Any, ...] | None:
    """The only row of a table; None where it cannot be read."""
    with suppress(*_UNREADABLE):
        row = db.execute(f"SELECT * FROM {table}").fetchone()
        if row is not None and _fits(row[1:], types):
            return tuple(row[1:])
    return None


def _copy(old: sqlite3.Connection, new: Manifest) -> None:
    """All but the files."""
    state = _row(old, "state", State.__annotations__.values())
    numbers = [state[3]] if state is not None else [0]
    numbers += [int(n) for path in new.path.parent.iterdir() for n in re.findall(r"^vectors-(\d{1,18})\.", path.name)]
    dim = new.fingerprint().dim
    known = [0]
    for sql in ("SELECT seq FROM sqlite_sequence WHERE name = 'images'", "SELECT max(id) FROM images"):
        with suppress(*_UNREADABLE):
            known += [row[0] for row in old.execute(sql) if isinstance(row[0], int)]
    last = max(known)
    with new.transaction():
        if state is not None:
            new._db.execute("UPDATE state SET created_at = ?", state[:1])
        new._db.execute("UPDATE state SET generation = ?", (max(numbers),))  # no name of a file is used twice
        for path, at in _readable(old, "roots", "path", "scanned_at", _between_paths):
            if _fits((path, at), (bytes, int | None)):
                new._db.execute("INSERT OR IGNORE INTO roots VALUES (?, ?)", (path, at))
        for id, vector in _readable(old, "queries", "id", "vector", _between_ids(1 << 16)):
            if isinstance(vector, bytes) and len(vector) == 2 * dim:
                new._db.execute("INSERT OR IGNORE INTO queries VALUES (?, ?)", (id, vector))
    insert = f"INSERT INTO images (id, {_SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    for rows in _some(_readable(old, "images", "id", _SEALED, _between_ids(last or 1 << 32))):
        with new.transaction():
            whole = (row for row in rows if _holds(_image_crc32, row[1:-1], row[-1]) and len(row[1]) == _HASH_BYTES)
            new._db.executemany(insert, whole)
    with new.transaction():  # an id is never used twice
        new._db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'", (last,))


def _copy_files(old: sqlite3.Connection, new: Manifest) -> Iterator[Path]:
    """Yields those whose row cannot be used: it is not whole, or its image was lost."""
    hashes = "SELECT hash FROM images WHERE id = ?"
    for rows in _some(_readable(old, "files", "path", "size, mtime_ns, image, reason, crc32", _between_paths)):
        with new.transaction():
            for row in rows:
                path, size, mtime_ns, image, reason, crc32 = row
                found = new._db.execute(hashes, (image,)).fetchone() if isinstance(image, int) else None
                hash = None if found is None else found[0]
                if _holds(_file_crc32, (path, size, mtime_ns, hash, reason), crc32):
                    new._db.execute(_PUT_FILE, row)
                elif isinstance(path, bytes):
                    yield _path(path)


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
        except _UNREADABLE:
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
    """The new manifest takes the name of the old one, which is kept; where that is."""
    with suppress(*_UNREADABLE), closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # where that can be done, its log is empty from here on
    number = int(time.time())
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        os.link(path, kept)
    except OSError:  # a file system that has no links
        shutil.copyfile(path, kept)
    log = path.with_name(path.name + "-wal")
    if _size(log):
        os.replace(log, kept.with_name(kept.name + "-wal"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(fresh, path)
    return kept


def _remove_with_log(path: Path) -> None:
    """Remove a manifest that nobody uses."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the disk and SQLite raise into StoreError. `path` is the file or folder that the work is about."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # misuse by our own code: a defect keeps its traceback
    except (*_UNREADABLE, OSError) as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: sqlite3.Error | UnicodeDecodeError | OSError) -> StoreError:
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full else "see that it is there and may be written"
        return StoreError(f"{error.filename or path}: {error.strerror or error}: {advice}, then run it again")
    if isinstance(error, UnicodeDecodeError):
        return DamagedIndexError(path, str(error))
    match _code(error):
        case sqlite3.SQLITE_FULL:
            why = "the disk is full: make room and run it again (what was committed before is safe)"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            why = f"still in use by another program after {_BUSY_S:.0f} s: run it again when that has ended"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            why = f"cannot be opened or written ({error}): make its folder accessible, or name another with --index DIR"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return DamagedIndexError(path, str(error))
        case _:
            why = f"{error}: see that its disk is there and has room, then run it again"
    return StoreError(f"{path}: {why}")


def _code(error: sqlite3.Error) -> int:
    """The primary result code; extended codes carry it in their low byte."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _absent(path: Path) -> NoIndexError:
    return NoIndexError(f"no index at {path.parent}: make one there with `bt index PHOTOS`")


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fits(row: Sequence[Any], types: Iterable[Any]) -> bool:
    types = list(types)
    return len(row) == len(types) and all(isinstance(value, kind) for value, kind in zip(row, types, strict=True))


def _holds(crc32_of: Callable[..., int], row: Iterable[Any], crc32: Any) -> bool:
    """Whether the sum of a row is right; in a damaged one a value may even have another type."""
    try:
        return bool(crc32_of(*row) == crc32)
    except (TypeError, AttributeError, struct.error):
        return False


def _implausible(made_by: Fingerprint) -> str | None:
    """The field that no program has written like this."""
    plausible = {
        "preprocessing": made_by.preprocessing in ("hf", "plain"),
        "precision_family": made_by.precision_family in ("float", INT8),
        "dim": made_by.dim > 0,
    }
    return next((name for name, well in plausible.items() if not well), None)


def _shown(path: Any) -> str:
    return repr(os.fsdecode(path)) if isinstance(path, bytes) else "a file"


def _range(root: Path) -> dict[str, bytes]:
    """The parameters of `_UNDER`."""
    path, separator = os.fsencode(root), os.fsencode(os.sep)
    below = path if path.endswith(separator) else path + separator
    return {"root": path, "below": below, "after": below[:-1] + bytes([below[-1] + 1])}


def _where(filter: Filter, time: str) -> str:
    """The condition of a filter on `files`; parameters: see `_limits`."""
    under = f"({_UNDER})" if filter.under is not None else "true"
    return under if filter.since is filter.before is None else f"{under} AND {time}"


def _limits(filter: Filter) -> dict[str, Any]:
    since = -_INTEGER if filter.since is None else filter.since
    before = _INTEGER if filter.before is None else filter.before
    limits = {"since": since, "before": before, "since_ns": since * 10**9, "before_ns": before * 10**9}
    limits = {name: max(-_INTEGER, min(limit, _INTEGER)) for name, limit in limits.items()}
    return limits if filter.under is None else limits | _range(filter.under)


def _path(path: bytes) -> Path:
    return Path(os.fsdecode(path))


def _text(text: str) -> str:
    """A TEXT value is UTF-8: what a path that is not brings into a message is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _image_crc32(hash: bytes, width: int, height: int, taken_at: int | None, vector: bytes) -> int:
    """The sum over all that an image's row says; docs/index-format.md has its layout."""
    numbers = struct.pack("<qq?q", width, height, taken_at is not None, taken_at or 0)
    return zlib.crc32(vector, zlib.crc32(numbers, zlib.crc32(hash)))


def _file_crc32(path: bytes, size: int, mtime_ns: int, hash: bytes | None, reason: str | None) -> int:
    """The sum over all that a file's row says, the content that it leads to included."""
    leads_to = hash if reason is None else reason.encode()
    return zlib.crc32(leads_to or b"", zlib.crc32(struct.pack("<qq", size, mtime_ns), zlib.crc32(path)))
