"""The queries on the catalog of an index, as SQL.

`schema` defines the tables, `writer` the changes. Vectors are bytes here, so that reading the catalog needs neither
numpy nor FAISS.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from bridgetower.errors import DamagedIndexError, StoreError
from bridgetower.files.patterns import fitting
from bridgetower.index.catalog.connection import ROWS
from bridgetower.index.catalog.filters import TIMES, TIMES_3, UNDER, Times, limits, range_of, where
from bridgetower.index.catalog.rows import Entry, Folder, Image, ImageRow, Known
from bridgetower.index.catalog.schema import (
    LAYOUTS,
    SUMMED,
    crc32_of,
    statements,
)
from bridgetower.index.catalog.sqlite_errors import explained, require_own_files, size_of
from bridgetower.index.catalog.summary import CatalogSummary
from bridgetower.records import File, Filter, Skipped, path_of

# Images whose files are all in the table `gone`, which is temporary and belongs to this connection.
_WITHOUT_OTHER_FILE = """id IN (SELECT image FROM files WHERE path IN gone)
    AND NOT EXISTS (SELECT 1 FROM files WHERE image = id AND path NOT IN gone)"""
# Violations of what the triggers maintain, each as the rows of a query.
_WRONGLY_UNUSED = {
    "an image with a file is in orphans": """orphans
        WHERE EXISTS (SELECT 1 FROM files WHERE files.image = orphans.image)""",
    "orphans lists an image that does not exist": "orphans WHERE image NOT IN (SELECT id FROM images)",
    "an image that is there is in pruned": "pruned WHERE image IN (SELECT id FROM images)",
}
_WRONGLY_USED = {
    "an image without a file is not in orphans": """images WHERE id NOT IN (SELECT image FROM orphans)
        AND NOT EXISTS (SELECT 1 FROM files WHERE image = id)""",
}


class Catalog(CatalogSummary):
    """A connection to manifest.sqlite with all queries on it."""

    @classmethod
    def read_copy(cls, path: Path) -> Self:
        """Open a copy of a manifest, which is never written to. Creates no file beside it. Raises StoreError."""
        with explained(path):
            require_own_files(path)
            if not size_of(path):
                raise DamagedIndexError(path, "it is empty")
            catalog = cls._snapshot(path, immutable=True)
        catalog._stat = None  # a newer copy may take its name; the open file does not change
        return catalog

    def known(self, path: Path) -> Known | None:
        """Return the row of a file; None if there is none."""
        sql = f"SELECT {self._file_columns}, image, reason FROM files WHERE path = ?"
        row = self._one(sql, (os.fsencode(path),))
        if row is None:
            return None
        *columns, _, image, reason = row
        return Known(self._file(columns), image, reason)

    def image_id(self, hash: bytes) -> int | None:
        """Return the id of the image with this hash, orphans included; None if there is none."""
        row = self._one("SELECT id FROM images WHERE hash = ?", (hash,))
        return None if row is None else int(row[0])

    def has_older(self, decoding: int) -> bool:
        """Return whether there is an image of an older version of the decoding, orphans included."""
        return self._one("SELECT 1 FROM images WHERE decoding < ? LIMIT 1", (decoding,)) is not None

    def image_of(self, hash: bytes) -> Image | None:
        """Return the image with this hash, orphans included; None if there is none."""
        row = self._one("SELECT id, taken_at, decoding FROM images WHERE hash = ?", (hash,))
        return None if row is None else Image(*row)

    @property
    def _image_columns(self) -> str:
        """All columns of an image: a vector is never read without the sum of its row."""
        return f"id, {self._summed['images']}, crc32"

    @property
    def _file_columns(self) -> str:
        """The columns of a file that `_file` takes, and the sum."""
        return self._summed["files"].removesuffix(", hash, reason") + ", files.crc32"

    @property
    def _times(self) -> Times:
        return TIMES if self._summed is SUMMED else TIMES_3

    def _file(self, columns: Sequence[Any]) -> File:
        path, *known = columns
        if len(known) == 2:  # of an older format
            known += (0, 0, None, 0, 0, 0)
        return File(path_of(path), *known)

    def vectors(self, after: int = 0) -> Iterator[list[tuple[int, bytes]]]:
        """Yield ids and stored vectors of the images with an id above `after`, with orphans, ascending, in lists."""
        for rows in self._rows(f"SELECT {self._image_columns} FROM images WHERE id > ? ORDER BY id", (after,)):
            yield self._ids_and_vectors(rows)

    def vectors_of(self, images: Sequence[int]) -> Iterator[list[tuple[int, bytes]]]:
        """Yield ids and stored vectors of these images, in lists; unknown ids are left out."""
        sql = f"SELECT {self._image_columns} FROM images WHERE id IN (SELECT value FROM json_each(?))"
        for start in range(0, len(images), ROWS):
            for rows in self._rows(sql, (json.dumps(images[start : start + ROWS]),)):
                yield self._ids_and_vectors(rows)

    def _ids_and_vectors(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, bytes]]:
        """Return ids and vectors of rows of `_image_columns`. StoreError if the sum of a row is wrong."""
        for id, *row, crc32 in rows:
            if crc32_of(*row) != crc32:
                raise self._damaged(f"image {id} is not as it was written")
        return [(row[0], row[-2]) for row in rows]

    def orphans(self) -> Iterator[int]:
        """Yield the ids of the images that have no file, ascending."""
        return (id for (id,) in self._all("SELECT image FROM orphans ORDER BY image"))

    def orphans_among(self, images: Sequence[int]) -> int:
        """How many of these images have no file."""
        return self._count("orphans WHERE image IN (SELECT value FROM json_each(?))", (json.dumps(images),))

    def pruned(self) -> Iterator[int]:
        """Yield the ids of the images that were removed since the vector file was published, ascending."""
        return (id for (id,) in self._all("SELECT image FROM pruned ORDER BY image"))

    def image_ids(self) -> Iterator[int]:
        """Yield the ids of all images, in no order; read from an SQL index, because rows of images are large."""
        return (id for (id,) in self._all("SELECT id FROM images INDEXED BY images_by_time"))

    def paths_of(self, image: int) -> tuple[Path, ...]:
        """Return the paths of the files of an image, sorted by their bytes."""
        rows = self._typed(self._all("SELECT path FROM files WHERE image = ? ORDER BY path", (image,)), bytes)
        return tuple(path_of(path) for (path,) in rows)

    def content(self, image: int, filter: Filter) -> tuple[bytes, tuple[File, ...]]:
        """Return the hash of an image and its files that pass the filter, sorted by the bytes of their paths.

        StoreError if the sum of a row is wrong, or no file passes.
        """
        sql = f"""SELECT hash, {self._file_columns} FROM files JOIN images ON id = image
            WHERE image = :image AND {where(filter, self._times.of_one)} ORDER BY path"""
        rows = list(self._passing(sql, filter, image=image))
        if not rows:
            raise self._damaged(f"image {image}, or what leads to it, cannot be found")
        return rows[0][0], tuple(self._checked_file(row, hash, None) for hash, *row in rows)

    def entries(self) -> Iterator[Entry]:
        """Yield every image, orphans included, with its files, ascending by id. StoreError if a sum is wrong."""
        for images in self._rows(f"SELECT {self._image_columns} FROM images ORDER BY id"):
            yield from self._entries(images)

    def entry(self, hash: bytes) -> Entry:
        """Return the image with this hash, with its files. StoreError if a sum is wrong, or there is no such image."""
        images = list(self._all(f"SELECT {self._image_columns} FROM images WHERE hash = ?", (hash,)))
        if not images:
            raise self._damaged(f"the image with the hash {hash.hex()} cannot be found")
        [entry] = self._entries(images)
        return entry

    def _entries(self, images: list[tuple[Any, ...]]) -> Iterator[Entry]:
        """Yield the images of rows of `_image_columns`, ascending by id, with their files."""
        sql = f"SELECT image, {self._file_columns} FROM files WHERE image BETWEEN ? AND ? ORDER BY image, path"
        self._ids_and_vectors(images)
        hashes = {row[0]: row[1] for row in images}
        files: dict[int, list[File]] = {id: [] for id in hashes}
        for image, *row in self._all(sql, (images[0][0], images[-1][0])):
            if image not in files:
                raise self._damaged(f"the row of {_shown(row[0])} leads nowhere")
            files[image].append(self._checked_file(row, hashes[image], None))
        for id, hash, width, height, taken_at, *decoding, vector, _ in images:
            yield Entry(hash, width, height, taken_at, decoding[0] if decoding else 0, vector, tuple(files[id]))

    def _checked_file(self, row: list[Any], hash: bytes | None, reason: str | None) -> File:
        """Return the file of a row of `_file_columns`. StoreError if its sum is wrong."""
        *columns, crc32 = row
        if crc32_of(*columns, hash, reason) != crc32:
            raise self._damaged(f"the row of {_shown(columns[0])} is not as it was written")
        return self._file(columns)

    def images_within(self, filter: Filter) -> Iterator[int]:
        """Yield the ids of the images with a file that passes the filter, ascending."""
        passes = where(filter, self._times.of_many)
        sql = f"SELECT DISTINCT image FROM files WHERE image IS NOT NULL AND {passes} ORDER BY image"
        return (id for (id,) in self._passing(sql, filter))

    def paths_within(self, filter: Filter) -> Iterator[bytes]:
        """Yield the paths of the files with an image that pass the filter, in no order."""
        sql = f"""SELECT path FROM files JOIN images ON id = image WHERE {where(filter, self._times.of_one)}"""
        return (path for (path,) in self._typed(self._passing(sql, filter), bytes))

    def _passing(self, sql: str, filter: Filter, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query with the condition of a filter, whose globs call `fits(glob, path)`."""
        places = (*filter.under, *filter.not_under)
        fit_by_glob = {os.fsencode(place): fitting(place) for place in places if isinstance(place, str)}
        stopped: list[BaseException] = []

        def fits(glob: bytes, path: bytes) -> bool:
            try:
                return fit_by_glob[glob](path)
            except BaseException as error:  # Ctrl-C: SQLite would report an error of its own in its place
                stopped.append(error)
                raise

        if fit_by_glob:
            self._db.create_function("fits", 2, fits, deterministic=True)
        try:
            yield from self._all(sql, {**parameters, **limits(filter)})
        except StoreError:
            if stopped:
                raise stopped[0] from None
            raise

    def skipped(self) -> Iterator[Skipped]:
        """Yield the skipped files with their reasons, sorted by the bytes of their paths. StoreError as `entries`."""
        return (Skipped(file.path, reason) for file, reason in self.skipped_files())

    def skipped_files(self) -> Iterator[tuple[File, str]]:
        """Yield the files of `skipped` with sizes and times, and their reasons."""
        sql = f"SELECT {self._file_columns}, reason FROM files WHERE reason IS NOT NULL ORDER BY path"
        return ((self._checked_file(row, None, reason), reason) for *row, reason in self._all(sql))

    def roots(self) -> Iterator[tuple[Path, int | None]]:
        """Yield each root and when its last complete scan ended (unix s), sorted by path. StoreError as `entries`."""
        for path, at, whole in self.root_rows():
            if not whole:
                raise self._damaged(f"the row of the folder {str(path)!r} is not as it was written")
            yield path, at

    def count_under(self, root: Path) -> int:
        """Return how many files at or below `root` have an image."""
        return self._count(f"files WHERE image IS NOT NULL AND {UNDER}", range_of(root))

    def holds(self, path: Path) -> bool:
        """Return whether a file at or below `path` has an image."""
        sql = f"SELECT 1 FROM files WHERE image IS NOT NULL AND {UNDER} LIMIT 1"
        return self._one(sql, range_of(path)) is not None

    def knows(self, path: Path) -> bool:
        """Return whether a file or a root lies at or below `path`."""
        sql = f"SELECT 1 FROM files WHERE {UNDER} UNION ALL SELECT 1 FROM roots WHERE {UNDER} LIMIT 1"
        return self._one(sql, range_of(path)) is not None

    def same_stem(self, path: Path) -> list[Path]:
        """Return the files with an image whose paths are that of `path` but for the extension."""
        start = os.fsencode(path.with_suffix("")) + b"."
        sql = """SELECT path FROM files WHERE path > :start AND path < :after AND image IS NOT NULL
            AND path <> :own AND NOT instr(substr(path, length(:start)), :separator) ORDER BY path"""
        after, own = start[:-1] + b"/", os.fsencode(path)
        parameters = {"start": start, "after": after, "own": own, "separator": os.fsencode(os.sep)}
        found = (path_of(other) for (other,) in self._typed(self._all(sql, parameters), bytes))
        return [other for other in found if other.stem == path.stem and other != path]

    def names_in(self, folder: Path, most: int) -> list[str]:
        """Return at most `most` names of files and folders directly below `folder`, in order of their bytes."""
        names: list[str] = []
        parameters = range_of(folder)
        below = after = parameters["below"]
        while len(names) < most:
            row = self._one("SELECT path FROM files WHERE path > ? AND path < ? LIMIT 1", (after, parameters["after"]))
            if row is None:
                break
            name = row[0][len(below) :].partition(os.fsencode(os.sep))[0]
            names.append(os.fsdecode(name))
            after = range_of(folder / names[-1])["after"]  # skips all paths below this name
        return names

    def folders_in(self, folder: Path, most: int) -> list[Folder]:
        """Return at most `most` of the folders directly below `folder` with a file that has an image, by their names.

        Each folder is found by one search in the table, which is sorted by path; the files below it are counted.
        """
        separator, limits = os.fsencode(os.sep), range_of(folder)
        start, after, name = limits["below"], limits["after"], len(limits["below"])
        first = """SELECT path FROM files WHERE path >= ? AND path < ? AND image IS NOT NULL
            AND instr(substr(path, ?), ?) ORDER BY path LIMIT 1"""
        found: list[Folder] = []
        while len(found) < most:
            row = next(self._typed(self._all(first, (start, after, name + 1, separator)), bytes), None)
            if row is None:
                break
            child = path_of(row[0][: row[0].index(separator, name)])
            below = range_of(child)
            start = below["after"]  # the next search skips all paths below this child
            files = self._count("files WHERE path >= :below AND path < :after AND image IS NOT NULL", below)
            found.append(Folder(child, files))
        return sorted(found, key=lambda child: os.fsencode(child.path))

    def files(self) -> Iterator[Path]:
        """Yield the path of every file, skipped ones included, sorted by their bytes."""
        return (path_of(path) for (path,) in self._typed(self._all("SELECT path FROM files ORDER BY path"), bytes))

    def contents(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the hash of every image, and whether it is an orphan."""
        sql = "SELECT hash, id IN (SELECT image FROM orphans) FROM images"
        return ((hash, bool(orphan)) for hash, orphan in self._typed(self._all(sql), bytes, int))

    def orphaned_by(self, gone: Iterable[Path]) -> Iterator[bytes]:
        """Return the hashes of the images whose files are all in `gone`. Does not change the index."""
        with explained(self.path):
            self._clear_gone()
            self._db.executemany("INSERT INTO gone VALUES (?)", ((os.fsencode(path),) for path in gone))
        return (
            hash for (hash,) in self._typed(self._all(f"SELECT hash FROM images WHERE {_WITHOUT_OTHER_FILE}"), bytes)
        )

    def count_under_each(self, paths: Iterable[Path]) -> tuple[list[int], int]:
        """Return how many files lie at or below each of `paths`, each counted once, and how many images have no other
        file. Does not change the index."""
        counts = []
        with explained(self.path):
            self._clear_gone()
            for path in paths:
                sql = f"INSERT OR IGNORE INTO gone SELECT path FROM files WHERE {UNDER}"
                counts.append(self._db.execute(sql, range_of(path)).rowcount)
        return counts, self._count(f"images WHERE {_WITHOUT_OTHER_FILE}")

    def _clear_gone(self) -> None:
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (path BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("DELETE FROM gone")

    # Queries of a check

    def require_consistent(self) -> None:
        """Raise DamagedIndexError if an image in use is listed as orphan or removed: a search would leave it out."""
        for what, sql in _WRONGLY_UNUSED.items():
            if self._one(f"SELECT 1 FROM {sql} LIMIT 1") is not None:
                raise self._damaged(what)

    def damage(self) -> Iterator[str]:
        """Yield the faults that SQLite finds in the file, and differences of its tables from the format."""
        for (found,) in self._all("PRAGMA integrity_check"):
            yield from (line for line in str(found).splitlines() if line != "ok")
        yield from (f"a row of {table} leads nowhere" for table, *_ in self._all("PRAGMA foreign_key_check"))
        with explained(self.path):
            layout, wanted = statements(self._db), LAYOUTS[self.format_version()]
        yield from (f"its layout lacks {' '.join(sql.split()[:3])}" for sql in sorted(wanted - layout))
        yield from (f"its layout has what is not of the format: {sql:.40}" for sql in sorted(layout - wanted))

    def image_rows(self) -> Iterator[list[ImageRow]]:
        """Yield every image, ascending, in lists."""
        for rows in self._rows(f"SELECT {self._image_columns} FROM images ORDER BY id"):
            yield [ImageRow(id, row[0], row[-1], crc32_of(*row) == crc32) for id, *row, crc32 in rows]

    def whole_rows(self, images: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of these images whose sums are right: the id, the summed columns of our format, the sum."""
        sql = f"SELECT {self._image_columns} FROM images WHERE id IN (SELECT value FROM json_each(?))"
        for id, *row, crc32 in self._all(sql, (json.dumps(images),)):
            if crc32_of(*row) == crc32:
                *known, vector = row
                known += (0,) * (self._summed is not SUMMED)  # the decoding, which older formats do not have
                yield id, *known, vector, crc32_of(*known, vector)

    def file_rows(self) -> Iterator[list[tuple[Path, bool]]]:
        """Yield every file, and whether its sum is right, sorted by the bytes of their paths, in lists."""
        sql = f"SELECT {self._summed['files']}, files.crc32 FROM files LEFT JOIN images ON id = image ORDER BY path"
        for rows in self._rows(sql):
            if not all(isinstance(row[0], bytes) for row in rows):
                raise self._damaged("a path is not as it was written")
            yield [(path_of(row[0]), crc32_of(*row) == crc32) for *row, crc32 in rows]

    def root_rows(self) -> Iterator[tuple[Path, int | None, bool]]:
        """Yield every root, when its last complete scan ended, and whether its sum is right, sorted by path."""
        for path, at, crc32 in self._all(f"SELECT {SUMMED['roots']}, crc32 FROM roots ORDER BY path"):
            if not isinstance(path, bytes):
                raise self._damaged("a path is not as it was written")
            yield path_of(path), at, crc32_of(path, at) == crc32

    def part_rows(self) -> Iterator[tuple[int, int, bool]]:
        """Yield image and number of every part, and whether its sum is right."""
        if self._summed is SUMMED:
            sql = f"SELECT image, {SUMMED['parts']}, parts.crc32 FROM parts LEFT JOIN images ON id = image"
            for image, *row, crc32 in self._all(sql):
                yield image, row[1], crc32_of(*row) == crc32

    def count_lost_queries(self) -> int:
        """Return how many vectors of texts are damaged."""
        return self._count("queries") - len(self.queries())

    def miscounted(self) -> Iterator[str]:
        """Yield where the counts that the triggers keep differ from the tables."""
        said, images = self.state().images, self._count("images")
        if said != images:
            yield f"there are {images} images, not {said}"
        for what, sql in (_WRONGLY_UNUSED | _WRONGLY_USED).items():
            if number := self._count(sql):
                yield f"{what} ({number})"


def _shown(path: Any) -> str:
    return repr(os.fsdecode(path)) if isinstance(path, bytes) else "a file"
