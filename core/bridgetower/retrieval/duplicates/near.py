"""Find the pairs of pictures whose vectors are near.

Up to 100,000 pictures all vectors are compared, block by block. Beyond, each picture asks the index for its nearest
ones, which may miss some, as a search does.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bridgetower.index.reader import IndexReader
from bridgetower.records import OnProgress, quiet

EXACT_MOST = 100_000  # pictures; 80,000 take about a minute

# So many near pictures are looked at for each one, the nearest of those that would rather be kept. It bounds the memory
# where thousands are alike; a larger group may then come out in parts.
MOST_NEAR = 100

_ROWS, _COLUMNS = 1024, 8192  # of a block
_QUERIES = 64  # at a time
NOISE = 1e-4  # more than the rounding of an inner product in float32

_Vectors = npt.NDArray[np.floating]


class Pairs(NamedTuple):
    """Pairs of places in a list of pictures, `[P]` each."""

    kept: npt.NDArray[np.int64]  # the lower place
    other: npt.NDArray[np.int64]  # ascending
    similarity: npt.NDArray[np.float32]

    def of(self, places: npt.NDArray[np.int64]) -> "Pairs":
        """Return the pairs at these places, in this order."""
        return Pairs(self.kept[places], self.other[places], self.similarity[places])

    def rows(self) -> Iterator[tuple[int, int, float]]:
        return zip(*(column.tolist() for column in self), strict=True)


def near_pairs(vectors: npt.NDArray[np.float16], least: float, on_progress: OnProgress = quiet) -> Pairs:
    """Return the pairs of unit vectors `[n, E]` with a cosine of at least `least`; all pairs are compared.

    Of more than MOST_NEAR lower places for one, the nearest are returned. `on_progress(done, total)` counts vectors.
    """
    found = [_pairs([])]
    whole = vectors.astype(np.float32)
    for start in range(0, len(whole), _ROWS):
        rows = whole[start : start + _ROWS]
        parts = [
            _near_in(rows @ whole[column : min(column + _COLUMNS, start + len(rows))].T, start, column, least)
            for column in range(0, start + len(rows), _COLUMNS)
        ]
        found.append(_exact(_nearest(_joined(parts)), whole, least))
        on_progress(start + len(rows), len(whole))
    return _joined(found)


def _near_in(block: npt.NDArray[np.float32], first_row: int, first_column: int, least: float) -> Pairs:
    """Return the near pairs of a block of similarities whose column is below the row, at most MOST_NEAR a row."""
    near = block >= least - NOISE
    if first_column + block.shape[1] > first_row:
        near &= np.arange(block.shape[1]) + first_column < np.arange(len(block))[:, None] + first_row
    for full in np.flatnonzero(near.sum(axis=1) > MOST_NEAR):
        scores = np.where(near[full], block[full], -1)
        near[full] = False
        near[full, np.argsort(-scores, kind="stable")[:MOST_NEAR]] = True
    row, column = np.nonzero(near)
    return Pairs(column + first_column, row + first_row, block[row, column])


def near_through_store(
    reader: IndexReader,
    images: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float16],
    least: float,
    on_progress: OnProgress = quiet,
) -> Pairs:
    """Return near pairs as `near_pairs` does, of these images `[n]`, as far as recall finds them.

    Raises StoreError.
    """
    place_of = {image: place for place, image in enumerate(images.tolist())}
    within, found = np.sort(images), [_pairs([])]
    for start in range(0, len(vectors), _QUERIES):
        queries = vectors[start : start + _QUERIES].astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        rows = [
            (min(place, other), max(place, other), similarity)
            for place, neighbours in enumerate(reader.recall(queries, MOST_NEAR + 1, within), start=start)
            for image, similarity in neighbours
            if similarity >= least - NOISE and (other := place_of[image]) != place
        ]
        found.append(_pairs(rows))
        on_progress(min(start + _QUERIES, len(vectors)), len(vectors))
    every = _joined(found)
    _, once = np.unique(every.other * len(vectors) + every.kept, return_index=True)  # a pair may have found each other
    return _exact(_nearest(every.of(once)), vectors, least)


def similarities(ones: _Vectors, others: _Vectors) -> npt.NDArray[np.float32]:
    """Return the cosines `[P]` of vectors `[P, E]`, the same in any batch."""
    found: npt.NDArray[np.float32] = (ones.astype(np.float64) * others).sum(axis=1).clip(-1, 1).astype(np.float32)
    return found


def _pairs(rows: list[tuple[int, int, float]]) -> Pairs:
    kept, other, similarity = zip(*rows, strict=True) if rows else ((), (), ())
    return Pairs(np.array(kept, np.int64), np.array(other, np.int64), np.array(similarity, np.float32))


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _nearest(pairs: Pairs) -> Pairs:
    """Return for each `other` the MOST_NEAR nearest pairs, in order of `other`, the nearest first."""
    order = np.lexsort((pairs.kept, -pairs.similarity, pairs.other))
    other = pairs.other[order]
    rank = np.arange(len(other)) - np.searchsorted(other, other)
    return pairs.of(order[rank < MOST_NEAR])


def _exact(pairs: Pairs, vectors: _Vectors, least: float) -> Pairs:
    """Return the pairs with their exact similarities, without those below `least`."""
    step = 65_536
    parts = [
        similarities(vectors[pairs.kept[start : start + step]], vectors[pairs.other[start : start + step]])
        for start in range(0, len(pairs.kept), step)
    ]
    exact = np.concatenate(parts) if parts else pairs.similarity
    return pairs._replace(similarity=exact).of(np.flatnonzero(exact >= least))
