"""Search pictures for a text, a picture or a vector: recall by ITC, then re-rank by ITM.

    query -> vector -> index -> candidates by similarity -> the first `depth` of them through the full encoder
                                                         -> verified, by matching logit; then the rest, unverified

The two scores are never mixed. How many candidates are verified does not depend on how many are shown, so the first
five results are always the first five of the first fifteen. A picture whose files are gone is no candidate: the next
one takes its place.
"""

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from bridgetower.encoders.protocol import Judge, RecallEncoder, Vectors
from bridgetower.errors import InputError, UnknownPlaceError, UsageError
from bridgetower.files.npy import unit, vector_from
from bridgetower.files.patterns import glob
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import known_place, suggestion
from bridgetower.inputs import (
    AnyPath,
    ResolvedPlace,
    count_of,
    depth_of,
    flag,
    lasting,
    least_match,
    least_similarity,
    normalised,
    number,
    path,
    places,
    short,
)
from bridgetower.moments import Moment, times
from bridgetower.pictures.preprocess import PictureSource
from bridgetower.records import (
    DEFAULT_DEPTH,
    EVERYTHING,
    Candidate,
    Filter,
    Head,
    Hit,
    OnHits,
    OnProgress,
    Place,
    Skipped,
    quiet,
    require_heads,
)
from bridgetower.retrieval.candidates import Candidates
from bridgetower.retrieval.encode_pictures import candidate_of, load
from bridgetower.retrieval.matching import Verified, matching, verify
from bridgetower.retrieval.results import Found

if TYPE_CHECKING:
    from bridgetower.retrieval.encode_pictures import AnyPicture


_LEAST_LENGTH = 1e-3  # of the sum of unit vectors: below it, rounding decides on its direction

NOTHING = Found((), 0, None, (), 0, (), (), None, 0)  # in an index without pictures


