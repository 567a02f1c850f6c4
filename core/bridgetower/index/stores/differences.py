"""Compare a table in a database with the manifest, row by row."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.stores.table import VectorTable
from bridgetower.index.vectors.catalog_vectors import all_vectors, is_in

_SHOWN = 5  # ids in a message


def differences(catalog: Catalog, table: VectorTable) -> Iterator[str]:
    """Yield the differences between the covered images and the rows, after reading both in full.

    Rows of removed images may still be there, and rows above the last covered id, which a writer may just insert.
    """
    covered, pruned = catalog.state().covered, np.fromiter(catalog.pruned(), np.int64)
    rows = _Rows(table, catalog.fingerprint().dim)
    missing = _Ids("of an image that the table does not have")
    strange = _Ids("in the table of no image")
    other = _Ids("in the table with another vector than the image")
    for ids, vectors in all_vectors(catalog):
        ids, vectors = ids[ids <= covered], vectors[ids <= covered]
        if len(ids):
            there, values = rows.up_to(int(ids[-1]))
            missing.add(ids[~is_in(ids, there)])
            strange.add(there[~is_in(there, ids) & ~is_in(there, pruned)])
            _, ours, theirs = np.intersect1d(ids, there, assume_unique=True, return_indices=True)
            other.add(ids[ours][(vectors[ours] != values[theirs]).any(axis=1)])
    rest = rows.up_to(covered)[0]
    strange.add(rest[~is_in(rest, pruned)])
    for found in (missing, strange, other):
        yield from found.said()


class _Ids:
    """The number of ids of rows that differ in one way, and the first of them."""

    def __init__(self, what: str) -> None:
        self._what, self._number = what, 0
        self._first: list[int] = []

    def add(self, ids: NDArray[np.int64]) -> None:
        self._number += len(ids)
        self._first += ids[: _SHOWN - len(self._first)].tolist()

    def said(self) -> Iterator[str]:
        if self._number:
            shown = ", ".join(map(str, self._first)) + (", ..." if self._number > _SHOWN else "")
            yield f"{self._number} x a row {self._what} ({shown})"


class _Rows:
    """The rows of a table, ascending, in parts up to given ids."""

    def __init__(self, table: VectorTable, dim: int) -> None:
        self._batches = table.rows()
        self._ids, self._vectors = np.zeros(0, np.int64), np.zeros((0, dim), np.float32)

    def up_to(self, last: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids `[n]` and vectors `[n, E]` of the rows up to this id that were not returned before."""
        ids, parts = [self._ids], [self._vectors]
        while not len(ids[-1]) or ids[-1][-1] <= last:
            batch = next(self._batches, None)
            if batch is None:
                break
            ids.append(batch[0])
            parts.append(batch[1])
        all_ids, vectors = np.concatenate(ids), np.concatenate(parts)
        until = int(np.searchsorted(all_ids, last, side="right"))
        self._ids, self._vectors = all_ids[until:], vectors[until:]
        return all_ids[:until], vectors[:until]
