"""Approximate search of very many vectors: 4-bit codes in lists, then byte codes, then exact vectors.

    query -> the nearest lists -> 4-bit product codes, all of them, in registers -> the best few thousand
          -> codes of one byte per number (`scalar_codes`)               -> the best few hundred
          -> the exact float16 vectors (read by the caller)

`tune` chooses how many lists are read and how many candidates are scored again: it raises both until recall against the
exact answer, measured with texts as queries, is high enough. Texts and pictures lie apart in the space of the vectors,
so that a search tuned with pictures alone fails for texts.
"""

from collections.abc import Sequence
from io import BufferedReader
from typing import BinaryIO, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from bridgetower.index.vectors.faiss.flat import read_faiss, write_faiss
from bridgetower.index.vectors.faiss.scalar_codes import ScalarCodes
from bridgetower.index.vectors.float16 import Scored, best
from bridgetower.index.vectors.measure import RECALL_AT

# Of the candidates that the byte codes score. Other texts then find 0.994 in the end, and all of their first 20 in 98
# of 100 cases (benchmarks/store_answers.py).
RECALL_WANTED = 0.995
_RECALL_LEAST = 0.9925  # after the byte codes; lists that grew and find less are trained again

_DEVIATIONS = 5  # standard deviations of the rounding error within which a candidate is read exactly
_SAMPLE_PER_LIST = 48  # training vectors for each list
_MOST_CANDIDATES = 4096
# The cost of a search in nanoseconds on a current processor, to choose between more lists and more candidates.
_COST_OF_CODE = 14.0
_COST_OF_CANDIDATE = 800.0
# Lists trained on the images of the index needed 1/8 to 1/3 of the cost of the greatest effort, from 31,000 to ten
# million images. Lists that grew and need more than 1/2 are trained again.
_COST_MOST = 0.5


class Effort(NamedTuple):
    """How much a search reads, and its recall."""

    lists: int  # read by a search
    candidates: int  # scored by byte codes
    recall: float  # share of the exact RECALL_AT nearest that is found, in [0, 1]


def sample_size(images: int) -> int:
    """Return how many vectors `train` needs for an index of so many images."""
    return min(images, _SAMPLE_PER_LIST * list_count(images))


def list_count(images: int) -> int:
    """Return the number of lists for so many images: about the square root, a power of two."""
    return int(2 ** np.clip(np.round(np.log2(max(images, 1)) / 2), 4, 14))


