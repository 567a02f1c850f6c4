"""Approximate search of very many vectors: short codes sorted into lists, then bytes, then the truth.

    query -> the nearest lists -> 4-bit product codes, all of them, in registers -> the best some thousand
          -> codes of a byte a number (`scalar_codes`)                   -> the best some hundred
          -> the exact float16 vectors (whoever calls)

How many lists are read and how many candidates are looked at again is not a matter of taste: `tune` raises both until
recall against the exact answer, measured with texts as queries, is what it should be. Texts and pictures lie apart
in the space of the vectors, and what is tuned with pictures alone fails for texts.
"""

from collections.abc import Sequence
from io import BufferedReader
from typing import BinaryIO, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from bridgetower.index.vectors.flat import read_faiss, write_faiss
from bridgetower.index.vectors.float16 import Scored, best
from bridgetower.index.vectors.scalar_codes import ScalarCodes

RECALL_AT = 100
RECALL_WANTED = 0.9925  # of what the byte codes get to see; so that for other queries 0.99 comes out in the end

_DEVIATIONS = 5  # of the rounding, up to which a candidate is looked at again
_SAMPLE_PER_LIST = 48  # vectors from which lists are learned, for each of them
_MOST_CANDIDATES = 4096
# What a search costs, in nanoseconds on a processor of today: to choose between more lists and more candidates.
_COST_OF_CODE = 14.0
_COST_OF_CANDIDATE = 800.0


class Effort(NamedTuple):
    """How hard a search looks, and what that finds."""

    lists: int  # that are read
    candidates: int  # that are scored by a byte a number
    recall: float  # of the true RECALL_AT nearest, the share found, in [0, 1]


def sample_size(images: int) -> int:
    """How many vectors `train` should see where there are so many images."""
    return min(images, _SAMPLE_PER_LIST * list_count(images))


def list_count(images: int) -> int:
    """Into how many lists so many vectors are sorted: about the square root, a power of two."""
    return int(2 ** np.clip(np.round(np.log2(max(images, 1)) / 2), 4, 14))