@dataclass(frozen=True, slots=True, eq=False)  # comparing NumPy arrays gives no bool
class SearchRequest:
    """A query and its limits, which may be used any number of times. Raises UsageError for values that are out of range
    or cannot go together, InputError for a vector that cannot be read.

    The vector of a text or of a picture recalls; for several of them, their mean, in which each counts alike. A given
    vector recalls alone. The text verifies the candidates. Paths become absolute, relative dates are resolved and
    `vector` is read when the request is made.
    """

    text: str | None = None
    image: "AnyPicture | Sequence[AnyPicture] | None" = None  # a tuple or list holds several
    vector: Vectors | AnyPath | BinaryIO | None = None  # [E] or [1, E], or an npy file of it; of any length but 0
    # Only pictures at or below one of these folders or files of the index, by any of their names, or that fit a glob.
    under: AnyPath | Iterable[AnyPath] | None = None
    since: Moment | None = None  # only pictures taken at this time or later
    before: Moment | None = None
    top: int = 10  # the most hits
    depth: int | None = None  # how many candidates to verify; None: the judge's default
    min_match: float | None = None  # only verified pictures with at least this probability
    budget: float = math.inf  # seconds; then verification stops
    min_similarity: float | None = None  # without a text: only pictures with at least this cosine
    not_under: AnyPath | Iterable[AnyPath] = ()  # no pictures there; given as for `under`
    taken: Moment | None = None  # only pictures taken in this span, or in a range of two: "2024-05..2024-08"
    exact: bool = False  # recall by comparing the vectors of all pictures, whichever store the index has
    _limits: Filter = field(init=False, repr=False, default=EVERYTHING)
    _under: tuple[ResolvedPlace, ...] = field(init=False, repr=False, default=())
    _not_under: tuple[ResolvedPlace, ...] = field(init=False, repr=False, default=())
    _file: str | None = field(init=False, repr=False, default=None)  # that the vector came from

    @classmethod
    def of(cls, text: "str | SearchRequest | None", *limits: Any) -> "SearchRequest":
        """Return the request of these fields, or `text` where it is one. Raises UsageError for limits beside it."""
        if not isinstance(text, SearchRequest):
            return cls(text, *limits)
        usual = [one.default for one in fields(cls) if one.init][1:]
        if any(one is not other for one, other in zip(limits, usual, strict=True)):  # arrays compare as arrays
            raise UsageError("a SearchRequest says all that there is to say: nothing can be given beside it")
        return text

    def __post_init__(self) -> None:
        if self.text is None and not self.images and self.vector is None:
            raise UsageError("nothing to search for: give a text, a picture, or both")
        if self.vector is not None and self.images:
            raise UsageError("a picture and a vector both say what to recall: choose one")
        self._hold("text", None if self.text is None else normalised(self.text))
        self._hold("top", count_of(self.top))
        self._hold("depth", depth_of(self.depth))
        self._hold("min_match", least_match(self.min_match))
        self._hold("min_similarity", least_similarity(self.min_similarity))
        self._hold("budget", number("budget, in seconds,", self.budget, least=0))
        self._hold("exact", flag("exact", self.exact))
        self._hold_places()
        self._hold("_limits", times(self.since, self.before, self.taken))
        if self.min_match is not None and not self.verifies:
            raise UsageError("a least match cuts what was verified: it needs a text, and a depth of at least 1")
        if self.min_similarity is not None and self.text is not None:
            raise UsageError("a least similarity is for a picture or a vector alone; with a text, give a least match")
        if self.budget < math.inf and not self.verifies:
            raise UsageError("a budget is for verifying: it needs a text, and a depth of at least 1")
        if self.images:
            several = isinstance(self.image, list | tuple)
            held = tuple(_held(picture) for picture in self.images)
            self._hold("image", held if several else held[0])
        if self.vector is not None:
            self._read_vector(self.vector)

    def _hold(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _hold_places(self) -> None:
        """Set `under` and `not_under` to absolute paths and globs, so that the current folder may change."""
        for name in ("under", "not_under"):
            if (value := getattr(self, name)) is not None:
                resolved = tuple(places(name, value, glob))
                self._hold(name, tuple(place.path or place.glob for place in resolved))
                self._hold(f"_{name}", resolved)
        if self.under == ():
            raise UsageError("under names no place: give at least one, or leave it out")

    def _read_vector(self, source: Vectors | AnyPath | BinaryIO) -> None:
        """Set `vector` to the unit vector [E]."""
        name = None
        if isinstance(source, str | os.PathLike) or callable(getattr(source, "read", None)):
            file = path(source) if isinstance(source, str | os.PathLike) else cast(BinaryIO, source)
            vector, name = vector_from(file)
        else:
            try:
                vector = np.asarray(source)
            except ValueError as error:
                raise UsageError(f"vector {short(source)}: its rows differ in length") from error
            numbers = vector.dtype.kind in "fiu" and vector.size
            if not numbers or vector.ndim not in (1, 2) or vector.shape[:-1] not in ((), (1,)):
                raise UsageError(
                    f"a vector of {vector.dtype} and shape {list(vector.shape)}: numbers [E] or [1, E] are wanted, or "
                    "an npy file of them"
                )
            vector = unit(vector.reshape(1, -1), "the vector", 0)[0]
        self._hold("vector", vector)
        self._hold("_file", name)

    def __repr__(self) -> str:
        """Show the fields that differ from their defaults; long texts, vectors and pictures are cut."""
        given = ((one, getattr(self, one.name)) for one in fields(self) if one.repr)
        said = (f"{one.name}={short(value)}" for one, value in given if value is not one.default)
        return f"SearchRequest({', '.join(said)})"

    def filter_in(self, reader: IndexReader) -> Filter:
        """Return the filter of the request for an index. Raises UnknownPlaceError."""
        under, not_under = (_known(given, reader.catalog) for given in (self._under, self._not_under))
        return replace(self._limits, under=under, not_under=not_under)

    def files_in(self, reader: IndexReader) -> tuple[Path, ...]:
        """Return the files of the pictures that recall, as the index knows them, if it does."""
        named = [picture.name if isinstance(picture, PictureSource) else picture for picture in self.images]
        paths = [name for name in named if isinstance(name, Path) and name.is_absolute()]
        return tuple(place for path in paths if (place := known_place(path, reader.catalog.knows)) is not None)

    def vector_for(self, reader: IndexReader) -> Vectors:
        """Return the given unit vector [1, E]. Raises InputError, UsageError if its length is not that of the index."""
        vector = cast(Vectors, self.vector)
        dim = reader.fingerprint.dim
        if len(vector) == dim:
            return vector[None]
        if self._file is not None:
            raise InputError(
                f"{self._file}: a vector of length {len(vector)}, those of the index have {dim}; make it as they were"
            )
        raise UsageError(
            f"a vector of length {len(vector)}, those of the index have {dim} numbers: give one that was made as they "
            f"were, by {reader.fingerprint.model}"
        )

    @property
    def images(self) -> "tuple[AnyPicture, ...]":
        """The pictures that recall."""
        if self.image is None:
            return ()
        return tuple(self.image) if isinstance(self.image, list | tuple) else (cast("AnyPicture", self.image),)

    @property
    def verifies(self) -> bool:
        """Whether anything is verified: matching needs a text."""
        return self.text is not None and self.depth != 0

    @property
    def needs_encoder(self) -> bool:
        """Whether a text or a picture recalls; a vector needs no encoder."""
        return self.vector is None


def pages(
    reader: IndexReader,
    request: SearchRequest,
    encoder: RecallEncoder | None,
    load_judge: Callable[[], Judge] | None,
    cache: FeatureCache | None = None,
    on_progress: OnProgress = quiet,
    on_hits: OnHits = quiet,
) -> Generator[Found]:
    """Find pictures, and yield them in pages of at most `request.top` hits; at least one page, which may be empty.

    `encoder` may be None where a vector recalls, `load_judge` where nothing is verified. The judge is loaded after
    `on_hits` has got the recalled pictures; `on_hits` then gets the hits of the first page after each verified batch,
    as if verification ended there, and at last as they are. With a least match, pictures that are still to be verified
    are among them until the last. `cache` keeps the features of pictures for the next search.
    `on_progress(done, total)` counts verified pictures.
    Raises UnknownPlaceError, UsageError or InputError for a vector that is not of this index, PictureError
    for the picture of the request; StoreError, ModelError.
    """
    if request.verifies and load_judge is None:
        raise UsageError("verifying needs a model that judges: give one, or a depth of 0")
    query = _query(reader, request, encoder)
    limits, files = request.filter_in(reader), request.files_in(reader)
    candidates = Candidates(reader, query, limits, files, exact=request.exact)
    ranking = _Ranking(request, candidates, on_hits)
    if load_judge is not None and request.text is not None and request.verifies:
        ranking.show()
        ranking.verify(load_judge(), request.text, cache, on_progress)
    ordered, is_first, is_last = ranking.ordered(), True, False
    best_similarity: float | None = None
    while not is_last:
        hits = list(islice(ordered, request.top))
        is_last = len(hits) < request.top
        if request.min_similarity is not None:
            best_similarity = hits[0].similarity if is_first and hits else best_similarity
            similar = [hit for hit in hits if hit.similarity is not None and hit.similarity >= request.min_similarity]
            is_last, hits = is_last or len(similar) < len(hits), similar
        found = Found(
            hits=tuple(candidates.described(hit) for hit in hits),
            verified=len(ranking.verified),
            best_match=ranking.verified[0].hit.match if ranking.verified else None,
            skipped=tuple(ranking.unreadable),
            gone=candidates.gone,
            barred=tuple(candidates.barred),
            away=tuple(candidates.away),
            damage=reader.damage,
            depth=ranking.depth,
            in_cloud=sum(candidate.in_cloud for candidate in ranking.left),
            best_similarity=best_similarity,
        )
        if is_first:
            on_hits(found.hits)
        if is_first or hits:
            yield found
        is_first = False


class _Ranking:
    """The hits of a search as they stand: those that are verified by match, then the others by similarity."""

    def __init__(self, request: SearchRequest, candidates: Candidates, on_hits: OnHits) -> None:
        self._request, self._candidates, self._on_hits = request, candidates, on_hits
        self.verified: list[Verified] = []
        self.unreadable: list[Skipped] = []
        self.left: list[Candidate] = []  # candidates left unverified, as they are in the cloud, or at the deadline
        self.depth = (request.depth or DEFAULT_DEPTH) if request.verifies else 0  # until the judge is there

    def verify(self, judge: Judge, text: str, cache: FeatureCache | None, on_progress: OnProgress) -> None:
        """Verify the first candidates, and show the hits after each batch."""
        require_heads(judge.heads, Head.ITM)
        encoded = judge.encode_texts([text])  # may read the weights, which takes nothing of the budget
        deadline = time.monotonic() + self._request.budget
        on_progress(0, 0)
        self.depth = judge.default_depth if self._request.depth is None else self._request.depth

        def tell(done: int, total: int) -> None:
            on_progress(len(self.verified) + done, len(self.verified) + total)

        while some := self._candidates.take(self.depth - len(self.verified) - len(self.left)):
            here = [candidate for candidate in some if not candidate.in_cloud]
            show = partial(self.show, some)
            self._add(
                some, *verify(judge, encoded, here, cache=cache, deadline=deadline, on_progress=tell, on_batch=show)
            )
            if time.monotonic() >= deadline:
                break

    def _add(self, some: Sequence[Candidate], verified: Sequence[Verified], unreadable: Sequence[Skipped]) -> None:
        """Add the verified and the unreadable ones of `some`; the others are left."""
        done = {v.candidate.path for v in verified} | {skip.path for skip in unreadable}
        self.verified += verified
        self.unreadable += unreadable
        self.left += [candidate for candidate in some if candidate.path not in done]
        self._candidates.replace_unreadable(skip.path for skip in unreadable)

    def show(
        self,
        some: Sequence[Candidate] = (),
        verified: Sequence[Verified] = (),
        unreadable: Sequence[Skipped] = (),
    ) -> None:
        """Tell `on_hits` the hits as if verification ended with these of `some`."""
        if self._on_hits is quiet:  # nobody waits for them
            return
        ahead = copy(self)
        ahead.verified, ahead.unreadable, ahead.left = [*self.verified], [*self.unreadable], [*self.left]
        ahead._candidates = self._candidates.fork()
        ahead._add(some, verified, unreadable)
        hits = islice(ahead.ordered(pending=True), self._request.top)
        self._on_hits(tuple(map(self._candidates.described, hits)))

    def ordered(self, *, pending: bool = False) -> Iterator[Hit]:
        """Yield all hits; with `pending`, a least match keeps what is still to be verified, too."""
        self.verified.sort(key=lambda v: -v.margin)
        yield from matching([v.hit for v in self.verified], self._request.min_match)
        rest: Iterator[Candidate] = chain(self.left, chain.from_iterable(iter(partial(self._candidates.take, 1), [])))
        if self._request.min_match is not None:
            to_verify = self.depth - len(self.verified) if pending else 0
            rest = (candidate for candidate in islice(rest, to_verify) if not candidate.in_cloud)
        yield from (Hit(one.path, None, one.similarity, verified=False) for one in rest)


def _held(picture: "AnyPicture") -> object:
    """Return a picture that may be used later: a path becomes absolute."""
    candidate = candidate_of(picture)
    return lasting(candidate.path) if candidate.picture is None else candidate.picture


def _known(given: tuple[ResolvedPlace, ...], catalog: Catalog) -> tuple[Place, ...]:
    """Return each place as the index knows it, else as a glob. Raises UnknownPlaceError."""
    found: dict[Place, None] = {}
    for place, line in given:
        known: Place | None = line
        if place is not None and (known := known_place(place, catalog.knows) or line) is None:
            raise UnknownPlaceError(f"nothing in the index lies under {place}{suggestion(catalog, place)}")
        if known is not None:
            found[known] = None
    return tuple(found)


def _query(reader: IndexReader, request: SearchRequest, encoder: RecallEncoder | None) -> Vectors:
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
