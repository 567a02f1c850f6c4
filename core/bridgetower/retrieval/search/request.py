"""A query and its limits, checked once."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from bridgetower.encoders.protocol import Vectors
from bridgetower.errors import InputError, UsageError
from bridgetower.files.npy import unit, vector_from
from bridgetower.files.patterns import glob
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import known_place, known_places
from bridgetower.inputs import (
    AnyPath,
    ResolvedPlace,
    count_of,
    depth_of,
    flag,
    lasting,
    least_match,
    least_similarity,
    list_of_texts,
    list_of_weights,
    normalised,
    number,
    offset_of,
    path,
    places,
    short,
)
from bridgetower.moments import Moment, times
from bridgetower.pictures.preprocess import PictureSource
from bridgetower.records import EVERYTHING, Filter
from bridgetower.retrieval.encode_pictures import candidate_of

if TYPE_CHECKING:
    from bridgetower.retrieval.encode_pictures import AnyPicture


@dataclass(frozen=True, slots=True, eq=False)  # comparing NumPy arrays gives no bool
class SearchRequest:
    """A query and its limits, which may be used any number of times. Raises UsageError for values that are out of range
    or cannot go together, InputError for a vector that cannot be read.

    The vector of a text or of a picture recalls; for several of them, their mean, in which each counts alike or by its
    weight. A given vector recalls alone. All texts verify the candidates: each must be true, and none of `without`.
    Paths become absolute, relative dates are resolved and `vector` is read when the request is made.
    """

    text: str | Sequence[str] | None = None  # a tuple or list holds several
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
    # Texts that must not be true: a verified picture of which one probably is comes last of these, or is cut.
    without: str | Sequence[str] = ()
    weights: Sequence[float] | None = None  # in recall: a positive number for each text, then for each picture
    keep_self: bool = False  # keep the pictures that recall among the hits
    offset: int = 0  # how many hits are skipped
    unique: bool = False  # fold hits that show the same view into the best of them, which has them in `like`
    _limits: Filter = field(init=False, repr=False, default=EVERYTHING)
    _under: tuple[ResolvedPlace, ...] = field(init=False, repr=False, default=())
    _not_under: tuple[ResolvedPlace, ...] = field(init=False, repr=False, default=())
    _file: str | None = field(init=False, repr=False, default=None)  # that the vector came from

    @classmethod
    def of(cls, text: "str | Sequence[str] | SearchRequest | None", *limits: Any) -> "SearchRequest":
        """Return the request of these fields, or `text` where it is one. Raises UsageError for limits beside it."""
        if not isinstance(text, SearchRequest):
            return cls(text, *limits)
        usual = [one.default for one in fields(cls) if one.init][1:]
        if any(one is not other for one, other in zip(limits, usual, strict=True)):  # arrays compare as arrays
            raise UsageError("a SearchRequest says all that there is to say: nothing can be given beside it")
        return text

    def __post_init__(self) -> None:
        several = isinstance(self.text, list | tuple)
        texts = tuple(normalised(text) for text in self.texts)
        self._hold("text", (texts or None) if several else next(iter(texts), None))
        self._hold("without", tuple(list_of_texts([self.without] if isinstance(self.without, str) else self.without)))
        if self.text is None and not self.images and self.vector is None:
            beside = ", beside those that must not be true" if self.without else ""
            raise UsageError(f"nothing to search for: give a text, a picture, or both{beside}")
        if self.vector is not None and self.images:
            raise UsageError("a picture and a vector both say what to recall: choose one")
        self._hold("top", count_of(self.top))
        self._hold("depth", depth_of(self.depth))
        self._hold("min_match", least_match(self.min_match))
        self._hold("min_similarity", least_similarity(self.min_similarity))
        self._hold("budget", number("budget, in seconds,", self.budget, least=0))
        self._hold("exact", flag("exact", self.exact))
        self._hold("keep_self", flag("keep_self", self.keep_self))
        self._hold("unique", flag("unique", self.unique))
        self._hold("offset", offset_of(self.offset))
        self._hold_weights()
        self._hold_places()
        self._hold("_limits", times(self.since, self.before, self.taken))
        if self.without and not self.verifies:
            raise UsageError("texts that must not be true are verified: they need a depth of at least 1")
        if self.min_match is not None and not (self.texts and self.verifies):
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

    def _hold_weights(self) -> None:
        if self.weights is None:
            return
        if self.vector is not None:
            raise UsageError("a vector recalls alone: leave the weights out")
        self._hold("weights", list_of_weights(self.weights, len(self.texts), len(self.images)))

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
        under, not_under = (known_places(given, reader.catalog) for given in (self._under, self._not_under))
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
    def texts(self) -> tuple[str, ...]:
        """The texts that must be true."""
        if self.text is None:
            return ()
        return tuple(self.text) if isinstance(self.text, list | tuple) else (cast(str, self.text),)

    @property
    def images(self) -> "tuple[AnyPicture, ...]":
        """The pictures that recall."""
        if self.image is None:
            return ()
        return tuple(self.image) if isinstance(self.image, list | tuple) else (cast("AnyPicture", self.image),)

    @property
    def verifies(self) -> bool:
        """Whether anything is verified: matching needs a text."""
        return bool(self.texts or self.without) and self.depth != 0

    @property
    def needs_encoder(self) -> bool:
        """Whether a text or a picture recalls; a vector needs no encoder."""
        return self.vector is None


def _held(picture: "AnyPicture") -> object:
    """Return a picture that may be used later: a path becomes absolute."""
    candidate = candidate_of(picture)
    return lasting(candidate.path) if candidate.picture is None else candidate.picture
