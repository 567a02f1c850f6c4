"""The vector side of the index: float16 rows for the manifest, FAISS for search.

Nothing else imports faiss but `inverted`, for the lists of a large index.

Scores are inner products of unit vectors: cosine similarity, higher is better. There is no distance anywhere.
"""

import hashlib
from collections.abc import Callable
from io import BufferedReader
from typing import BinaryIO, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

LENGTH_TOLERANCE = 1e-3  # of a vector that is handed in; rounding to float16 adds less than 5e-4

# FAISS may compute the same inner product a little differently from call to call (other block sizes, other kernels);
# on unit vectors by far less than this. Scores that differ by less are looked at again, exactly.
_FAISS_NOISE = 1e-5
_MARGIN = 16  # extra candidates, so that a second look is rare
_ROWS = 1024  # vectors that are scored at a time, to bound memory
_CHUNK_BYTES = 1 << 20


def pack(vector: NDArray[np.floating], dim: int) -> bytes:
    """Round one vector `[dim]` to little-endian float16, as the manifest stores it. One of float16 stays as it is.

    Raises:
        ValueError: the shape is another, a number is not finite, or the length is not 1.
    """
    if vector.shape != (dim,):
        raise ValueError(f"a vector of this index has shape ({dim},), not {vector.shape}")
    was_rounded = vector.dtype == np.float16
    require_unit(vector[None].astype(np.float32), dim, LENGTH_TOLERANCE * (2 if was_rounded else 1))
    return vector.astype("<f2").tobytes()


def unpack(blobs: list[bytes], dim: int) -> NDArray[np.float32]:
    """Read vectors as the manifest stores them: float32 `[len(blobs), dim]`, with exactly the float16 values.

    Raises:
        ValueError: a blob is too short or long, or does not hold a unit vector: it was damaged after it was stored.
    """
    if any(len(blob) != 2 * dim for blob in blobs):
        raise ValueError(f"a stored vector does not have {dim} numbers")
    vectors = np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), dim).astype(np.float32)
    require_unit(vectors, dim, 2 * LENGTH_TOLERANCE)
    return vectors


