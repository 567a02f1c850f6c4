"""Text, picture or vector -> pictures: recall by ITC, then re-rank by ITM.

    query -> vector -> index -> candidates by similarity -> the first `depth` of them through the full encoder
                                                         -> verified, by matching logit; then the rest, unverified

The two scores are never mixed. How many candidates are verified does not depend on how many are shown, so the first
five results are always the first five of the first fifteen. A picture whose files are gone is no candidate: the next
one takes its place.
"""

import math
import os
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from bridgetower.encoders.protocol import Judge, RecallEncoder, Texts, Vectors
from bridgetower.errors import UsageError
from bridgetower.files.npy import unit, vector_from
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.inputs import AnyPath, normalised, number, path, require_limits, short
from bridgetower.records import EVERYTHING, Candidate, Filter, Head, Hit, OnProgress, Skipped, quiet, require_heads
from bridgetower.retrieval.candidates import Candidates, recall_vector
from bridgetower.retrieval.encode_pictures import AnyPicture, candidate_of, load
from bridgetower.retrieval.matching import Results, Verified, matching, verify


@dataclass(frozen=True, slots=True)
class Found(Results):
    """The results of a search, best first."""

    gone: int  # pictures that would have come before the last one, but whose files are no longer there
    barred: tuple[Skipped, ...]  # the same, but whose files cannot be looked at: one file of each, and why
    away: tuple[Path, ...]  # folders that were indexed and passed over, as nothing at all is in them now
    damage: str | None  # what was found wrong with the recall store, and done without; `repair` mends it
    depth: int  # how many candidates were to be verified at most


_LEAST_LENGTH = 1e-3  # of the sum of two unit vectors: below it, rounding decides on its direction

NOTHING = Found((), 0, None, (), 0, (), (), None, 0)  # in an index without pictures


@dataclass(frozen=True, slots=True, eq=False)  # NumPy compares arrays number by number
class SearchRequest:
    """A query and its limits. Raises UsageError for values that are out of range or cannot go together.

    A text or a picture recalls; of both, the mean of their vectors does. A vector recalls by itself. The pictures
    that were recalled are verified with the text.
    """

    text: str | None = None
    image: AnyPicture | None = None
    # [E] or [1, E], of the kind that the index holds, of any length but 0; `Library` takes an npy file of it, too.
    vector: Vectors | AnyPath | BinaryIO | None = None
    top: int = 10  # how many to give at most
    depth: int | None = None  # how many candidates to verify; None: what the judge thinks is worth it
    min_match: float | None = None  # only verified pictures of at least this probability
    budget: float = math.inf  # seconds after which no more are verified
    filter: Filter = EVERYTHING  # which pictures may be found; it costs no recall

    def __post_init__(self) -> None:
        if self.text is not None:
            object.__setattr__(self, "text", normalised(self.text))
        if self.text is None and self.image is None and self.vector is None:
            raise UsageError("nothing to search for: give a text, a picture, or both")
        if not isinstance(self.filter, Filter):
            raise UsageError(f"{short(self.filter)}: a Filter is wanted")
        if self.vector is not None and self.image is not None:
            raise UsageError("a picture and a vector both say what to recall: choose one")
        require_limits(top=self.top, depth=self.depth, min_match=self.min_match)
        number("budget, in seconds,", self.budget, least=0)
        if self.min_match is not None and not self.verifies:
            raise UsageError("a least match cuts what was verified: it needs a text, and a depth of at least 1")
        if self.budget < math.inf and not self.verifies:
            raise UsageError("a budget is for verifying: it needs a text, and a depth of at least 1")

    def __repr__(self) -> str:
        """The fields that are not as usual; long texts, vectors and pictures are cut."""
        given = ((field, getattr(self, field.name)) for field in fields(self))
        said = (f"{field.name}={short(value)}" for field, value in given if value is not field.default)
        return f"SearchRequest({', '.join(said)})"

    def with_vector_read(self, dim: int) -> "SearchRequest":
        """The same, with its vector [E] out of the npy file or the stream that holds it. Raises InputError."""
        source = self.vector
        if isinstance(source, str | os.PathLike):
            return replace(self, vector=vector_from(path(source), dim))
        if callable(getattr(source, "read", None)):
            return replace(self, vector=vector_from(cast(BinaryIO, source), dim))
        return self

    @property
    def verifies(self) -> bool:
        """Whether anything is verified: matching needs a text."""
        return self.text is not None and self.depth != 0

    @property
    def needs_encoder(self) -> bool:
        """Whether a text or a picture recalls; a vector needs no encoder."""
        return self.vector is None


