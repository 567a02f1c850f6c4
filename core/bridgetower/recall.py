"""Recall: the pictures of an index in the order of their similarity to a vector, as far as anyone asks."""

import os
from pathlib import Path

from bridgetower.encoder import Vectors
from bridgetower.pictures import Kept
from bridgetower.records import EVERYTHING, Filter, Photo
from bridgetower.store import Store


class Candidates:
    """The pictures of an index by similarity, each under the first of its files that is there.

    A picture whose files are gone is no candidate: it is counted, and the next one takes its place.
    """

    def __init__(self, store: Store, query: Vectors, kept: Kept | None = None, filter: Filter = EVERYTHING) -> None:
        """`query` is a unit vector [1, E]. Taking from it may raise StoreError.

        `kept` is told the content of each file that is as the index knows it.
        """
        self._nearest = store.nearest(query, filter)
        self._kept = kept
        self.gone = 0  # pictures that were passed over, as none of their files is there

    def take(self, number: int) -> dict[Path, float]:
        """The next pictures and their similarities; fewer than `number` only at the end of the index."""
        taken: dict[Path, float] = {}
        while len(taken) < number and (candidate := next(self._nearest, None)) is not None:
            there = next((photo for photo in candidate.photos if os.path.isfile(photo.path)), None)
            if there is None:
                self.gone += 1
                continue
            taken[there.path] = candidate.similarity
            if self._kept is not None and _unchanged(there):
                self._kept.contents[there.path] = candidate.content
        return taken


def _unchanged(photo: Photo) -> bool:
    try:
        status = photo.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (photo.size, photo.mtime_ns)
