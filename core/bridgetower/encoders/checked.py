"""Check what the parts of a model return, and raise a ModelError that names the part.

Kinds, shapes, numbers of rows, finite numbers and unit lengths are checked, not whether the numbers are right.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import (
    Embedded,
    ImageEngine,
    Judge,
    MaskedPrediction,
    Pictures,
    Pixels,
    RecallEncoder,
    Texts,
    Vectors,
)
from bridgetower.errors import ModelError, UsageError
from bridgetower.inputs import short, whole
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import LARGEST, Fingerprint, Head, Refused

_LENGTH_TOLERANCE = 1e-3  # of a unit vector
_FEATURES_ID = re.compile(r"[A-Za-z0-9_.-]{1,150}")  # part of the name of a file

_T = TypeVar("_T")


def checked(encoder: RecallEncoder | None, judge: Judge | None) -> tuple[RecallEncoder | None, Judge | None]:
    """The same parts, checked; one that plays both roles stays one."""
    one: object = encoder
    if encoder is not None and one is judge:
        both = CheckedPart(encoder, makes_vectors=True)
        return both, both
    return (
        None if encoder is None else CheckedPart(encoder, makes_vectors=True),
        None if judge is None else CheckedPart(judge, makes_vectors=False),
    )


def require_embedded(engine: ImageEngine, found: object, dim: int) -> Embedded | Refused:
    """A result of `ImageEngine.embed`. Raises ModelError unless it is one, with a unit vector [dim] if it has one."""
    if isinstance(found, Embedded):
        numbers: tuple[object, ...] = (found.width, found.height, found.taken_at or 0)
        if not all(isinstance(number, int) and abs(number) <= LARGEST for number in numbers):
            raise _fault(engine, "embed", f"{short(found)}: sizes and times are whole numbers")
        vector: object = found.vector
        _vectors(engine, "embed", vector[None] if isinstance(vector, np.ndarray) else vector, 1, dim)
        if found.features is not None:
            _of_kind(engine, "embed", found.features, bytes)
        return found
    if isinstance(found, Refused):
        return found
    raise _fault(engine, "embed", f"{short(found)} instead of an Embedded or a Refused")


def require_batch_size(part: ImageEngine | RecallEncoder) -> int:
    """The batch size of a part. Raises ModelError unless it is at least 1."""
    return _whole(part, "batch_size", part.batch_size, least=1)


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of pictures that a checked judge encoded: how many, and as it made them."""

    number: int
    pictures: Pictures


