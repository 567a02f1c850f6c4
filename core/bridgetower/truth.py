"""The vectors as the manifest has them, thousands at a time: what derived files are made of and measured against."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import StoreError
from bridgetower.manifest import DAMAGED, Manifest
from bridgetower.vectors import unpack

# Up to so many images are compared one by one: 512 numbers each, that is 100 MB to read, and 5 ms to compare.
EXACT_MOST = 50_000

_ROWS = 16_384  # vectors that are held at a time

Progress = Callable[[int, int], None]


def few(images: int) -> bool:
    """Whether so many images are best compared one by one, and their vectors held in memory."""
    return images <= EXACT_MOST


def all_vectors(
    manifest: Manifest, *, after: int = 0, on_progress: Progress = lambda done, total: None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Ids `[n]`, ascending, and vectors `[n, E]` of all images with a higher id than `after`, thousands at a time."""
    total, done = manifest.count_images(after), 0
    rows: list[tuple[int, bytes]] = []
    for some in manifest.vectors(after):
        rows += some
        if len(rows) >= _ROWS:
            done += len(rows)
            yield _arrays(manifest, rows)
            on_progress(done, total)
            rows = []
    if rows:
        yield _arrays(manifest, rows)


def _arrays(manifest: Manifest, rows: list[tuple[int, bytes]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.array([id for id, _ in rows], np.int64), unpacked(manifest, [blob for _, blob in rows])


def unpacked(manifest: Manifest, blobs: list[bytes]) -> NDArray[np.float32]:
    """Vectors `[n, E]` as the manifest has them. Raises StoreError where they are damaged."""
    try:
        return unpack(blobs, manifest.fingerprint().dim)
    except ValueError as error:
        raise StoreError(f"{manifest.path}: {DAMAGED.format(error)}") from error
