"""Recall: the pictures of an index in the order of their similarity to a vector, as far as anyone asks."""

import os
from pathlib import Path

from bridgetower.encoder import Vectors
from bridgetower.store import Store


class Candidates:
    """The pictures of an index by similarity, each under the first of its files that is there.

    A picture whose files are gone is no candidate: it is counted, and the next one takes its place.
    """

    def __init__(self, store: Store, query: Vectors) -> None:
        """`query` is a unit vector [1, E]. Taking from it may raise StoreError."""
        self._nearest = store.nearest(query)
        self.gone = 0  # pictures that were passed over, as none of their files is there

    def take(self, number: int) -> dict[Path, float]:
        """The next pictures and their similarities; fewer than `number` only at the end of the index."""
        taken: dict[Path, float] = {}
        while len(taken) < number and (candidate := next(self._nearest, None)) is not None:
            files, similarity = candidate
            there = next(filter(os.path.isfile, files), None)
            if there is None:
                self.gone += 1
            else:
                taken[there] = similarity
        return taken
