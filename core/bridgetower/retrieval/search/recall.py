"""The vector of a request, with which the index recalls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridgetower.encoders.protocol import RecallEncoder, Vectors
from bridgetower.errors import UsageError
from bridgetower.index.reader import IndexReader
from bridgetower.retrieval.encode_pictures import candidate_of, load_hashed
from bridgetower.retrieval.search.request import SearchRequest

_LEAST_LENGTH = 1e-3  # of the sum of unit vectors: below it, rounding decides on its direction


class Query(NamedTuple):
    """The unit vector [1, E] to recall with, and the SHA-256 of the pictures that it comes from, where known."""

    vector: Vectors
    contents: tuple[bytes, ...] = ()


def query_of(reader: IndexReader, request: SearchRequest, encoder: RecallEncoder | None) -> Query:
    """Return what a request recalls with."""
    if request.vector is not None:
        return Query(request.vector_for(reader))
    if encoder is None:
        raise UsageError("a text or a picture needs a model that makes vectors; a vector alone needs none")
    vectors: list[Vectors] = []  # each [E]
    contents: tuple[bytes, ...] = ()
    if request.texts:
        vectors += list(encoder.embed_texts(request.texts))
    if request.images:
        loaded = [load_hashed(candidate_of(picture), encoder.preprocessing) for picture in request.images]
        vectors += list(encoder.embed_images(np.stack([pixels for pixels, _ in loaded])))
        contents = tuple(content for _, content in loaded if content is not None)
    return Query(_mean(vectors, request.weights), contents)


def _mean(vectors: Sequence[Vectors], weights: Sequence[float] | None) -> Vectors:
    """Return the weighted mean of unit vectors [E] as a unit vector [1, E]."""
    if len(vectors) == 1:  # as it is, so that its similarities are those of a match
        return vectors[0][None]
    if weights is not None:  # divided, so that only their ratios count
        vectors = [vector * np.float32(weight / max(weights)) for vector, weight in zip(vectors, weights, strict=True)]
    mean: Vectors = np.sum(vectors, axis=0)
    length = np.linalg.norm(mean)
    if length < _LEAST_LENGTH:
        raise UsageError("the texts and the pictures say the opposite of each other: search with one of them")
    return (mean / length)[None]
