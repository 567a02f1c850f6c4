"""A view of any store, held to the catalog: which images it may propose, and their scores."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import StoreError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.vectors.catalog_vectors import unpacked
from bridgetower.index.vectors.float16 import Scored, best, exact_scores
from bridgetower.index.vectors.protocol import RecallStore, RecallView
from bridgetower.inputs import missing_members, short


class CheckedView:
    """Scores what a view proposes. Faults of the store are a StoreError that names it, not damage of the catalog."""

    def __init__(self, view: RecallView, catalog: Catalog, store: RecallStore) -> None:
        self._view, self._catalog, self._name = view, catalog, type(store).__name__
        if missing := missing_members(view, RecallView):
            raise self._fault(f"open gave {short(view)}, which lacks {', '.join(missing)}")

    @property
    def is_there(self) -> bool:
        return self._view.is_there

    @property
    def damage(self) -> str | None:
        return self._view.damage

    def connect(self) -> None:
        self._view.connect()

    def close(self) -> None:
        self._view.close()

    @cached_property
    def _live(self) -> int:
        """Images that have a file. Raises StoreError where the catalog is at odds with itself about them."""
        self._catalog.require_consistent()
        return self._catalog.count_live()

    def scored(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None = None) -> Scored:
        """The best `k` of what the view proposes and their exact scores, best first, ties by id. Raises StoreError."""
        wanted = min(k, self._live if images is None else len(images))
        found = np.zeros(0, np.int64), np.zeros(0, np.float32)
        if not wanted:
            return found
        ids = self._proposed(query, k, images)
        if len(ids) < wanted:
            raise self._fault(f"search proposed {len(ids)} images, of {wanted} that there are to find")
        known = 0
        for rows in self._catalog.vectors_of(ids.tolist()):
            known += len(rows)
            some = np.array([id for id, _ in rows], np.int64)
            scores = exact_scores(query, unpacked(self._catalog, [vector for _, vector in rows]))
            found = best(np.append(found[0], some), np.append(found[1], scores), k)
        if known < len(ids):
            raise self._fault(f"search proposed {len(ids) - known} images that the index does not have")
        return found

    def _proposed(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return the proposed ids; raise StoreError if one repeats or is excluded."""
        proposed: object = self._view.search(query, k, images)
        try:
            ids = np.asarray(proposed)
        except ValueError:  # rows of different lengths
            ids = np.zeros((0, 0))
        if ids.ndim != 1 or (ids.dtype.kind not in "iu" and len(ids)):
            raise self._fault(f"search gave {short(proposed)} instead of ids [n] of images")
        ids = ids.astype(np.int64)
        if len(np.unique(ids)) < len(ids):
            raise self._fault("search proposed an image twice")
        barred = len(np.setdiff1d(ids, images)) if images is not None else self._catalog.orphans_among(ids.tolist())
        if barred:
            raise self._fault(f"search proposed {barred} images that it was not to look at")
        return ids

    def _fault(self, problem: str) -> StoreError:
        return StoreError(f"{self._name}: {problem}: `bt verify --repair` publishes it again; else mend its code")
