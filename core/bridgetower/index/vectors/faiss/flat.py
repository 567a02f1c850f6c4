"""Exact search with FAISS. Only this module and `ivf` import faiss.

Scores are inner products of unit vectors: cosine similarity, higher is better. There is no distance anywhere.
"""

import hashlib
from io import BufferedReader
from typing import BinaryIO, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from bridgetower.index.vectors.float16 import Scored, best, exact_scores

# FAISS may compute an inner product a little differently from call to call (other block sizes, other kernels); on unit
# vectors the difference is far less than this. Scores that are this close are computed again in float64.
_FAISS_NOISE = 1e-5
_MARGIN = 16  # extra candidates, so that a second search is rare
_ROWS = 1024  # vectors scored at a time, to bound memory
_CHUNK_BYTES = 1 << 20


class FlatVectors:
    """Exact search over all vectors in memory (FAISS `IndexFlatIP`): the same answer as comparing one by one.

    Each vector has a unique int64 id. FAISS finds the candidates; their scores are then computed in float64, so that
    equal vectors get equal scores, and the result does not depend on the batch, the number of threads or the order in
    which vectors were added.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._highest = -1  # the highest id so far

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def ids(self) -> NDArray[np.int64]:
        """Return all ids `[N]`, ascending."""
        ids: NDArray[np.int64] = np.sort(faiss.vector_to_array(self._index.id_map))
        return ids

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors `[n, E]` under new ids `[n]`. Raises ValueError if an id is in use or occurs twice in `ids`."""
        if vectors.shape != (len(ids), self.dim):
            raise ValueError(f"{len(ids)} vectors need the shape ({len(ids)}, {self.dim}), not {vectors.shape}")
        if not len(ids):
            return
        # Ids mostly arrive in ascending small batches; only other batches are compared with all ids.
        ascending = ids[0] > self._highest and (np.diff(ids) > 0).all()
        if not ascending and (len(np.unique(ids)) != len(ids) or np.isin(ids, self.ids()).any()):
            raise ValueError("an id can stand for one vector only")
        self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
        self._highest = max(self._highest, int(ids.max()))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove vectors; unknown ids are ignored."""
        if len(ids):
            self._index.remove_ids(ids)

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors `[n, E]` of these ids, which must be known."""
        found: NDArray[np.float32] = self._index.reconstruct_batch(ids)
        return found

    def search(self, queries: NDArray[np.float32], k: int, within: NDArray[np.int64] | None = None) -> Scored:
        """Return the best `min(k, N)` ids `[Q, k]` and their scores `[Q, k]` for queries `[Q, E]`.

        Best first, ties by id. `within` `[n]` restricts the search to these ids, which must be known.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries of this index have shape [Q, {self.dim}], not {list(queries.shape)}")
        if within is not None:
            found = [best(within, self._scores(query, within), k) for query in queries]
            return np.stack([ids for ids, _ in found]), np.stack([scores for _, scores in found])
        k = max(0, min(k, len(self)))
        ids = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        if not ids.size:
            return ids, scores
        rough_scores, rough_ids = self._nearest(queries, min(len(self), k + _MARGIN))
        for row, query in enumerate(queries):
            candidates = self._widen_candidates(query, k, rough_scores[row], rough_ids[row])
            ids[row], scores[row] = best(candidates, self._scores(query, candidates), k)
        return ids, scores

    def _widen_candidates(
        self, query: NDArray[np.float32], k: int, scores: NDArray[np.float32], ids: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return candidates of one query, more and more until all others are surely worse than the k-th best."""
        while len(ids) < len(self) and scores[-1] > scores[k - 1] - _FAISS_NOISE:
            found = self._nearest(query[None], min(len(self), 2 * len(ids)))
            scores, ids = found[0][0], found[1][0]
        return ids

    def _nearest(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and ids `[Q, k]`. A single query runs in one thread: FAISS is slower for it with two."""
        threads = faiss.omp_get_max_threads()  # a setting of this Python thread
        if len(queries) == 1:
            faiss.omp_set_num_threads(1)
        try:
            scores, ids = self._index.search(queries, k)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores, ids

    def _scores(self, query: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = [ids[start : start + _ROWS] for start in range(0, len(ids), _ROWS)]
        scores = [exact_scores(query, self._index.reconstruct_batch(part)) for part in parts]
        return np.concatenate([np.zeros(0, np.float32), *scores])

    def save(self, file: BinaryIO) -> bytes:
        """Write the FAISS index to `file` and return the SHA-256 of its bytes. Raises OSError."""
        return write_faiss(self._index, file)

    @classmethod
    def load(cls, file: BufferedReader, sha256: bytes, dim: int) -> Self | None:
        """Read a file that `save` wrote; None if its digest is not `sha256`, or it is no index of this kind."""
        index = read_faiss(file, sha256)
        if not isinstance(index, faiss.IndexIDMap2) or index.d != dim:
            return None
        loaded = cls(dim)
        loaded._index = index
        loaded._highest = int(loaded.ids().max(initial=-1))
        return loaded


def write_faiss(index: faiss.Index, file: BinaryIO) -> bytes:
    """Write a FAISS index to `file` and return the SHA-256 of its bytes. Raises OSError."""
    sha256 = hashlib.sha256()

    def write(chunk: bytes) -> int:  # FAISS lets its exceptions pass
        file.write(chunk)
        sha256.update(chunk)
        return len(chunk)

    faiss.write_index(index, faiss.PyCallbackIOWriter(write, _CHUNK_BYTES))
    return sha256.digest()


def read_faiss(file: BufferedReader, sha256: bytes) -> faiss.Index | None:
    """Read a file that `write_faiss` wrote; None if its digest is not `sha256`, or this FAISS cannot read its kind."""
    if hashlib.file_digest(file, "sha256").digest() != sha256:
        return None
    file.seek(0)
    try:
        return faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK_BYTES))
    except RuntimeError:  # a layout that this version of FAISS does not know
        return None
