"""Check the vector files of an index against the manifest: row by row, and with searches."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedFileError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.vectors.catalog_vectors import all_vectors
from bridgetower.index.vectors.faiss.flat import FlatVectors
from bridgetower.index.vectors.faiss.generation import Generation, published
from bridgetower.index.vectors.faiss.ivf import IvfVectors
from bridgetower.index.vectors.faiss.scalar_codes import ScalarCodes
from bridgetower.resources import shortage

_QUERIES = 8  # for which a search of the vector file is compared with the exact answer
_NEAREST = 10  # answers compared for each query


def differences(directory: Path, catalog: Catalog) -> list[str]:
    """Return the differences between the vector files that a state names and the manifest. Raises StoreError."""
    try:
        with closing(published(directory, catalog)) as files:
            return [*_differences(files, catalog)]
    except DamagedFileError as error:
        return [f"{error.path.name}: {error.damage}"]
    except OSError as error:
        if (lack := shortage(error)) is not None:
            raise lack from error
        return [f"the vector file cannot be read ({error.strerror})"]


def _differences(files: Generation, catalog: Catalog) -> Iterator[str]:
    """Yield the differences between the vector files and the manifest."""
    state, dim = catalog.state(), catalog.fingerprint().dim
    tuning = catalog.tuning()
    if tuning is not None and not _is_valid(tuning):
        yield f"it cannot be searched as the index says ({tuning})"
    if not files.whole or files.vectors is None:
        yield "the vector file is not there"
    elif tuning is None:
        index = FlatVectors.load(files.vectors, state.vectors_sha256 or b"", dim)
        if index is None:
            yield "the vector file is not as it was written"
        else:
            yield from _differences_of_exact(index, catalog)
    else:
        lists = IvfVectors.load(files.vectors, state.vectors_sha256 or b"", dim)
        if lists is None or files.codes is None:
            yield "the vector file is not as it was written"
        else:
            yield from _differences_of_lists(lists, ScalarCodes(files.codes), catalog)


def _is_valid(tuning: Tuning) -> bool:
    return 1 <= tuning.effort <= tuning.lists and tuning.candidates >= 1 and 0 <= tuning.recall <= 1


def _differences_of_lists(lists: IvfVectors, codes: ScalarCodes, catalog: Catalog) -> Iterator[str]:
    """Yield the differences of a vector file with lists; its codes hold the ids and rounded vectors of the rows."""
    held = codes.check()
    if len(lists) != len(held):
        yield f"the vector file has {len(lists)} rows in its lists, and {len(held)} codes"
    covered, pruned = catalog.state().covered, np.array([*catalog.pruned()], dtype=np.int64)
    missing = met = altered = 0
    for ids, vectors in all_vectors(catalog):
        ids, vectors = ids[ids <= covered], vectors[ids <= covered]
        places = np.searchsorted(held, ids).clip(max=max(len(held) - 1, 0))  # rows are in the order of their ids
        there = held[places] == ids
        missing += int((~there).sum())
        met += int(there.sum())
        altered += codes.differing(places[there], vectors[there])
    yield from _wrong_counts(missing, len(held) - met - len(np.intersect1d(held, pruned)), altered)
    yield from _missing_pruned(pruned, covered, held)


def _differences_of_exact(index: FlatVectors, catalog: Catalog) -> Iterator[str]:
    """Yield the differences of a vector file that is searched exactly."""
    covered = catalog.state().covered
    held, pruned = index.ids(), np.array([*catalog.pruned()], dtype=np.int64)
    missing = altered = met = 0
    truth: _ExactNearest | None = None
    for ids, vectors in all_vectors(catalog):
        ids, vectors = ids[ids <= covered], vectors[ids <= covered]
        if not len(ids):
            break
        there = np.isin(ids, held)
        truth = truth or _ExactNearest(vectors[:_QUERIES])
        truth.add(ids, vectors)
        missing += int((~there).sum())
        met += int(there.sum())
        altered += int((index.vectors(ids[there]) != vectors[there]).any(axis=1).sum())
    wrong = [
        *_wrong_counts(missing, len(held) - met - len(np.intersect1d(held, pruned)), altered),
        *_missing_pruned(pruned, covered, held),
    ]
    yield from wrong
    if truth is not None and not wrong:
        index.remove(pruned)
        if not truth.agrees(index.search(truth.queries, _NEAREST)[1]):
            yield "a search of the vector file does not give what comparing one by one does"


def _wrong_counts(missing: int, surplus: int, altered: int) -> Iterator[str]:
    if missing:
        yield f"the vector file lacks {missing} of the images that it should hold"
    if surplus:
        yield f"the vector file holds {surplus} images that are not in the manifest"
    if altered:
        yield f"the vector file holds {altered} vectors that are not those of the manifest"


def _missing_pruned(pruned: NDArray[np.int64], covered: int, held: NDArray[np.int64]) -> Iterator[str]:
    if lost := len(np.setdiff1d(pruned[pruned <= covered], held)):
        yield f"the vector file lacks {lost} of the removed images that it should still hold"


class _ExactNearest:
    """The exact nearest images of some queries, found by comparing them with every vector."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        """`queries` are unit vectors `[Q, E]`."""
        self.queries = queries
        self._ids = np.zeros((len(queries), 0), np.int64)
        self._scores = np.zeros((len(queries), 0))

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Compare with these images `[n]` and their vectors `[n, E]`."""
        scores = self.queries.astype(np.float64) @ vectors.T.astype(np.float64)
        self._ids = np.concatenate([self._ids, np.broadcast_to(ids, scores.shape)], axis=1)
        self._scores = np.concatenate([self._scores, scores], axis=1)
        order = np.lexsort((self._ids, -self._scores), axis=1)[:, :_NEAREST]
        self._ids = np.take_along_axis(self._ids, order, axis=1)
        self._scores = np.take_along_axis(self._scores, order, axis=1)

    def agrees(self, scores: NDArray[np.float32]) -> bool:
        """Return whether `scores` `[Q, k]` are the similarities of the nearest images."""
        return scores.shape == self._scores.shape and bool(np.allclose(scores, self._scores, rtol=0, atol=1e-6))
