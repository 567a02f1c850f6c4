"""The vector of a request, with which the index recalls."""

import numpy as np

from bridgetower.encoders.protocol import RecallEncoder, Vectors
from bridgetower.errors import UsageError
from bridgetower.index.reader import IndexReader
from bridgetower.retrieval.encode_pictures import candidate_of, load
from bridgetower.retrieval.search.request import SearchRequest

_LEAST_LENGTH = 1e-3  # of the sum of unit vectors: below it, rounding decides on its direction


def query_vector(reader: IndexReader, request: SearchRequest, encoder: RecallEncoder | None) -> Vectors:
    """Return the unit vector [1, E] to recall with."""
    if request.vector is not None:
        return request.vector_for(reader)
    if encoder is None:
        raise UsageError("a text or a picture needs a model that makes vectors; a vector alone needs none")
    vectors: list[Vectors] = []  # each [E]
    if request.text is not None:
        vectors += list(encoder.embed_texts([request.text]))
    if request.images:
        pixels = [load(candidate_of(picture), encoder.preprocessing) for picture in request.images]
        vectors += list(encoder.embed_images(np.stack(pixels)))
    if len(vectors) == 1:  # as it is, so that its similarities are those of a match
        return vectors[0][None]
    mean: Vectors = np.sum(vectors, axis=0)
    length = np.linalg.norm(mean)
    if length < _LEAST_LENGTH:
        raise UsageError("the text and the pictures say the opposite of each other: search with one of them")
    return (mean / length)[None]
