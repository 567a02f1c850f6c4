"""The manifest of an index: one SQLite file that holds everything that cannot be computed again cheaply.

All that is asked of it, as SQL; `schema` has its tables, `writer` what is written to it. Vectors come and go
as bytes, so that looking at an index needs neither numpy nor FAISS.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from bridgetower.errors import DamagedIndexError, DamagedLogError, NoIndexError, StoreError
from bridgetower.files.regular import is_own
from bridgetower.index.catalog.filters import TIME, TIME_OF_ONE, UNDER, limits, range_of, where
from bridgetower.index.catalog.schema import (
    APPLICATION_ID,
    FINGERPRINT_2,
    FORMAT_VERSION,
    LAYOUTS,
    SUMMED,
    crc32_of,
    statements,
)
from bridgetower.index.catalog.sqlite_errors import BUSY_S, explained, lost_log, require_own_files, result_code, size_of
from bridgetower.index.catalog.write_ahead_log import log_of, lost_commits
from bridgetower.records import Filter, Fingerprint, Photo, Skipped, path_of

_ROWS = 1024  # that are fetched at a time
# All of an image: its vector is never read without what shows that it is whole.
_IMAGE = f"id, {SUMMED['images']}, crc32"
# Images that have no file but those of the table `gone`, which belongs to this connection alone.
_OF_GONE = """id IN (SELECT image FROM files WHERE path IN gone)
    AND NOT EXISTS (SELECT 1 FROM files WHERE image = id AND path NOT IN gone)"""
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
    generation: int  # 0: no vector file was published yet
    covered: int  # the vector file holds the images with id <= covered
    vectors_sha256: bytes | None
    images: int  # orphans included


class Tuning(NamedTuple):
    """How the vector file is searched, if not exactly, and how well that was found to do."""

    lists: int  # into which the vectors are sorted
    trained: int  # images that there were when the lists were chosen
    effort: int  # lists that a search reads
    candidates: int  # vectors that it then looks at again
    recall: float  # of the true 100 nearest, the share that is found, in [0, 1]
    texts: int  # queries that it was measured with
    pictures: int


class Entry(NamedTuple):
    """An image with all that the index holds of it."""

    hash: bytes  # SHA-256 of the content
    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken
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


class Manifest:
    """A connection to manifest.sqlite: a snapshot for reading, or, as ManifestWriter, the writer's.

    Every failure of SQLite is raised as StoreError with the path and the way out, except for misuse by our own code.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, *, immutable: bool = False) -> None:
        self.path = path
        self._db = db
        self._stat = _identity(path) if immutable else None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open one committed state, held until `close`. Raises NoIndexError, or StoreError if it cannot be read."""
        with explained(path):
            require_own_files(path)
            if not size_of(path) and is_own(backup_of(path)):
                raise absent(path)
            if not size_of(path) and size_of(log_of(path)):  # which SQLite would remove
                raise StoreError(
                    f"{path}: gone or empty, though its log is there: restore it from a copy; or remove what is left "
                    "of it, and let `bt index` on your folders make the index anew"
                )
            with suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()
                return cls._read(path)
        raise absent(path)

    @classmethod
    def read_copy(cls, path: Path) -> Self:
        """Open a copy of a manifest, which nothing ever writes to. Makes no file beside it. Raises StoreError."""
        with explained(path):
            require_own_files(path)
            if not size_of(path):
                raise DamagedIndexError(path, "it is empty")
            manifest = cls._snapshot(path, immutable=True)
        manifest._stat = None  # another may take its name; this one stays as it is
        return manifest

    @classmethod
    def _read(cls, path: Path) -> Self:
        try:
            return cls._snapshot(path, immutable=False)
        except sqlite3.Error as error:
            # Where SQLite may not create its -shm file it cannot join the log. Without a log the file is complete.
            refused = result_code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
            if not refused or size_of(log_of(path)):
                raise
        return cls._snapshot(path, immutable=True)

    @classmethod
    def _snapshot(cls, path: Path, *, immutable: bool) -> Self:
        uri = path.absolute().as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro")
        manifest = cls(path, _connected(uri), immutable=immutable)
        try:
            manifest._db.execute("BEGIN")
            if manifest._is_blank():  # this first look at the file is what fixes the snapshot
                is_lost = not is_own(backup_of(path)) and manifest._has_lost_log()
                raise lost_log(path) if is_lost else absent(path)
            manifest._require_format()
            if lost := lost_commits(path):
                raise DamagedLogError(log_of(path), lost)
        except BaseException:
            manifest.close()
            raise
        return manifest

    def _is_blank(self) -> bool:
        tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        return not tables and not self._pragma("application_id") and not self._pragma("user_version")

    def _has_lost_log(self) -> bool:
        """Whether more was committed than a blank manifest shows. Another look, as a writer may just have made it."""
        if not lost_commits(self.path):
            return False
        self._db.execute("ROLLBACK")
        self._db.execute("BEGIN")
        return self._is_blank()

    def _require_format(self) -> None:
        version = self._pragma("user_version")
        if self._pragma("application_id") != APPLICATION_ID:
            layout = statements(self._db)
            if any(known <= layout for known in LAYOUTS.values()):
                raise self._damaged("its header is not as it was written")
            raise StoreError(f"{self.path}: a database of another program: name another place with --index DIR")
        if version not in LAYOUTS:
            newer = version > FORMAT_VERSION
            advice = "update bt" if newer else "build a new index in another place with --index DIR"
            reads = " and ".join(map(str, sorted(LAYOUTS)))
            raise StoreError(f"{self.path}: index format {version}, this bt reads formats {reads}: {advice}")

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
            if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                raise self._damaged("a row is not as it was written")
            yield row

    def _only(self, table: str, summed: str | None = None) -> tuple[Any, ...] | None:
        """What is summed of the only row of a table. StoreError where it is not as it was written."""
        row = self._one(f"SELECT {summed or SUMMED[table]}, crc32 FROM {table}")
        if row is not None and crc32_of(*row[:-1]) != row[-1]:
            raise self._damaged(f"its table {table} is not as it was written")
        return None if row is None else row[:-1]

    def fingerprint(self) -> Fingerprint:
        """What made the vectors."""
        row = self._only("fingerprint", FINGERPRINT_2 if self.format_version() == 2 else SUMMED["fingerprint"])
        if row is None:
            raise self._damaged("its table fingerprint is empty")
        return Fingerprint(*row)

    def format_version(self) -> int:
        """That of the file, which may be older than FORMAT_VERSION."""
        with explained(self.path):
            return self._pragma("user_version")

    def state(self) -> State:
        row, count = self._only("state"), self._one("SELECT images FROM state")
        if row is None or count is None:
            raise self._damaged("its table state is empty")
        if not isinstance(count[0], int) or count[0] < 0:
            raise self._damaged(f"it counts {count[0]!r:.20} images")
        return State(*row, *count)

    def has_images(self) -> bool:
        """Whether there is any image, orphans included."""
        return self._one("SELECT 1 FROM images LIMIT 1") is not None

    def known(self, path: Path) -> Known | None:
        """The row of a file; None if there is none."""
        row = self._one("SELECT size, mtime_ns, image, reason FROM files WHERE path = ?", (os.fsencode(path),))
        return None if row is None else Known(*row)

    def image_id(self, hash: bytes) -> int | None:
        """The image with this content; it need not have a file any more."""
        row = self._one("SELECT id FROM images WHERE hash = ?", (hash,))
        return None if row is None else int(row[0])

    def vectors(self, after: int = 0) -> Iterator[list[tuple[int, bytes]]]:
        """Ids and vectors of all images with a higher id, orphans included, ascending, some at a time, as stored."""
        for rows in self._rows(f"SELECT {_IMAGE} FROM images WHERE id > ? ORDER BY id", (after,)):
            yield self._whole(rows)

    def vectors_of(self, images: Sequence[int]) -> Iterator[list[tuple[int, bytes]]]:
        """Ids and vectors of these images, as they were stored; what there is not is left out."""
        sql = f"SELECT {_IMAGE} FROM images WHERE id IN (SELECT value FROM json_each(?))"
        for start in range(0, len(images), _ROWS):
            for rows in self._rows(sql, (json.dumps(images[start : start + _ROWS]),)):
                yield self._whole(rows)

    def _whole(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, bytes]]:
        """Ids and vectors of rows of `_IMAGE`. StoreError where one is not as it was written."""
        for id, *row, crc32 in rows:
            if crc32_of(*row) != crc32:
                raise self._damaged(f"image {id} is not as it was written")
        return [(row[0], row[5]) for row in rows]

    def last_image(self) -> int:
        """The highest id that an image has, or had before it was removed; 0 where there was none yet."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'images'")
        return 0 if row is None else int(row[0])

    def count_orphans(self) -> int:
        """Images that have no file."""
        return self._count("orphans")

    def orphans(self) -> Iterator[int]:
        """Ids of the images that have no file, ascending."""
        return (id for (id,) in self._all("SELECT image FROM orphans ORDER BY image"))

    def pruned(self) -> Iterator[int]:
        """Ids of the images that were removed since the vector file was published, ascending."""
        return (id for (id,) in self._all("SELECT image FROM pruned ORDER BY image"))

    def count_pruned(self, covered: int) -> int:
        """Images with an id up to `covered` that were removed since the vector file was published."""
        return self._count("pruned WHERE image <= ?", (covered,))

    def image_ids(self) -> Iterator[int]:
        """Ids of all images, in no order: read from an index, as rows of images are large."""
        return (id for (id,) in self._all("SELECT id FROM images INDEXED BY images_by_time"))

    def queries(self) -> list[bytes]:
        """Vectors of texts by which recall is measured, each `[E]` of little-endian float16. One that is not as it was
        written is left out."""
        rows = self._all("SELECT vector, crc32 FROM queries ORDER BY id")
        return [vector for vector, crc32 in rows if crc32_of(vector) == crc32]

    def has_queries(self) -> bool:
        """Whether there are vectors of texts by which recall is measured."""
        return any(crc32_of(vector) == crc32 for vector, crc32 in self._all("SELECT vector, crc32 FROM queries"))

    def tuning(self) -> Tuning | None:
        """How the vector file is searched; None where it is searched exactly, or there is none."""
        row = self._only("tuning")
        return None if row is None else Tuning(*row)

    def count_images(self, after: int = 0) -> int:
        """Images with a higher id, orphans included."""
        return self._count("images WHERE id > ?", (after,)) if after else self.state().images

    def _count(self, what: str, parameters: Any = ()) -> int:
        row = self._one(f"SELECT count(*) FROM {what}", parameters)
        return int(row[0]) if row else 0

    def counts(self) -> Counts:
        orphans = self.count_orphans()
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
        return tuple(path_of(path) for (path,) in rows)

    def content(self, image: int, filter: Filter) -> tuple[bytes, tuple[Photo, ...]]:
        """The hash of an image, no orphan, and its files that pass the filter, sorted by the bytes of their paths.

        StoreError where a row is not as it was written, or not found.
        """
        sql = f"""SELECT hash, path, size, mtime_ns, files.crc32 FROM files JOIN images ON id = image
            WHERE image = :image AND {where(filter, TIME_OF_ONE)} ORDER BY path"""
        rows = list(self._all(sql, {"image": image, **limits(filter)}))
        if not rows:
            raise self._damaged(f"image {image}, or what leads to it, cannot be found")
        return rows[0][0], tuple(self._photo(tuple(row), hash, None) for hash, *row in rows)

    def entries(self) -> Iterator[Entry]:
        """Every image with its files, orphans included, ascending by id; StoreError as `content`."""
        sql = "SELECT image, path, size, mtime_ns, crc32 FROM files WHERE image BETWEEN ? AND ? ORDER BY image, path"
        for images in self._rows(f"SELECT {_IMAGE} FROM images ORDER BY id"):
            self._whole(images)
            hashes = {row[0]: row[1] for row in images}
            photos: dict[int, list[Photo]] = {id: [] for id in hashes}
            for image, *row in self._all(sql, (images[0][0], images[-1][0])):
                if image not in photos:
                    raise self._damaged(f"the row of {_shown(row[0])} leads nowhere")
                photos[image].append(self._photo(tuple(row), hashes[image], None))
            for id, hash, width, height, taken_at, vector, _ in images:
                yield Entry(hash, width, height, taken_at, vector, tuple(photos[id]))

    def _photo(self, row: tuple[Any, ...], hash: bytes | None, reason: str | None) -> Photo:
        """The file of a row (path, size, mtime_ns, crc32). StoreError where it is not as it was written."""
        path, size, mtime_ns, crc32 = row
        if crc32_of(path, size, mtime_ns, hash, reason) != crc32:
            raise self._damaged(f"the row of {_shown(path)} is not as it was written")
        return Photo(path_of(path), size, mtime_ns)

    def images_within(self, filter: Filter) -> Iterator[int]:
        """Ids of the images with a file that passes the filter, ascending."""
        sql = f"SELECT DISTINCT image FROM files WHERE image IS NOT NULL AND {where(filter, TIME)} ORDER BY image"
        return (id for (id,) in self._all(sql, limits(filter)))

    def skipped(self) -> Iterator[Skipped]:
        """The files that were skipped, and why, sorted by the bytes of their paths; StoreError as `content`."""
        return (Skipped(photo.path, reason) for photo, reason in self.skipped_files())

    def skipped_files(self) -> Iterator[tuple[Photo, str]]:
        """As `skipped`, with sizes and times."""
        sql = "SELECT path, size, mtime_ns, crc32, reason FROM files WHERE reason IS NOT NULL ORDER BY path"
        return ((self._photo(tuple(row), None, reason), reason) for *row, reason in self._all(sql))

    def reasons(self) -> tuple[tuple[str, int], ...]:
        """Why files were skipped, and how many, the most frequent reasons first."""
        sql = "SELECT reason, count(*) FROM files WHERE reason IS NOT NULL GROUP BY reason ORDER BY 2 DESC, 1"
        return tuple((reason, count) for reason, count in self._typed(self._all(sql), str, int))

    def roots(self) -> Iterator[tuple[Path, int | None]]:
        """Each root and when its last complete scan ended (unix seconds), sorted by path. StoreError as `content`."""
        for path, at, whole in self.root_rows():
            if not whole:
                raise self._damaged(f"the row of the folder {str(path)!r} is not as it was written")
            yield path, at

    def count_under(self, root: Path) -> int:
        """Files at or below `root` that lead to an image."""
        return self._count(f"files WHERE image IS NOT NULL AND {UNDER}", range_of(root))

    def holds(self, path: Path) -> bool:
        """Whether a file at or below `path` leads to an image."""
        sql = f"SELECT 1 FROM files WHERE image IS NOT NULL AND {UNDER} LIMIT 1"
        return self._one(sql, range_of(path)) is not None

    def knows(self, path: Path) -> bool:
        """Whether a file or a root lies at or below `path`."""
        sql = f"SELECT 1 FROM files WHERE {UNDER} UNION ALL SELECT 1 FROM roots WHERE {UNDER} LIMIT 1"
        return self._one(sql, range_of(path)) is not None

    def names_in(self, folder: Path, most: int) -> list[str]:
        """The names of files and folders directly below `folder`, in order of their bytes, at most so many."""
        names: list[str] = []
        parameters = range_of(folder)
        below = after = parameters["below"]
        while len(names) < most:
            row = self._one("SELECT path FROM files WHERE path > ? AND path < ? LIMIT 1", (after, parameters["after"]))
            if row is None:
                break
            name = row[0][len(below) :].partition(os.fsencode(os.sep))[0]
            names.append(os.fsdecode(name))
            after = range_of(folder / names[-1])["after"]  # of all that lies below it, the first is enough
        return names

    def files(self) -> Iterator[Path]:
        """Every file, skipped ones included, sorted by the bytes of their paths."""
        return (path_of(path) for (path,) in self._typed(self._all("SELECT path FROM files ORDER BY path"), bytes))

    def contents(self) -> Iterator[tuple[bytes, bool]]:
        """The hash of every image, and whether it is an orphan."""
        sql = "SELECT hash, id IN (SELECT image FROM orphans) FROM images"
        return ((hash, bool(orphan)) for hash, orphan in self._typed(self._all(sql), bytes, int))

    def orphaned_by(self, gone: Iterable[Path]) -> Iterator[bytes]:
        """The hashes of the images that have no file but those of `gone`. Changes nothing."""
        with explained(self.path):
            self._clear_gone()
            self._db.executemany("INSERT INTO gone VALUES (?)", ((os.fsencode(path),) for path in gone))
        return (hash for (hash,) in self._typed(self._all(f"SELECT hash FROM images WHERE {_OF_GONE}"), bytes))

    def count_under_each(self, paths: Iterable[Path]) -> tuple[list[int], int]:
        """How many files lie at or below each of `paths`, counted once, and how many images have none but those.
        Changes nothing."""
        counts = []
        with explained(self.path):
            self._clear_gone()
            for path in paths:
                sql = f"INSERT OR IGNORE INTO gone SELECT path FROM files WHERE {UNDER}"
                counts.append(self._db.execute(sql, range_of(path)).rowcount)
        return counts, self._count(f"images WHERE {_OF_GONE}")

    def _clear_gone(self) -> None:
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (path BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("DELETE FROM gone")

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
            layout, wanted = statements(self._db), LAYOUTS[self.format_version()]
        yield from (f"its layout lacks {' '.join(sql.split()[:3])}" for sql in sorted(wanted - layout))
        yield from (f"its layout has what is not of the format: {sql:.40}" for sql in sorted(layout - wanted))

    def image_rows(self) -> Iterator[list[ImageRow]]:
        """Every image, ascending, some at a time."""
        for rows in self._rows(f"SELECT {_IMAGE} FROM images ORDER BY id"):
            yield [ImageRow(id, row[0], row[4], crc32_of(*row) == crc32) for id, *row, crc32 in rows]

    def whole_rows(self, images: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """The rows of these images whose sums are right: the id, what is summed, the sum."""
        sql = f"SELECT {_IMAGE} FROM images WHERE id IN (SELECT value FROM json_each(?))"
        return (row for row in self._all(sql, (json.dumps(images),)) if crc32_of(*row[1:-1]) == row[-1])

    def file_rows(self) -> Iterator[list[tuple[Path, bool]]]:
        """Every file, and whether its sum is right, sorted by the bytes of their paths, some at a time."""
        sql = f"SELECT {SUMMED['files']}, files.crc32 FROM files LEFT JOIN images ON id = image ORDER BY path"
        for rows in self._rows(sql):
            if not all(isinstance(row[0], bytes) for row in rows):
                raise self._damaged("a path is not as it was written")
            yield [(path_of(row[0]), crc32_of(*row) == crc32) for *row, crc32 in rows]

    def root_rows(self) -> Iterator[tuple[Path, int | None, bool]]:
        """Every root, when its last complete scan ended, and whether its sum is right, sorted by path."""
        for path, at, crc32 in self._all(f"SELECT {SUMMED['roots']}, crc32 FROM roots ORDER BY path"):
            if not isinstance(path, bytes):
                raise self._damaged("a path is not as it was written")
            yield path_of(path), at, crc32_of(path, at) == crc32

    def count_lost_queries(self) -> int:
        """Vectors of texts that are not as they were written."""
        return self._count("queries") - len(self.queries())

    def miscounted(self) -> Iterator[str]:
        """Where the counts that the triggers keep are not those of the tables."""
        said, images = self.state().images, self._count("images")
        if said != images:
            yield f"there are {images} images, not {said}"
        for what, sql in (_OUT_OF_USE | _IN_USE).items():
            if number := self._count(sql):
                yield f"{what} ({number})"


def _connected(uri: str) -> sqlite3.Connection:
    """For one thread at a time, which need not be the same: a `Library` lends its readers."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)


def backup_of(path: Path) -> Path:
    """Where the copy of a manifest is."""
    return path.with_name(f"{path.stem}.backup{path.suffix}")


def absent(path: Path) -> StoreError:
    """What there is to say where no manifest is at `path`, or an empty one."""
    if is_own(backup_of(path)):
        return DamagedIndexError(path, "gone or empty, though its copy is there")
    folder = path.parent
    if folder.exists() and not folder.is_dir():
        return NoIndexError(f"{folder}: a file, not the folder of an index: name another place with --index DIR")
    return NoIndexError(f"no index at {folder}: make one there with `bt index PHOTOS`")


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _shown(path: Any) -> str:
    return repr(os.fsdecode(path)) if isinstance(path, bytes) else "a file"
