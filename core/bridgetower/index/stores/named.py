"""The `RecallStore` that the manifest of an index names: FAISS, or a table in a database."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import StoreRow
from bridgetower.index.stores.naming import home_of
from bridgetower.index.vectors.faiss.store import FaissStore
from bridgetower.index.vectors.protocol import RecallStore, RecallView
from bridgetower.records import OnProgress

if TYPE_CHECKING:  # the import takes longer than most commands take to run
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.index.catalog.writer import CatalogWriter
    from bridgetower.index.stores.table import VectorTable


def connect(row: StoreRow, dim: int, password: str | None) -> "VectorTable":
    """Return the table of a row, for vectors of this length. Raises StoreError; UsageError if the driver is missing."""
    from bridgetower.index.stores.address import POSTGRES, Address

    address = Address.of(row.address)
    if address.scheme == POSTGRES:
        from bridgetower.index.stores.postgres import PostgresTable

        return PostgresTable.connect(address, row.name, dim, password)
    from bridgetower.index.stores.milvus import MilvusTable

    return MilvusTable.connect(address, row.name, dim, password)


@dataclass(frozen=True, slots=True)
class NamedStore:
    """The store of whichever index it is asked about. Drivers and numpy are imported when a database is asked."""

    # The password of the database, or what finds it when a database is asked.
    password: "str | Callable[[], str | None] | None" = field(default=None, repr=False)
    connect: "Callable[[StoreRow, int, str | None], VectorTable]" = field(default=connect, repr=False)

    def _of(self, catalog: Catalog) -> RecallStore:
        if catalog.store() is None:
            return FaissStore()
        from bridgetower.index.stores.external import ExternalStore

        return ExternalStore(self._connect)

    def _connect(self, row: StoreRow, dim: int) -> "VectorTable":
        return self.connect(row, dim, self.password() if callable(self.password) else self.password)

    def open(self, directory: Path, catalog: Catalog) -> RecallView:
        return self._of(catalog).open(directory, catalog)

    def files(self, directory: Path, catalog: Catalog) -> list[Path]:
        return self._of(catalog).files(directory, catalog)

    def require_reachable(self, directory: Path, catalog: Catalog) -> None:
        self._of(catalog).require_reachable(directory, catalog)

    def is_due(self, catalog: Catalog, uncovered: int, *, at_end: bool) -> bool:
        return self._of(catalog).is_due(catalog, uncovered, at_end=at_end)

    def publish(self, directory: Path, catalog: "CatalogWriter", on_progress: OnProgress) -> None:
        self._of(catalog).publish(directory, catalog, on_progress)

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        return self._of(catalog).is_intact(directory, catalog, whole=whole)

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        return self._of(catalog).differences(directory, catalog)

    def vectors(
        self, directory: Path, catalog: Catalog, images: "NDArray[np.int64]"
    ) -> "Iterator[tuple[int, NDArray[np.float32]]]":
        return self._of(catalog).vectors(directory, catalog, images)

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        if catalog.store() is not None:  # vector files of the time before are in use no more
            FaissStore().clean(directory, catalog, everything=True)
        self._of(catalog).clean(directory, catalog, everything=everything)

    def reach(self, row: StoreRow, dim: int) -> None:
        """Connect to the database of a row. Raises StoreError."""
        self._connect(row, dim).close()

    def create(self, row: StoreRow, dim: int) -> None:
        """Make the table of a row, without rows. Raises StoreError if the database does not let us."""
        from bridgetower.index.stores.table import Stamp

        with closing(self._connect(row, dim)) as table:
            table.create(Stamp(0, 0, row.token))

    def drop(self, row: StoreRow, dim: int, directory: Path) -> bool:
        """Remove the table of a row that the manifest in `directory` names no more; return whether it is gone.

        It stays if the row is that of another directory, or another copy of the index has written the table since.
        Raises StoreError.
        """
        with closing(self._connect(row, dim)) as table:
            stamp = table.stamp()
            is_ours = row.home == home_of(directory) and (stamp is None or stamp.token in (row.token, row.previous))
            if is_ours:
                table.drop()
            return is_ours
