"""A connection to the catalog of an index: it checks the format, and raises every failure with a way out."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from bridgetower.errors import DamagedIndexError, DamagedLogError, NoIndexError, StoreError
from bridgetower.files.regular_files import is_own
from bridgetower.index.catalog.schema import APPLICATION_ID, FORMAT_VERSION, LAYOUTS, SUMMED_IN, crc32_of, statements
from bridgetower.index.catalog.sqlite_errors import BUSY_S, explained, lost_log, require_own_files, result_code, size_of
from bridgetower.index.catalog.write_ahead_log import log_of, lost_commits

ROWS = 1024  # fetched at a time


class Connection:
    """A connection to manifest.sqlite: a snapshot for reading or, as CatalogWriter, the connection of the writer.

    Every failure of SQLite is raised as StoreError with the path and the way out, except for misuse by our own code.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, *, immutable: bool = False) -> None:
        self.path = path
        self._db = db
        self._stat = _identity(path) if immutable else None
        self._fixed_format: int | None = None  # of a snapshot, which no writer changes

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open one committed state, held until `close`. Raises NoIndexError; StoreError if it cannot be read."""
        with explained(path):
            require_own_files(path)
            if not size_of(path) and is_own(backup_of(path)):
                raise absent(path)
            if not size_of(path) and size_of(log_of(path)):  # SQLite would remove the log
                raise StoreError(
                    f"{path}: gone or empty, though its log is there: restore it from a copy; or remove what is left "
                    "of it, and let `bt index` on your folders make a new index"
                )
            with suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()
                return cls._read(path)
        raise absent(path)

    @classmethod
    def _read(cls, path: Path) -> Self:
        try:
            return cls._snapshot(path, immutable=False)
        except sqlite3.Error as error:
            # If SQLite cannot create the -shm file, it cannot read the log. Without a log the file is complete.
            refused = result_code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE
            if not (refused or full) or size_of(log_of(path)):
                raise
        return cls._snapshot(path, immutable=True)

    @classmethod
    def _snapshot(cls, path: Path, *, immutable: bool) -> Self:
        uri = path.absolute().as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro")
        catalog = cls(path, _connect(uri), immutable=immutable)
        try:
            catalog._db.execute("BEGIN")
            if catalog._is_blank():  # the first read of the file fixes the snapshot
                is_lost = not is_own(backup_of(path)) and catalog._has_lost_log()
                raise lost_log(path) if is_lost else absent(path)
            catalog._require_format()
            if lost := lost_commits(path):
                raise DamagedLogError(log_of(path), lost)
            catalog._fixed_format = catalog.format_version()
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _is_blank(self) -> bool:
        tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        return not tables and not self._pragma("application_id") and not self._pragma("user_version")

    def _has_lost_log(self) -> bool:
        """Return whether a blank manifest has a log with lost commits; read again, as a writer may just fill it."""
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
            reads = f"{min(LAYOUTS)} to {max(LAYOUTS)}"
            raise StoreError(f"{self.path}: index format {version}, this bt reads formats {reads}: {advice}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        """Close the connection; changes that were not committed are lost. May be called twice."""
        self._db.close()

    def _rows(self, sql: str, parameters: Any = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows in lists of at most `ROWS`."""
        with explained(self.path):
            cursor = self._db.execute(sql, parameters)
            while rows := cursor.fetchmany(ROWS):
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
        """Yield `rows`. Raises DamagedIndexError if a value has another type: a disk may have altered it."""
        for row in rows:
            if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                raise self._damaged("a row is not as it was written")
            yield row

    def _only(self, table: str) -> tuple[Any, ...] | None:
        """Return the summed columns of the only row of a table, None if it is empty. StoreError if its sum is wrong."""
        row = self._one(f"SELECT {self._summed[table]}, crc32 FROM {table}")
        if row is not None and crc32_of(*row[:-1]) != row[-1]:
            raise self._damaged(f"its table {table} is not as it was written")
        return None if row is None else row[:-1]

    @property
    def _summed(self) -> Mapping[str, str]:
        """The summed columns of each table, in the format of the file."""
        return SUMMED_IN[self.format_version()]

    def format_version(self) -> int:
        """Return the format version of the file, which may be older than FORMAT_VERSION."""
        if self._fixed_format is not None:
            return self._fixed_format
        with explained(self.path):
            return self._pragma("user_version")

    def _count(self, what: str, parameters: Any = ()) -> int:
        row = self._one(f"SELECT count(*) FROM {what}", parameters)
        return int(row[0]) if row else 0


def _connect(uri: str) -> sqlite3.Connection:
    """Connect for one thread at a time; the thread may change, because a `Library` lends its readers."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)


def backup_of(path: Path) -> Path:
    """Return the path of the copy of a manifest."""
    return path.with_name(f"{path.stem}.backup{path.suffix}")


def absent(path: Path) -> StoreError:
    """Return the error for a manifest at `path` that is missing or empty."""
    if is_own(backup_of(path)):
        return DamagedIndexError(path, "gone or empty, though its copy is there")
    folder = path.parent
    if folder.exists() and not folder.is_dir():
        return NoIndexError(f"{folder}: a file, not the folder of an index: name another place with --index DIR")
    return NoIndexError(f"no index at {folder}: index pictures there first", folder)


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
