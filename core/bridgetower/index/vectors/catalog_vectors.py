"""Read vectors from the catalog as arrays, in batches, to build vector files and to check them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedIndexError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.vectors.float16 import unpack
from bridgetower.records import OnProgress, quiet

# Up to so many images are searched exactly: with 512 numbers each, 100 MB to read and 5 ms to compare.
EXACT_MOST = 50_000

_ROWS = 16_384  # vectors held at a time


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