def search(
    reader: IndexReader,
    request: SearchRequest,
    encoder: RecallEncoder | None,
    judge: Judge | None,
    *,
    cache: FeatureCache | None = None,
    on_progress: OnProgress = quiet,
) -> Found:
    """Find pictures. `encoder` may be None where a vector recalls, `judge` where nothing is verified.

    `cache` keeps the features of pictures for the next time. `on_progress(done, total)` counts pictures that are being
    verified. Raises UsageError for a vector that is not of this index, PictureError for the picture of the request;
    StoreError, ModelError.
    """
    deadline = time.monotonic() + request.budget
    encoded = _encoded(request, judge)
    candidates = Candidates(reader, _query(reader, request, encoder, judge, encoded), request.filter)
    verified: list[Verified] = []
    unreadable: list[Skipped] = []
    left: list[Candidate] = []  # those that there was no time for
    depth = 0

    def tell(done: int, total: int) -> None:
        on_progress(len(verified) + done, len(verified) + total)

    if judge is not None and encoded is not None:
        depth = judge.default_depth if request.depth is None else request.depth
        while len(verified) < depth and (some := candidates.take(depth - len(verified))):
            more, skipped = verify(judge, encoded, some, cache=cache, deadline=deadline, on_progress=tell)
            verified += more
            unreadable += skipped
            if time.monotonic() >= deadline:
                done = {v.candidate.path for v in more} | {skip.path for skip in skipped}
                left = [candidate for candidate in some if candidate.path not in done]
                break
    verified.sort(key=lambda v: -v.margin)
    hits = matching([v.hit for v in verified], request.min_match)
    if request.min_match is None:
        left += candidates.take(request.top - len(hits) - len(left))
        hits += [Hit(candidate.path, None, candidate.similarity, verified=False) for candidate in left]
    return Found(
        hits=tuple(hits[: request.top]),
        verified=len(verified),
        best_match=verified[0].hit.match if verified else None,
        skipped=tuple(unreadable),
        gone=candidates.gone,
        barred=tuple(candidates.barred),
        away=tuple(candidates.away),
        damage=reader.damage,
        depth=depth,
    )


def _encoded(request: SearchRequest, judge: Judge | None) -> Texts | None:
    """The text as the judge reads it, if it is to verify anything."""
    if request.text is None or not request.verifies:
        return None
    if judge is None:
        raise UsageError("verifying needs a model that judges: give one, or a depth of 0")
    require_heads(judge.heads, Head.ITM)
    return judge.encode_texts([request.text])


def _query(
    reader: IndexReader,
    request: SearchRequest,
    encoder: RecallEncoder | None,
    judge: Judge | None,
    encoded: Texts | None,
) -> Vectors:
    """The unit vector [1, E] to recall with."""
    dim = reader.fingerprint.dim
    if request.vector is not None:
        try:
            vector = np.asarray(request.vector)
        except ValueError as error:
            raise UsageError(f"vector {short(request.vector)}: its rows differ in length") from error
        if vector.shape not in ((dim,), (1, dim)) or vector.dtype.kind not in "fiu":
            raise UsageError(
                f"a vector of {vector.dtype} and shape {list(vector.shape)}, those of the index have "
                f"{dim} numbers: give one that was made as they were, by {reader.fingerprint.model}"
            )
        return unit(vector.reshape(1, dim), "the vector", 0)
    if encoder is None:
        raise UsageError("a text or a picture needs a model that makes vectors; a vector alone needs none")
    vectors = []
    if request.text is not None:
        vectors.append(recall_vector(encoder, judge, request.text, encoded))
    if request.image is not None:
        vectors.append(encoder.embed_images(load(candidate_of(request.image), encoder.preprocessing)[None]))
    mean: Vectors = np.sum(vectors, axis=0)
    length = np.linalg.norm(mean)
    if length < _LEAST_LENGTH:
        raise UsageError("the text and the picture say the opposite of each other: search with one of them")
    return mean / length
