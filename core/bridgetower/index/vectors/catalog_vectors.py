"""The vectors as the manifest has them, thousands at a time: what derived files are made of and measured against."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedIndexError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.vectors.float16 import unpack
from bridgetower.records import OnProgress, quiet

# Up to so many images are compared one by one: 512 numbers each, that is 100 MB to read, and 5 ms to compare.
EXACT_MOST = 50_000

_ROWS = 16_384  # vectors that are held at a time


def few(images: int) -> bool:
    """Whether so many images are best compared one by one, and their vectors held in memory."""
    return images <= EXACT_MOST


def all_vectors(
    catalog: Catalog, *, after: int = 0, on_progress: OnProgress = quiet
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Ids `[n]`, ascending, and vectors `[n, E]` of all images with a higher id than `after`, thousands at a time.

    Raises StoreError where they are damaged, or are not as many as they should be.
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
    """Vectors `[n, E]` as the manifest has them. Raises StoreError where they are damaged."""
    try:
        return unpack(blobs, catalog.fingerprint().dim)
    except ValueError as error:
        raise DamagedIndexError(catalog.path, str(error)) from error
