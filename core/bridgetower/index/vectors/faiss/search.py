"""Search one committed state with FAISS: exact for few images, approximate with exact scores for many.

Images that the vector file lacks are read from the manifest, and removed images and orphans in it are left out. If the
file is missing or damaged, all vectors are read from the manifest, in bounded memory: exact, only slower.
"""

import math
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedFileError, DamagedIndexError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.vectors.catalog_vectors import all_vectors, few, is_in, nearest_of_all, unpacked
from bridgetower.index.vectors.faiss.flat import FlatVectors
from bridgetower.index.vectors.faiss.generation import Generation
from bridgetower.index.vectors.faiss.ivf import IvfVectors, shortlist
from bridgetower.index.vectors.faiss.scalar_codes import ScalarCodes
from bridgetower.index.vectors.float16 import Scored, best, exact_scores
from bridgetower.index.vectors.measure import RECALL_AT

_ROWS = 32_768  # codes scored at a time; a filter with at most so many images is searched exactly
_SCAN_SHARE = 4  # a search that would score more than 1/4 of all codes scores all
_NOT_EXCLUDED_SHARE = 0.9  # of the tuned number of candidates, that must remain without the excluded images


class _Lists(NamedTuple):
    inverted: IvfVectors
    codes: ScalarCodes
    tuning: Tuning


