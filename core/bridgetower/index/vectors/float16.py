"""Vectors as the manifest stores them, unit vectors rounded to little-endian float16, and their scores."""

import numpy as np
from numpy.typing import NDArray

Scored = tuple[NDArray[np.int64], NDArray[np.float32]]  # ids and their scores, of one shape

LENGTH_TOLERANCE = 1e-3  # of a vector that is to be stored; rounding to float16 adds less than 5e-4


def pack(vector: NDArray[np.floating], dim: int) -> bytes:
    """Round one vector `[dim]` to little-endian float16, as the manifest stores it. Float16 values stay unchanged.

    Raises:
        ValueError: the shape is not `[dim]`, a number is not finite, or the length is not 1.
    """
    if vector.shape != (dim,):
        raise ValueError(f"a vector of this index has shape ({dim},), not {vector.shape}")
    was_rounded = vector.dtype == np.float16
    require_unit(vector[None].astype(np.float32), dim, LENGTH_TOLERANCE * (2 if was_rounded else 1))
    return vector.astype("<f2").tobytes()


def unpack(blobs: list[bytes], dim: int) -> NDArray[np.float32]:
    """Return stored vectors as float32 `[len(blobs), dim]`, with exactly the float16 values.

    Raises:
        ValueError: a blob has the wrong length or holds no unit vector: it was damaged after it was stored.
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


def best(ids: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Scored:
    """The best `min(k, n)` of `ids` `[n]`, best first, ties by id, and their scores."""
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products `[n]` of `[n, E]` with `[E]`, summed row by row and not by BLAS: equal rows give equal sums
    wherever they stand."""
    sums: NDArray[np.float32] = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    return sums
