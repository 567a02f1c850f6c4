"""Compare a table in a database with the manifest, row by row."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.stores.table import VectorTable
from bridgetower.index.vectors.catalog_vectors import all_vectors

_SHOWN = 5  # ids in a message


def differences(catalog: Catalog, table: VectorTable) -> Iterator[str]:
    """Yield the differences between the covered images and the rows, after reading both in full.

    Rows of removed images may still be there, and rows above the last covered id, which a writer may just insert.
    """
    covered, pruned = catalog.state().covered, set(catalog.pruned())
    rows = _Rows(table)
    missing: list[int] = []
    other: list[int] = []
    strange: list[int] = []
    for ids, vectors in all_vectors(catalog):
        ids, vectors = ids[ids <= covered], vectors[ids <= covered]
        if len(ids):
            there, values = rows.up_to(int(ids[-1]))
            missing += np.setdiff1d(ids, there).tolist()
            strange += np.setdiff1d(there, ids).tolist()
            _, ours, theirs = np.intersect1d(ids, there, assume_unique=True, return_indices=True)
            other += ids[ours][(vectors[ours] != values[theirs]).any(axis=1)].tolist()
    strange += rows.up_to(covered)[0].tolist()
    yield from _counted(missing, "of an image that the table does not have")
    yield from _counted([id for id in strange if id not in pruned], "in the table of no image")
    yield from _counted(other, "in the table with another vector than the image")


def _counted(ids: list[int], what: str) -> Iterator[str]:
    if ids:
        shown = ", ".join(map(str, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
        yield f"{len(ids)} x a row {what} ({shown})"


class _Rows:
    """The rows of a table, ascending, in parts up to given ids."""

    def __init__(self, table: VectorTable) -> None:
        self._batches = table.rows()
        self._ids = np.zeros(0, np.int64)
        self._vectors: NDArray[np.float32] | None = None

    def up_to(self, last: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids `[n]` and vectors `[n, E]` of the rows up to this id that were not returned before."""
        ids, parts = [self._ids], [] if self._vectors is None else [self._vectors]
        while not len(ids[-1]) or ids[-1][-1] <= last:
            batch = next(self._batches, None)
            if batch is None:
                break
            ids.append(batch[0])
            parts.append(batch[1])
        all_ids = np.concatenate(ids)
        vectors = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        until = int(np.searchsorted(all_ids, last, side="right"))
        self._ids, self._vectors = all_ids[until:], vectors[until:]
        return all_ids[:until], vectors[:until]