class FaissSearch:
    """Search of one state with FAISS; one thread at a time uses an instance."""

    def __init__(self, catalog: Catalog, files: Generation) -> None:
        self._catalog, self._files = catalog, files
        self._state = catalog.state()
        self._tuning = catalog.tuning()
        self._dim = catalog.fingerprint().dim
        self._lists: _Lists | None = None
        self._flat: FlatVectors | None = None  # all images that can be found or, with lists, those that the lists lack
        self._flat_after = 0  # `_flat` holds ids above this, up to `_read_after`
        self._read_after: int | None = None  # each search reads ids above this from the manifest
        self._excluded = np.zeros(0, np.int64)  # ids of orphans and removed images, which no search may find
        self.damage: str | None = None  # of the vector files, met so far

    def search(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None = None) -> Scored:
        """As `RecallView.search`, with exact scores."""
        self._load()
        parts = []
        if self._lists is not None:
            try:
                parts.append(self._search_lists(query, k, self._lists, images))
            except DamagedFileError as error:
                self._drop_lists(error)
        if self._flat is not None:
            beside = None
            if images is not None:
                until = np.inf if self._read_after is None else self._read_after
                beside = images[(images > self._flat_after) & (images <= until)]
            ids, scores = self._flat.search(query[None], k, beside)
            parts.append((ids[0], scores[0]))
        if self._read_after is not None:
            parts.append(nearest_of_all(self._catalog, query, k, self._excluded, images, after=self._read_after))
        ids, scores = (np.concatenate(some) for some in zip(*parts, strict=True))
        return best(ids, scores, k)

    def _load(self) -> None:
        """Load the files, and the vectors that they lack; if these are too many for memory, each search reads them."""
        if self._flat is not None or self._read_after is not None:
            return
        self._catalog.require_consistent()
        self._excluded = np.array(sorted({*self._catalog.orphans(), *self._catalog.pruned()}), np.int64)
        flat, after = None, 0
        if self._tuning is not None:
            self._lists = self._load_lists(self._tuning)
            after = 0 if self._lists is None else self._state.covered
            self._flat_after = after
        elif (flat := self._load_flat()) is not None:
            flat.remove(self._excluded)
            after = self._state.covered
        if not few(self._catalog.count_images(after)):
            self._flat, self._read_after = flat, after
            return
        flat = flat or FlatVectors(self._dim)
        for ids, vectors in all_vectors(self._catalog, after=after):
            found = ~is_in(ids, self._excluded)
            try:
                flat.add(ids[found], vectors[found])
            except ValueError as error:  # the vector file holds ids that the manifest does not count as covered
                raise DamagedIndexError(self._catalog.path, str(error)) from error
        self._require_count(len(flat))
        self._flat = flat

    def _require_count(self, beside: int) -> None:
        """Raise StoreError if the number of images that can be searched is not the number of images with a file.

        `beside` is the number of images outside the lists.
        """
        listed = (
            0 if self._lists is None else len(self._lists.inverted) - int((self._excluded <= self._flat_after).sum())
        )
        if listed + beside != (live := self._catalog.count_live()):
            raise DamagedIndexError(self._catalog.path, f"{listed + beside} images can be searched, not {live}")

    def _drop_lists(self, error: DamagedFileError) -> None:
        self.damage = f"{error.path}: {error.damage}"
        self._lists = self._flat = None
        self._read_after = 0

    def _load_flat(self) -> FlatVectors | None:
        if self._state.vectors_sha256 is None:
            return None
        index = None
        if self._files.vectors is not None:
            with suppress(OSError), self._files.vectors as file:  # a bad block: the manifest has all vectors
                index = FlatVectors.load(file, self._state.vectors_sha256, self._dim)
        if index is None:
            self.damage = f"{self._files.name}: absent, or not as it was written"
        return index

    def _load_lists(self, tuning: Tuning) -> _Lists | None:
        if self._files.vectors is None or self._files.codes is None or self._state.vectors_sha256 is None:
            self.damage = f"{self._files.name}, or the codes beside it: absent"
            return None
        try:
            with self._files.vectors as file:
                index = IvfVectors.load(file, self._state.vectors_sha256, self._dim)
            codes = ScalarCodes(self._files.codes)
        except DamagedFileError as error:
            self.damage = f"{error.path}: {error.damage}"
            return None
        except OSError as error:
            self.damage = f"{self._files.name}: {error.strerror}"
            return None
        if index is None or len(index) != len(codes) or codes.coder.dim != self._dim:
            self.damage = f"{self._files.vectors.name}: not as it was written"
            return None
        return _Lists(index, codes, tuning)

    def _search_lists(
        self, query: NDArray[np.float32], k: int, lists: _Lists, images: NDArray[np.int64] | None
    ) -> Scored:
        """Return the best images in the lists: chosen by 4-bit codes, then by byte codes, then by exact scores."""
        index, codes, tuning = lists
        if images is not None and len(images) <= _ROWS:
            return self._score_exactly(query, k, images[images <= self._flat_after])
        if images is None:
            share = max(1.0, k / RECALL_AT)  # of the depth that the search was tuned for
            number, effort = math.ceil(max(share * tuning.candidates, 2 * k)), math.ceil(share * tuning.effort)
            while number < len(index) / _SCAN_SHARE:
                rows = index.candidates(query[None], number, effort)[0]
                rows = rows[rows >= 0]
                ids, found = self._score_codes(query, k, codes, rows, None)
                # Excluded images may lie close together around the query; then more candidates are needed.
                if found >= k and (found == len(rows) or found >= _NOT_EXCLUDED_SHARE * share * tuning.candidates):
                    return self._score_exactly(query, k, ids)
                number, effort = 2 * number, 2 * effort
        # Too many candidates, or a filter, which the lists cannot apply: score all codes.
        return self._score_exactly(query, k, self._score_codes(query, k, codes, np.arange(len(index)), images)[0])

    def _score_codes(
        self,
        query: NDArray[np.float32],
        k: int,
        codes: ScalarCodes,
        rows: NDArray[np.int64],
        images: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.int64], int]:
        """Return the ids that may be among the best `k` of `rows` `[n]`, and how many rows were not excluded."""
        ids, rough, found = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
        for start in range(0, len(rows), _ROWS):
            some, scores = codes.score(query, rows[start : start + _ROWS])
            fit = self._may_be_found(some, images)
            found += int(fit.sum())
            ids, rough = shortlist(np.append(ids, some[fit]), np.append(rough, scores[fit]), k, codes.noise(query))
        return ids, found

    def _may_be_found(self, ids: NDArray[np.int64], images: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """Return which of `ids` `[n]` may be found, as a mask `[n]`."""
        return ~is_in(ids, self._excluded) if images is None else is_in(ids, images)

    def _score_exactly(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64]) -> Scored:
        """Return the best of `images` by exact scores. Raises StoreError if the manifest lacks one of them."""
        ids, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        wanted = np.unique(images)
        lost = len(wanted)
        for rows in self._catalog.vectors_of(wanted.tolist()):
            lost -= len(rows)
            some = np.array([id for id, _ in rows], np.int64)
            exact = exact_scores(query, unpacked(self._catalog, [blob for _, blob in rows]))
            ids, scores = best(np.append(ids, some), np.append(scores, exact), k)
        if lost:  # removed images are excluded before, so none may be missing
            raise DamagedIndexError(self._catalog.path, f"{lost} of the images that are searched cannot be found")
        return ids, scores
