"""The manifest of an index: one SQLite file that holds everything that cannot be computed again cheaply.

All that is asked of it, as SQL; `schema` has its tables, `writer` what is written to it. Vectors come and go
as bytes, so that looking at an index needs neither numpy nor FAISS.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from bridgetower.errors import DamagedIndexError
from bridgetower.index.catalog.connection import ROWS, Connection
from bridgetower.index.catalog.filters import TIME, TIME_OF_ONE, UNDER, limits, range_of, where
from bridgetower.index.catalog.rows import Counts, Entry, ImageRow, Known, Space, State, Tuning
from bridgetower.index.catalog.schema import (
    FINGERPRINT_2,
    LAYOUTS,
    SUMMED,
    crc32_of,
    statements,
)
from bridgetower.index.catalog.sqlite_errors import explained, require_own_files, size_of
from bridgetower.records import File, Filter, Fingerprint, Skipped, path_of

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


class Catalog(Connection):
    """All that is asked of manifest.sqlite."""

    @classmethod
    def read_copy(cls, path: Path) -> Self:
        """Open a copy of a manifest, which nothing ever writes to. Makes no file beside it. Raises StoreError."""
        with explained(path):
            require_own_files(path)
            if not size_of(path):
                raise DamagedIndexError(path, "it is empty")
            catalog = cls._snapshot(path, immutable=True)
        catalog._stat = None  # another may take its name; this one stays as it is
        return catalog

    def fingerprint(self) -> Fingerprint:
        """What made the vectors."""
        row = self._only("fingerprint", FINGERPRINT_2 if self.format_version() == 2 else SUMMED["fingerprint"])
        if row is None:
            raise self._damaged("its table fingerprint is empty")
        return Fingerprint(*row)

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
        for start in range(0, len(images), ROWS):
            for rows in self._rows(sql, (json.dumps(images[start : start + ROWS]),)):
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

    def orphans_among(self, images: Sequence[int]) -> int:
        """How many of these images have no file."""
        return self._count("orphans WHERE image IN (SELECT value FROM json_each(?))", (json.dumps(images),))

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

    def content(self, image: int, filter: Filter) -> tuple[bytes, tuple[File, ...]]:
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
            photos: dict[int, list[File]] = {id: [] for id in hashes}
            for image, *row in self._all(sql, (images[0][0], images[-1][0])):
                if image not in photos:
                    raise self._damaged(f"the row of {_shown(row[0])} leads nowhere")
                photos[image].append(self._photo(tuple(row), hashes[image], None))
            for id, hash, width, height, taken_at, vector, _ in images:
                yield Entry(hash, width, height, taken_at, vector, tuple(photos[id]))

    def _photo(self, row: tuple[Any, ...], hash: bytes | None, reason: str | None) -> File:
        """The file of a row (path, size, mtime_ns, crc32). StoreError where it is not as it was written."""
        path, size, mtime_ns, crc32 = row
        if crc32_of(path, size, mtime_ns, hash, reason) != crc32:
            raise self._damaged(f"the row of {_shown(path)} is not as it was written")
        return File(path_of(path), size, mtime_ns)

    def images_within(self, filter: Filter) -> Iterator[int]:
        """Ids of the images with a file that passes the filter, ascending."""
        sql = f"SELECT DISTINCT image FROM files WHERE image IS NOT NULL AND {where(filter, TIME)} ORDER BY image"
        return (id for (id,) in self._all(sql, limits(filter)))

    def skipped(self) -> Iterator[Skipped]:
        """The files that were skipped, and why, sorted by the bytes of their paths; StoreError as `content`."""
        return (Skipped(photo.path, reason) for photo, reason in self.skipped_files())

    def skipped_files(self) -> Iterator[tuple[File, str]]:
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

    # What a check asks

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


def _shown(path: Any) -> str:
    return repr(os.fsdecode(path)) if isinstance(path, bytes) else "a file"