class IvfVectors:
    """Vectors under row numbers from 0, in the order in which they were added; `ScalarCodes` has their image ids."""

    def __init__(self, index: faiss.IndexPreTransform) -> None:
        """`index` centres and rotates vectors that are added; queries are only rotated."""
        self._index = index
        rotate = faiss.downcast_VectorTransform(index.chain.at(1))
        self._rotation = faiss.vector_to_array(rotate.A).reshape(rotate.d_out, rotate.d_in)
        self._lists = faiss.downcast_index(index.index)

    @classmethod
    def train(cls, sample: NDArray[np.float32], lists: int) -> Self:
        """Train rotation, lists and codes with vectors `[n, E]`, a fair sample of all that will be added."""
        sample = np.ascontiguousarray(sample, dtype=np.float32)
        dim = sample.shape[1]
        padded = -(-dim // 4) * 4
        centre = faiss.CenteringTransform(dim)
        centre.train(sample)
        # Rotate to the principal axes of the pictures, and spread the strong ones evenly over the pairs of numbers that
        # share a code. The part of a vector that distinguishes pictures for a text is small: codes along the given axes
        # would lose it.
        _, axes = np.linalg.eigh(np.cov(sample, rowvar=False).reshape(dim, dim))
        rotation = np.zeros((padded, dim), np.float32)
        rotation[:dim] = axes.T[::-1]
        rotation = rotation.reshape(2, padded // 2, dim).swapaxes(0, 1).reshape(padded, dim)
        rotate = faiss.LinearTransform(dim, padded, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(rotation).ravel(), rotate.A)
        rotate.is_trained = True
        inverted = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(padded), padded, lists, padded // 2, 4, faiss.METRIC_INNER_PRODUCT
        )
        inverted.by_residual = True
        inverted.cp.niter, inverted.cp.max_points_per_centroid = 8, _SAMPLE_PER_LIST
        inverted.cp.min_points_per_centroid = 1  # else FAISS warns on stderr
        index = faiss.IndexPreTransform(rotate, inverted)
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
        """Return the best rows `[Q, number]` for queries `[Q, E]` by 4-bit codes, best first; -1 fills missing ones."""
        self._lists.nprobe = max(1, min(lists, self.lists))
        rows: NDArray[np.int64] = self._lists.search(queries @ self._rotation.T, number)[1]
        return rows

    def save(self, file: BinaryIO) -> bytes:
        """Write the FAISS index to `file` and return the SHA-256 of its bytes. Raises OSError."""
        return write_faiss(self._index, file)

    @classmethod
    def load(cls, file: BufferedReader, sha256: bytes, dim: int) -> Self | None:
        """Read a file that `save` wrote; None if its digest is not `sha256`, or it is no index of this kind."""
        index = read_faiss(file, sha256)
        if not isinstance(index, faiss.IndexPreTransform) or index.d != dim or index.chain.size() != 2:
            return None
        return cls(index)


def shortlist(ids: NDArray[np.int64], scores: NDArray[np.float32], k: int, noise: float) -> Scored:
    """Return the `ids` `[n]` that may be among the best `k`, best first, and their approximate `scores` `[n]`.

    `noise` is the standard deviation of the errors of the scores.
    """
    ids, scores = best(ids, scores, len(ids))
    enough = len(ids) if len(ids) <= k else int(np.searchsorted(-scores, _DEVIATIONS * noise - scores[k - 1], "right"))
    return ids[:enough], scores[:enough]


def tune(
    index: IvfVectors, codes: ScalarCodes, queries: NDArray[np.float32], truth: Sequence[NDArray[np.int64]]
) -> Effort:
    """Return the cheapest effort that reaches RECALL_WANTED over `queries` `[Q, E]`; if none does, the greatest.

    `truth` holds the image ids of the exact answer to each query: the RECALL_AT nearest and all that tie with the last
    of them, because each of these is a right answer.
    """
    wanted = np.array([min(RECALL_AT, len(true)) for true in truth])
    most = min(_MOST_CANDIDATES, len(index))
    least, least_cost = _greatest(index), np.inf
    for lists in _growing_steps(max(1, index.lists // 64), index.lists):
        if _cost(index, lists, 0) >= least_cost:
            break
        found = index.candidates(queries, most, lists)
        there = np.stack([np.isin(ids, true) for ids, true in zip(codes.ids(found), truth, strict=True)])
        recall = np.minimum(there.cumsum(axis=1), wanted[:, None]).sum(axis=0) / wanted.sum()
        enough = int(np.searchsorted(recall, RECALL_WANTED)) + 1
        if enough <= found.shape[1] and (cost := _cost(index, lists, enough)) < least_cost:
            least_cost = cost
            least = Effort(lists, max(enough, 2 * RECALL_AT), 0.0)
    return least._replace(recall=_recall(index, codes, queries, truth, least))


def serves(index: IvfVectors, effort: Effort) -> bool:
    """Return whether lists that grew find enough, at a cost that lists trained on all their vectors may have, too."""
    greatest = _greatest(index)
    most = _COST_MOST * _cost(index, greatest.lists, greatest.candidates)
    return effort.recall >= _RECALL_LEAST and _cost(index, effort.lists, effort.candidates) <= most


def _greatest(index: IvfVectors) -> Effort:
    """Return the greatest effort; its recall is not known."""
    return Effort(index.lists, min(_MOST_CANDIDATES, len(index)), 0.0)


def _cost(index: IvfVectors, lists: int, candidates: int) -> float:
    """Return the cost of a search in nanoseconds."""
    return _COST_OF_CODE * len(index) * lists / index.lists + _COST_OF_CANDIDATE * candidates


def _recall(
    index: IvfVectors,
    codes: ScalarCodes,
    queries: NDArray[np.float32],
    truth: Sequence[NDArray[np.int64]],
    effort: Effort,
) -> float:
    """Return the recall at this effort. An image that the byte codes keep counts as found: its exact score follows."""
    hits = wanted = 0
    for query, true, rows in zip(
        queries, truth, index.candidates(queries, effort.candidates, effort.lists), strict=True
    ):
        ids, scores = codes.score(query, rows[rows >= 0])
        near = shortlist(ids, scores, RECALL_AT, codes.noise(query))[0]
        hits += min(RECALL_AT, int(np.isin(true, near).sum()))
        wanted += min(RECALL_AT, len(true))
    return hits / wanted


def _growing_steps(least: int, most: int) -> list[int]:
    """Return numbers from `least` to `most`, both included, each about a quarter above the last."""
    steps = [least]
    while steps[-1] < most:
        steps.append(min(most, max(steps[-1] + 1, round(steps[-1] * 1.25))))
    return steps