class CheckedPart:
    """An encoder, a judge, or both: asks the part only for the role that it plays. Raises ModelError."""

    def __init__(self, part: Any, *, makes_vectors: bool) -> None:
        self._part, self._makes_vectors = part, makes_vectors
        self._length: int | None = None  # of the vectors of a judge, once it has made some

    @property
    def preprocessing(self) -> Preprocessing:
        return _of_kind(self._part, "preprocessing", self._part.preprocessing, Preprocessing)

    def truncates(self, text: str) -> bool:
        return bool(self._part.truncates(text))

    # RecallEncoder

    @property
    def fingerprint(self) -> Fingerprint:
        fingerprint = _of_kind(self._part, "fingerprint", self._part.fingerprint, Fingerprint)
        _whole(self._part, "fingerprint.dim", fingerprint.dim, least=1)
        return fingerprint

    @property
    def batch_size(self) -> int:
        return require_batch_size(self._part)

    def embed_images(self, pixels: Pixels) -> Vectors:
        vectors = self._part.embed_images(pixels)
        return _vectors(self._part, "embed_images", vectors, len(pixels), self.fingerprint.dim)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        vectors = self._part.embed_texts(texts)
        return _vectors(self._part, "embed_texts", vectors, len(texts), self.fingerprint.dim)

    # Judge

    @property
    def name(self) -> str:
        return _of_kind(self._part, "name", self._part.name, str)

    @property
    def heads(self) -> frozenset[Head]:
        heads = self._part.heads
        if not isinstance(heads, AbstractSet) or not all(isinstance(head, Head) for head in heads):
            raise _fault(self._part, "heads", f"{short(heads)} instead of a set of Head")
        return frozenset(heads)

    @property
    def default_depth(self) -> int:
        return _whole(self._part, "default_depth", self._part.default_depth, least=0)

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        return self._texts("encode_texts", self._part.encode_texts(texts), len(texts))

    def join_texts(self, batches: Sequence[Texts]) -> Texts:
        number = sum(len(batch.masks) for batch in batches)
        return self._texts("join_texts", self._part.join_texts(batches), number)

    def _texts(self, member: str, value: object, number: int) -> Texts:
        texts = _of_kind(self._part, member, value, Texts)
        self._require_vectors(member, texts.vectors, number)
        if len(texts.masks) != number:
            raise _fault(self._part, member, f"masks of {len(texts.masks)} texts instead of {number}")
        return texts

    def encode_images(self, pixels: Pixels) -> Pictures:
        encoded = _of_kind(self._part, "encode_images", self._part.encode_images(pixels), Pictures)
        self._require_vectors("encode_images", encoded.vectors, len(pixels))
        return Pictures(encoded.vectors, _Features(len(pixels), encoded))

    def _require_vectors(self, member: str, vectors: object, rows: int) -> None:
        if vectors is not None:
            length = self.fingerprint.dim if self._makes_vectors else self._length
            self._length = _vectors(self._part, member, vectors, rows, length).shape[1]

    @property
    def features_id(self) -> str:
        name = _of_kind(self._part, "features_id", self._part.features_id, str)
        if not _FEATURES_ID.fullmatch(name):
            problem = f"{short(name)} instead of at most 150 letters (a to z), digits, '_', '.' and '-'"
            raise _fault(self._part, "features_id", problem)
        return name

    def pack(self, images: Pictures) -> list[bytes]:
        packed, number = self._part.pack(images.features.pictures), images.features.number
        if not isinstance(packed, list) or not all(isinstance(one, bytes) and one for one in packed):
            raise _fault(self._part, "pack", f"{short(packed)} instead of a list of bytes")
        if len(packed) != number:
            raise _fault(self._part, "pack", f"features of {len(packed)} pictures instead of {number}")
        return packed

    def unpack(self, packed: bytes) -> Pictures:
        return Pictures(None, _Features(1, _of_kind(self._part, "unpack", self._part.unpack(packed), Pictures)))

    def join(self, batches: Sequence[Pictures]) -> Pictures:
        joined = self._part.join([batch.features.pictures for batch in batches])
        number = sum(batch.features.number for batch in batches)
        return Pictures(None, _Features(number, _of_kind(self._part, "join", joined, Pictures)))

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logits = self._part.match(texts, images.features.pictures, pairs)
        return _finite(self._part, "match", logits, (len(pairs), 2), "logits")

    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        predicted = self._part.predict_masked(text, images.features.pictures)
        predicted = _of_kind(self._part, "predict_masked", predicted, MaskedPrediction)
        number, masks = images.features.number, sum(len(some) for some in text.masks)
        words = _shaped(
            self._part, "predict_masked", predicted.log_probabilities, (number, masks, None), "log-probabilities"
        )
        if not (words <= _LENGTH_TOLERANCE).all():  # NaN is not; -inf may be: a word that never stands there
            raise _fault(self._part, "predict_masked", "log-probabilities that are above 0 or no numbers")
        itm = predicted.itm
        if itm is not None:
            itm = _finite(self._part, "predict_masked", itm, (number, 2), "logits")
        return MaskedPrediction(itm, words)

    def word(self, token: int) -> str:
        return _of_kind(self._part, "word", self._part.word(token), str)


def _vectors(part: object, member: str, value: object, rows: int, length: int | None) -> Vectors:
    vectors = _shaped(part, member, value, (rows, length), "unit vectors")
    lengths = np.sqrt(np.einsum("be,be->b", vectors, vectors))
    wrong = ~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE)  # also where a number is infinite or none
    if wrong.any():
        raise _fault(part, member, f"a vector of length {lengths[wrong][0]:.4g} instead of 1")
    return vectors


def _finite(
    part: object, member: str, value: object, shape: tuple[int | None, ...], what: str
) -> npt.NDArray[np.float32]:
    array = _shaped(part, member, value, shape, what)
    if not np.isfinite(array).all():
        raise _fault(part, member, f"{what} that are infinite or no numbers")
    return array


def _shaped(
    part: object, member: str, value: object, shape: tuple[int | None, ...], what: str
) -> npt.NDArray[np.float32]:
    """The value as float32. None in `shape` stands for any length but 0."""
    if not isinstance(value, np.ndarray):
        raise _fault(part, member, f"{short(value)} instead of an array of {what}")
    fits = value.ndim == len(shape) and all(
        have == want or (want is None and have) for have, want in zip(value.shape, shape, strict=True)
    )
    if not fits or value.dtype.kind != "f":
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise _fault(part, member, f"{value.dtype} {list(value.shape)} instead of {what}, float32 [{wanted}]")
    if value.dtype == np.float32:
        return value
    with np.errstate(over="ignore"):  # the caller rejects infinite values
        return value.astype(np.float32)


def _of_kind(part: object, member: str, value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise _fault(part, member, f"{short(value)} instead of a {kind.__name__}")
    return value


def _whole(part: object, member: str, value: object, *, least: int) -> int:
    try:
        return whole(member, value, least=least)
    except UsageError as error:
        raise _fault(part, member, f"{short(value)} instead of a whole number, at least {least}") from error


def _fault(part: object, member: str, problem: str) -> ModelError:
    return ModelError(f"{type(part).__name__}.{member}: {problem}: mend that part of the model")
