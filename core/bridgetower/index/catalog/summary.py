"""The queries on a catalog as a whole: what made it, its state, its counts."""

from collections.abc import Iterator
from pathlib import Path

from bridgetower.index.catalog.connection import Connection
from bridgetower.index.catalog.filters import UNDER, range_of
from bridgetower.index.catalog.rows import Counts, Keeping, Space, State, StoreRow, Tuning
from bridgetower.index.catalog.schema import KEEPING_SINCE, STORE_SINCE, SUMMED, crc32_of
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.records import Fingerprint

# The date of a picture, as a filter compares it: in seconds since 1970 on the clock where it was taken.
_DATE = """coalesce(files.taken_at, {},
    CAST(strftime('%s', files.mtime_ns / 1000000000, 'unixepoch', 'localtime') AS INTEGER), 0)"""
# The dates of images from their SQL index, because rows of images are large; the limit keeps SQLite from reading all
# hashes before it sorts.
_NEWEST = f"""WITH times (id, at) AS MATERIALIZED (SELECT id, taken_at FROM images INDEXED BY images_by_time)
    SELECT (SELECT hash FROM images WHERE id = image), date FROM (
        SELECT image, max({_DATE.format("at")}) AS date FROM files JOIN times ON times.id = image
        WHERE {{}} GROUP BY image ORDER BY date DESC, image DESC LIMIT -1)"""


class CatalogSummary(Connection):
    """A connection to manifest.sqlite with the queries on it as a whole."""

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the vectors. StoreError if it is damaged."""
        row = self._only("fingerprint")
        if row is None:
            raise self._damaged("its table fingerprint is empty")
        return Fingerprint(*row)

    def state(self) -> State:
        """Return the state of the index. StoreError if it is damaged."""
        row, count = self._only("state"), self._one("SELECT images FROM state")
        if row is None or count is None:
            raise self._damaged("its table state is empty")
        if not isinstance(count[0], int) or count[0] < 0:
            raise self._damaged(f"it counts {count[0]!r:.20} images")
        return State(*row, *count)

    def has_images(self) -> bool:
        """Return whether there is any image, orphans included."""
        return self._one("SELECT 1 FROM images LIMIT 1") is not None

    def last_image(self) -> int:
        """Return the highest id that any image has or had; 0 if there was no image yet."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'images'")
        return 0 if row is None else int(row[0])

    def count_orphans(self) -> int:
        """Return how many images have no file."""
        return self._count("orphans")

    def count_pruned(self, covered: int) -> int:
        """Return how many images with an id up to `covered` were removed since the vector file was published."""
        return self._count("pruned WHERE image <= ?", (covered,))

    def queries(self) -> list[bytes]:
        """Return the vectors of texts with which recall is measured, each `[E]` of little-endian float16, without
        damaged ones."""
        rows = self._all("SELECT vector, crc32 FROM queries ORDER BY id")
        return [vector for vector, crc32 in rows if crc32_of(vector) == crc32]

    def has_queries(self) -> bool:
        """Return whether there are undamaged vectors of texts with which recall is measured."""
        return any(crc32_of(vector) == crc32 for vector, crc32 in self._all("SELECT vector, crc32 FROM queries"))

    def tuning(self) -> Tuning | None:
        """Return how the vector file is searched; None if it is searched exactly, or there is none."""
        row = self._only("tuning")
        return None if row is None else Tuning(*row)

    def keeping(self) -> Keeping | None:
        """Return which features the index keeps; None if it keeps none."""
        row = self._only("keeping") if self.format_version() >= KEEPING_SINCE else None
        return None if row is None else Keeping(*row)

    def store(self) -> StoreRow | None:
        """Return the database that recalls for the index; None if it has vector files."""
        row = self._only("store") if self.format_version() >= STORE_SINCE else None
        return None if row is None else StoreRow(*row)

    def newest(self, under: Path | None = None) -> Iterator[tuple[bytes, int]]:
        """Yield hash and date of each image with a file at or below `under`, newest first; None is everywhere."""
        where, parameters = ("true", {}) if under is None else (UNDER, range_of(under))
        return self._typed(self._all(_NEWEST.format(where), parameters), bytes, int)

    def date_of(self, hash: bytes, under: Path | None = None) -> int | None:
        """Return the date of an image with a file at or below `under`, as `newest` does; None if it has none."""
        where, parameters = ("true", {}) if under is None else (UNDER, range_of(under))
        sql = f"""SELECT max({_DATE.format("images.taken_at")}) FROM files JOIN images ON images.id = image
            WHERE hash = :hash AND {where}"""
        row = self._one(sql, {**parameters, "hash": hash})
        return None if row is None else row[0]

    def count_images(self, after: int = 0) -> int:
        """Return how many images have an id above `after`, orphans included."""
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
        """Return how many images have a file and an id above `after`."""
        return self.count_images(after) - self._count("orphans WHERE image > ?", (after,))

    def reasons(self) -> tuple[tuple[str, int], ...]:
        """Return the reasons of skipped files with the number of files, most frequent first."""
        sql = "SELECT reason, count(*) FROM files WHERE reason IS NOT NULL GROUP BY reason ORDER BY 2 DESC, 1"
        return tuple((reason, count) for reason, count in self._typed(self._all(sql), str, int))

    def space(self) -> Space:
        with explained(self.path):
            page, pages, free = (self._pragma(name) for name in ("page_size", "page_count", "freelist_count"))
        return Space(used=page * (pages - free), free=page * free)

    def count_undated(self) -> int:
        """Return how many files have an image and no date but that of the file itself."""
        own = "taken_at IS NULL AND " if self._summed is SUMMED else ""
        return self._count(f"files WHERE {own}image IN (SELECT id FROM images WHERE taken_at IS NULL)")