def require_unit(vectors: NDArray[np.float32], dim: int, tolerance: float = LENGTH_TOLERANCE) -> None:
    """Raise ValueError unless every row of `[n, dim]` is finite and has length 1."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"vectors of this index have shape [n, {dim}], not {list(vectors.shape)}")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(lengths).all():
        raise ValueError("a vector holds a number that is not finite")
    if (np.abs(lengths - 1) > tolerance).any():
        raise ValueError(f"a vector has length {lengths[np.abs(lengths - 1).argmax()]:.4f}, not 1")


Scored = tuple[NDArray[np.int64], NDArray[np.float32]]  # ids and their scores, of one shape


class VectorIndex(Protocol):
    """What a store asks of its engine: which images of one committed state are nearest to a vector."""

    @property
    def damage(self) -> str | None:
        """What the searches so far found wrong, and did without; None if nothing."""

    def search(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None = None) -> Scored:
        """The ids and exact scores of the best `k` images that have a file, or of all, for a unit vector `[E]`.

        Best first, ties by id. Only of `images` `[n]`, ascending, which all have a file, if that is said. Raises
        StoreError.
        """


class FlatVectors:
    """Exact search over all vectors in memory (FAISS `IndexFlatIP`): the same answer as comparing one by one.

    Vectors stand under int64 ids, which are unique; their order of arrival means nothing. FAISS finds the candidates;
    their scores are then computed in float64, so that equal vectors get equal scores and the order does not depend on
    the batch, the number of threads or the order of arrival.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._highest = -1  # id so far

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def ids(self) -> NDArray[np.int64]:
        """Every id, ascending `[N]`."""
        ids: NDArray[np.int64] = np.sort(faiss.vector_to_array(self._index.id_map))
        return ids

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors `[n, E]` under new ids `[n]`; ValueError if an id is there already or stands twice in `ids`."""
        if vectors.shape != (len(ids), self.dim):
            raise ValueError(f"{len(ids)} vectors need the shape ({len(ids)}, {self.dim}), not {vectors.shape}")
        if not len(ids):
            return
        # Ids mostly arrive ascending, many small lots of them: only what does not is compared with all that are there.
        ascending = ids[0] > self._highest and (np.diff(ids) > 0).all()
        if not ascending and (len(np.unique(ids)) != len(ids) or np.isin(ids, self.ids()).any()):
            raise ValueError("an id can stand for one vector only")
        self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
        self._highest = max(self._highest, int(ids.max()))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove vectors; an id that is not there is passed over."""
        if len(ids):
            self._index.remove_ids(ids)

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors `[n, E]` of ids that are there."""
        found: NDArray[np.float32] = self._index.reconstruct_batch(ids)
        return found

    def search(self, queries: NDArray[np.float32], k: int, within: NDArray[np.int64] | None = None) -> Scored:
        """The `min(k, N)` best ids `[Q, k]` and their scores `[Q, k]` for queries `[Q, E]`: best first, ties by id.

        `within` `[n]`: only of these ids, which are all there.
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
        rough_scores, rough_ids = self._index.search(queries, min(len(self), k + _MARGIN))
        for row, query in enumerate(queries):
            candidates = self._settle(query, k, rough_scores[row], rough_ids[row])
            ids[row], scores[row] = best(candidates, self._scores(query, candidates), k)
        return ids, scores

    def _settle(
        self, query: NDArray[np.float32], k: int, scores: NDArray[np.float32], ids: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Widen the candidates of one query until whatever is left out is surely worse than the k-th."""
        while len(ids) < len(self) and scores[-1] > scores[k - 1] - _FAISS_NOISE:
            found = self._index.search(query[None], min(len(self), 2 * len(ids)))
            scores, ids = found[0][0], found[1][0]
        return ids

    def _scores(self, query: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = [ids[start : start + _ROWS] for start in range(0, len(ids), _ROWS)]
        scores = [exact_scores(query, self._index.reconstruct_batch(part)) for part in parts]
        return np.concatenate([np.zeros(0, np.float32), *scores])

    def save(self, file: BinaryIO) -> bytes:
        """Write the FAISS index to `file` and return the SHA-256 of what was written; OSError passes through."""
        return write_faiss(self._index, file)

    @classmethod
    def load(cls, file: BufferedReader, sha256: bytes, dim: int) -> Self | None:
        """Read what `save` wrote, or None if these are not those bytes or not an index of this kind."""
        index = read_faiss(file, sha256)
        if not isinstance(index, faiss.IndexIDMap2) or index.d != dim:
            return None
        loaded = cls(dim)
        loaded._index = index
        loaded._highest = int(loaded.ids().max(initial=-1))
        return loaded


def best(ids: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Scored:
    """The best `min(k, n)` of `ids` `[n]`, best first, ties by id, and their scores."""
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products `[n]` of `[n, E]` with `[E]`, summed row by row and not by BLAS: equal rows give equal sums
    wherever they stand."""
    sums: NDArray[np.float32] = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    return sums


def write_faiss(index: faiss.Index, file: BinaryIO) -> bytes:
    """Write a FAISS index to `file` and return the SHA-256 of what was written; OSError passes through."""
    sink = _HashingSink(file.write)
    try:
        faiss.write_index(index, faiss.PyCallbackIOWriter(sink.write, _CHUNK_BYTES))
    except RuntimeError:
        if sink.error is None:
            raise
    if sink.error is not None:
        raise sink.error
    return sink.digest()


def read_faiss(file: BufferedReader, sha256: bytes) -> faiss.Index | None:
    """Read what `write_faiss` wrote, or None if these are not those bytes, or of a kind that this FAISS cannot read."""
    if hashlib.file_digest(file, "sha256").digest() != sha256:
        return None
    file.seek(0)
    try:
        return faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK_BYTES))
    except RuntimeError:  # a layout that this version of FAISS does not know
        return None


class _HashingSink:
    """What FAISS writes through. FAISS swallows the exception of a callback, so it is kept here for the caller."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self._sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, chunk: bytes) -> int:
        if self.error is not None:
            return 0
        try:
            self._write(chunk)
        except OSError as error:
            self.error = error
            return 0
        self._sha256.update(chunk)
        return len(chunk)

    def digest(self) -> bytes:
        return self._sha256.digest()
