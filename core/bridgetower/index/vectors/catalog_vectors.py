"""Read vectors from the catalog as arrays, in batches: to build and check derived data, and to search without it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedIndexError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.vectors.float16 import Scored, best, exact_scores, unpack
from bridgetower.records import OnProgress, quiet

# Up to so many images are searched exactly: with 512 numbers each, 100 MB to read and 5 ms to compare.
EXACT_MOST = 50_000

_ROWS = 16_384  # vectors held at a time
_NOISE = 1e-5  # the largest error of an inner product in float32


def few(images: int) -> bool:
    """Return whether so many images are searched exactly, with their vectors in memory."""
    return images <= EXACT_MOST


def all_vectors(
    catalog: Catalog, *, after: int = 0, on_progress: OnProgress = quiet
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield ids `[n]`, ascending, and vectors `[n, E]` of all images with an id above `after`, in batches.

    Raises StoreError if a row is damaged, or their number is not the one in the state.
    """
    total, done, last = catalog.count_images(after), 0, after
    rows: list[tuple[int, bytes]] = []
    for some in catalog.vectors(after):
        if any(id <= before for before, (id, _) in zip([last, *(id for id, _ in some)], some, strict=False)):
            raise DamagedIndexError(catalog.path, "its images are not in order")
        last = some[-1][0]
        rows += some
        if len(rows) >= _ROWS:
            done += len(rows)
            yield _arrays(catalog, rows)
            on_progress(done, total)
            rows = []
    if done + len(rows) != total:
        raise DamagedIndexError(catalog.path, f"it has {done + len(rows)} images, not {total}")
    if rows:
        yield _arrays(catalog, rows)
        on_progress(total, total)


def _arrays(catalog: Catalog, rows: list[tuple[int, bytes]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.array([id for id, _ in rows], np.int64), unpacked(catalog, [blob for _, blob in rows])


def unpacked(catalog: Catalog, blobs: list[bytes]) -> NDArray[np.float32]:
    """Return the vectors `[n, E]` of stored blobs. Raises StoreError if one is damaged."""
    try:
        return unpack(blobs, catalog.fingerprint().dim)
    except ValueError as error:
        raise DamagedIndexError(catalog.path, str(error)) from error


def nearest_of_all(
    catalog: Catalog,
    query: NDArray[np.float32],
    k: int,
    excluded: NDArray[np.int64],
    images: NDArray[np.int64] | None = None,
    *,
    after: int = 0,
) -> Scored:
    """Return the best `k` images with an id above `after`, comparing the vectors of all: exact, in bounded memory.

    `images` restricts the search to these ids `[n]`; without it, `excluded` `[m]` are left out. Both are ascending.
    """
    ids, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for some, vectors in all_vectors(catalog, after=after):
        fit = ~is_in(some, excluded) if images is None else is_in(some, images)
        if len(scores) >= k > 0:
            fit &= vectors @ query > scores[-1] - _NOISE
        ids, scores = best(np.append(ids, some[fit]), np.append(scores, exact_scores(query, vectors[fit])), k)
    return ids, scores


def is_in(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of `ids` `[n]` are in `known` `[m]`, which is ascending. `np.isin` would sort both each time."""
    if not len(known):
        return np.zeros(len(ids), np.bool_)
    there: NDArray[np.bool_] = known[np.searchsorted(known, ids).clip(max=len(known) - 1)] == ids
    return there
