"""The images of one committed state that are nearest to a vector: exactly, or nearly so with exact scores.

What the vector file lacks is read from the manifest, and what it holds too much is left out; where it is absent or
damaged, everything is read from the manifest, in bounded memory. So the answer is the same, only slower.
"""

import math
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedFileError, DamagedIndexError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.vectors.catalog_vectors import all_vectors, few, unpacked
from bridgetower.index.vectors.flat import FlatVectors
from bridgetower.index.vectors.float16 import Scored, best, exact_scores
from bridgetower.index.vectors.generation import Generation
from bridgetower.index.vectors.ivf import RECALL_AT, IvfVectors, shortlist
from bridgetower.index.vectors.scalar_codes import ScalarCodes

_ROWS = 32_768  # codes that are scored at a time; so many images of a filter, or fewer, are read one by one
_SCAN_SHARE = 4  # where a search would look at more than this part of all candidates, it looks at all
_LEFT_SHARE = 0.9  # of the candidates that it was tuned for, that must be left without what is left out
_NOISE = 1e-5  # between an inner product in float32 and the exact one


class _Lists(NamedTuple):
    inverted: IvfVectors
    codes: ScalarCodes
    tuning: Tuning


class FaissSearch:
    """The search side of a state, with FAISS; used by one thread at a time."""

    def __init__(self, catalog: Catalog, files: Generation) -> None:
        self._catalog, self._files = catalog, files
        self._state = catalog.state()
        self._tuning = catalog.tuning()
        self._dim = catalog.fingerprint().dim
        self._lists: _Lists | None = None
        self._flat: FlatVectors | None = None  # all that can be found; beside lists, what these lack
        self._flat_after = 0  # it holds higher ids than this, up to those that are read by each search
        self._stream_after: int | None = None  # higher ids than this are read by each search
        self._left_out = np.zeros(0, np.int64)  # ids that lists hold and no search may find
        self.damage: str | None = None  # what was found wrong with the files, if anything was

    def search(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None = None) -> Scored:
        """As `RecallView.search`, with exact scores."""
        self._load()
        parts = []
        if self._lists is not None:
            try:
                parts.append(self._by_lists(query, k, self._lists, images))
            except DamagedFileError as error:
                self._do_without_lists(error)
        if self._flat is not None:
            beside = None
            if images is not None:
                until = np.inf if self._stream_after is None else self._stream_after
                beside = images[(images > self._flat_after) & (images <= until)]
            ids, scores = self._flat.search(query[None], k, beside)
            parts.append((ids[0], scores[0]))
        if self._stream_after is not None:
            parts.append(self._by_reading(query, k, self._stream_after, images))
        ids, scores = (np.concatenate(some) for some in zip(*parts, strict=True))
        return best(ids, scores, k)

    def _load(self) -> None:
        """Open the files and read what they lack, unless that is too much to hold: then each search reads it."""
        if self._flat is not None or self._stream_after is not None:
            return
        self._catalog.require_consistent()
        self._left_out = np.array(sorted({*self._catalog.orphans(), *self._catalog.pruned()}), np.int64)
        flat, after = None, 0
        if self._tuning is not None:
            self._lists = self._published_lists(self._tuning)
            after = 0 if self._lists is None else self._state.covered
            self._flat_after = after
        elif (flat := self._published()) is not None:
            flat.remove(self._left_out)
            after = self._state.covered
        if not few(self._catalog.count_images(after)):
            self._flat, self._stream_after = flat, after
            return
        flat = flat or FlatVectors(self._dim)
        for ids, vectors in all_vectors(self._catalog, after=after):
            found = ~_among(ids, self._left_out)
            try:
                flat.add(ids[found], vectors[found])
            except ValueError as error:  # the vector file has them, though the manifest says that it has not
                raise DamagedIndexError(self._catalog.path, str(error)) from error
        self._require_all(len(flat))
        self._flat = flat

    def _require_all(self, beside: int) -> None:
        """Raise StoreError where a search would leave out an image because the manifest does not say that it is there.

        `beside`: how many are held besides what lists hold.
        """
        listed = (
            0 if self._lists is None else len(self._lists.inverted) - int((self._left_out <= self._flat_after).sum())
        )
        if listed + beside != (live := self._catalog.count_live()):
            raise DamagedIndexError(self._catalog.path, f"{listed + beside} images can be searched, not {live}")

    def _do_without_lists(self, error: DamagedFileError) -> None:
        self.damage = f"{error.path}: {error.damage}"
        self._lists = self._flat = None
        self._stream_after = 0

    def _published(self) -> FlatVectors | None:
        if self._state.vectors_sha256 is None:
            return None
        index = None
        if self._files.vectors is not None:
            with suppress(OSError), self._files.vectors as file:  # a bad block: the manifest has it all
                index = FlatVectors.load(file, self._state.vectors_sha256, self._dim)
        if index is None:
            self.damage = f"{self._files.name}: absent, or not as it was written"
        return index

    def _published_lists(self, tuning: Tuning) -> _Lists | None:
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

    def _by_lists(self, query: NDArray[np.float32], k: int, lists: _Lists, images: NDArray[np.int64] | None) -> Scored:
        """What the lists hold of the best: by short codes, then by bytes, then by what the manifest says."""
        index, codes, tuning = lists
        if images is not None and len(images) <= _ROWS:
            return self._exactly(query, k, images[images <= self._flat_after])
        if images is None:
            share = max(1.0, k / RECALL_AT)  # of what it was tuned for
            number, effort = math.ceil(max(share * tuning.candidates, 2 * k)), math.ceil(share * tuning.effort)
            while number < len(index) / _SCAN_SHARE:
                rows = index.candidates(query[None], number, effort)[0]
                rows = rows[rows >= 0]
                ids, found = self._by_codes(query, k, codes, rows, None)
                # What is left out may lie together, around this very query: then there is further to look.
                if found >= k and (found == len(rows) or found >= _LEFT_SHARE * share * tuning.candidates):
                    return self._exactly(query, k, ids)
                number, effort = 2 * number, 2 * effort
        # So many, or a filter, which the lists know nothing of: all of them.
        return self._exactly(query, k, self._by_codes(query, k, codes, np.arange(len(index)), images)[0])

    def _by_codes(
        self,
        query: NDArray[np.float32],
        k: int,
        codes: ScalarCodes,
        rows: NDArray[np.int64],
        images: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.int64], int]:
        """Ids that may be among the best `k` of `rows` `[n]`, without what is left out, and how many had a chance."""
        ids, rough, found = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
        for start in range(0, len(rows), _ROWS):
            some, scores = codes.score(query, rows[start : start + _ROWS])
            fit = self._fit(some, images)
            found += int(fit.sum())
            ids, rough = shortlist(np.append(ids, some[fit]), np.append(rough, scores[fit]), k, codes.noise(query))
        return ids, found

    def _fit(self, ids: NDArray[np.int64], images: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """Which of `ids` `[n]` may be found."""
        return ~_among(ids, self._left_out) if images is None else _among(ids, images)

    def _exactly(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64]) -> Scored:
        """The best of `images` by what the manifest says. Raises StoreError where it does not know one of them."""
        ids, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        wanted = np.unique(images)
        lost = len(wanted)
        for rows in self._catalog.vectors_of(wanted.tolist()):
            lost -= len(rows)
            some = np.array([id for id, _ in rows], np.int64)
            exact = exact_scores(query, unpacked(self._catalog, [blob for _, blob in rows]))
            ids, scores = best(np.append(ids, some), np.append(scores, exact), k)
        if lost:  # none was removed: those are left out before
            raise DamagedIndexError(self._catalog.path, f"{lost} of the images that are searched cannot be found")
        return ids, scores

    def _by_reading(self, query: NDArray[np.float32], k: int, after: int, images: NDArray[np.int64] | None) -> Scored:
        """The best of all with a higher id than `after`, read from the manifest one by one."""
        ids, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for some, vectors in all_vectors(self._catalog, after=after):
            fit = self._fit(some, images)
            if len(scores) >= k > 0:
                fit &= vectors @ query > scores[-1] - _NOISE
            ids, scores = best(np.append(ids, some[fit]), np.append(scores, exact_scores(query, vectors[fit])), k)
        return ids, scores


def _among(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of `ids` `[n]` are in `known` `[m]`, which ascends: `np.isin` would sort both anew each time."""
    if not len(known):
        return np.zeros(len(ids), np.bool_)
    there: NDArray[np.bool_] = known[np.searchsorted(known, ids).clip(max=len(known) - 1)] == ids
    return there