class IvfVectors:
    """Vectors under consecutive row numbers, in the order of their arrival; `ScalarCodes` knows their images."""

    def __init__(self, index: faiss.IndexPreTransform) -> None:
        """`index` first centres, then turns what it is given; queries are turned only."""
        self._index = index
        turn = faiss.downcast_VectorTransform(index.chain.at(1))
        self._turn = faiss.vector_to_array(turn.A).reshape(turn.d_out, turn.d_in)
        self._lists = faiss.downcast_index(index.index)

    @classmethod
    def train(cls, sample: NDArray[np.float32], lists: int) -> Self:
        """Learn axes, lists and codes from vectors `[n, E]`, a fair sample of those to come."""
        sample = np.ascontiguousarray(sample, dtype=np.float32)
        dim = sample.shape[1]
        padded = -(-dim // 4) * 4
        centre = faiss.CenteringTransform(dim)
        centre.train(sample)
        # The axes along which pictures differ, the strong ones spread evenly over the pairs that share a code: what
        # tells pictures apart for a text is a small part of a vector, and is lost in codes along the given axes.
        _, axes = np.linalg.eigh(np.cov(sample, rowvar=False).reshape(dim, dim))
        rotation = np.zeros((padded, dim), np.float32)
        rotation[:dim] = axes.T[::-1]
        rotation = rotation.reshape(2, padded // 2, dim).swapaxes(0, 1).reshape(padded, dim)
        turn = faiss.LinearTransform(dim, padded, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(rotation).ravel(), turn.A)
        turn.is_trained = True
        inverted = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(padded), padded, lists, padded // 2, 4, faiss.METRIC_INNER_PRODUCT
        )
        inverted.by_residual = True
        inverted.cp.niter, inverted.cp.max_points_per_centroid = 8, _SAMPLE_PER_LIST
        inverted.cp.min_points_per_centroid = 1  # else FAISS warns on stderr
        index = faiss.IndexPreTransform(turn, inverted)
        index.prepend_transform(centre)
        index.train(sample)
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def lists(self) -> int:
        return int(self._lists.nlist)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Add vectors `[n, E]` as the next rows."""
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def candidates(self, queries: NDArray[np.float32], number: int, lists: int) -> NDArray[np.int64]:
        """The best rows `[Q, number]` for queries `[Q, E]` by short codes, best first, -1 where there are no more."""
        self._lists.nprobe = max(1, min(lists, self.lists))
        rows: NDArray[np.int64] = self._lists.search(queries @ self._turn.T, number)[1]
        return rows

    def save(self, file: BinaryIO) -> bytes:
        """Write to `file` and return the SHA-256 of what was written; OSError passes through."""
        return write_faiss(self._index, file)

    @classmethod
    def load(cls, file: BufferedReader, sha256: bytes, dim: int) -> Self | None:
        """Read what `save` wrote, or None if these are not those bytes or not an index of this kind."""
        index = read_faiss(file, sha256)
        if not isinstance(index, faiss.IndexPreTransform) or index.d != dim or index.chain.size() != 2:
            return None
        return cls(index)


def shortlist(ids: NDArray[np.int64], scores: NDArray[np.float32], k: int, noise: float) -> Scored:
    """Those of `ids` `[n]` that may be among the best `k`, best first; `noise` is the deviation of `scores` `[n]`."""
    ids, scores = best(ids, scores, len(ids))
    enough = len(ids) if len(ids) <= k else int(np.searchsorted(-scores, _DEVIATIONS * noise - scores[k - 1], "right"))
    return ids[:enough], scores[:enough]


def tune(
    index: IvfVectors, codes: ScalarCodes, queries: NDArray[np.float32], truth: Sequence[NDArray[np.int64]]
) -> Effort:
    """The least effort that reaches RECALL_WANTED over `queries` `[Q, E]`, else the greatest that there is.

    `truth` are the image ids of the exact answer to each: RECALL_AT, and as many more as are no worse than the last of
    these, all of which are as good an answer.
    """
    wanted = np.array([min(RECALL_AT, len(true)) for true in truth])
    most = min(_MOST_CANDIDATES, len(index))
    least, least_cost = Effort(index.lists, most, 0.0), np.inf
    for lists in _ladder(max(1, index.lists // 64), index.lists):
        scanned = _COST_OF_CODE * len(index) * lists / index.lists
        if scanned >= least_cost:
            break
        found = index.candidates(queries, most, lists)
        there = np.stack([np.isin(ids, true) for ids, true in zip(codes.ids(found), truth, strict=True)])
        recall = np.minimum(there.cumsum(axis=1), wanted[:, None]).sum(axis=0) / wanted.sum()
        enough = int(np.searchsorted(recall, RECALL_WANTED)) + 1
        if enough <= found.shape[1] and scanned + _COST_OF_CANDIDATE * enough < least_cost:
            least_cost = scanned + _COST_OF_CANDIDATE * enough
            least = Effort(lists, max(enough, 2 * RECALL_AT), 0.0)
    return least._replace(recall=_recall(index, codes, queries, truth, least))


def _recall(
    index: IvfVectors,
    codes: ScalarCodes,
    queries: NDArray[np.float32],
    truth: Sequence[NDArray[np.int64]],
    effort: Effort,
) -> float:
    """What is found at this effort. What the byte codes let through is, as exact scores then put it into its place."""
    hits = wanted = 0
    for query, true, rows in zip(
        queries, truth, index.candidates(queries, effort.candidates, effort.lists), strict=True
    ):
        ids, scores = codes.score(query, rows[rows >= 0])
        near = shortlist(ids, scores, RECALL_AT, codes.noise(query))[0]
        hits += min(RECALL_AT, int(np.isin(true, near).sum()))
        wanted += min(RECALL_AT, len(true))
    return hits / wanted


def _ladder(least: int, most: int) -> list[int]:
    """From `least` to `most` in steps of about a quarter, both included."""
    steps = [least]
    while steps[-1] < most:
        steps.append(min(most, max(steps[-1] + 1, round(steps[-1] * 1.25))))
    return steps
