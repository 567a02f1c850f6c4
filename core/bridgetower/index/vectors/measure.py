"""Measure recall: queries like those of users, and the exact answers to them.

Texts are the queries if the index has some, because people search with texts; some pictures stand for searches by
picture.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.vectors.catalog_vectors import unpacked
from bridgetower.index.vectors.float16 import best, unpack

RECALL_AT = 100  # recall is measured at this number of images

_PICTURE_QUERIES = 64  # vectors of the index used as queries, beside texts, for searches by picture
_PICTURE_QUERIES_ALONE = 256  # used as queries without texts, moved as far from the pictures as texts are
_LIKENESS = 0.35  # cosine between such a moved query and its centred picture
_SEED = 20
_NOISE = 1e-6  # of an inner product in float32: scores that differ by less tie
_TIES = 16_384  # images kept for an exact answer with ties; if more tie, recall is measured too low

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]  # ids [n] and vectors [n, E], of all images


class ExactNearest:
    """The exact nearest images of some queries, computed batch by batch: RECALL_AT, and all that tie with the last."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries = queries
        self._least = np.full(len(queries), -np.inf)  # the lowest score in each answer
        self._scores = [np.zeros(0, np.float32) for _ in queries]
        self.ids = [np.zeros(0, np.int64) for _ in queries]

    def taking(self, batches: Batches) -> Batches:
        """Yield the batches and take them."""
        for ids, vectors in batches:
            self.take(ids, vectors)
            yield ids, vectors

    def take(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        for query, scores in enumerate(self._queries @ vectors.T):
            near = scores >= self._least[query]
            known = np.append(self.ids[query], ids[near]), np.append(self._scores[query], scores[near])
            nearest, scores = best(*known, _TIES)
            if len(scores) >= RECALL_AT:
                self._least[query] = scores[RECALL_AT - 1] - _NOISE
            near = scores >= self._least[query]
            self.ids[query], self._scores[query] = nearest[near], scores[near]


def measuring_queries(catalog: Catalog) -> tuple[NDArray[np.float32], int]:
    """Return unit vectors `[Q, E]` to measure recall with, texts first, and the number of texts."""
    dim = catalog.fingerprint().dim
    texts = unpack(catalog.queries(), dim)
    pictures = sample(catalog, _PICTURE_QUERIES if len(texts) else _PICTURE_QUERIES_ALONE)
    if not len(texts):
        away = pictures - pictures.mean(axis=0)
        away /= np.linalg.norm(away, axis=1, keepdims=True).clip(min=1e-6)  # zero if all pictures are equal
        anywhere = np.random.default_rng(_SEED).standard_normal(away.shape, np.float32)
        anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
        pictures = _LIKENESS * away + np.sqrt(1 - _LIKENESS**2, dtype=np.float32) * anywhere
    queries = np.concatenate([texts, pictures]).astype(np.float32)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True), len(texts)


def sample(catalog: Catalog, number: int) -> NDArray[np.float32]:
    """Return `number` vectors `[n, E]`, or all if there are fewer, drawn from the whole index with a fixed seed."""
    there = np.sort(np.fromiter(catalog.image_ids(), np.int64))
    ids = np.sort(np.random.default_rng(_SEED).choice(there, min(number, len(there)), replace=False))
    found = [blob for rows in catalog.vectors_of(ids.tolist()) for _, blob in rows]
    return unpacked(catalog, found)
