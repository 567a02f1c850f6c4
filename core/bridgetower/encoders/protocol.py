"""The interface between retrieval and a model, in NumPy. This module imports no implementation.

Two roles, which one object may have:

    RecallEncoder   makes the vectors of pictures and texts; its fingerprint binds an index to it
    Judge           computes the match of a text and a picture, and predicts masked words; any judge may be used with an
                    index, and cached features of pictures belong to the judge that made them

`bridgetower.encoders.torch_encoder.TorchEncoder` has both roles, in this process. Other implementations (a pool of
machines, a service, a test double) follow the same protocols; `bridgetower.encoders.checked` checks what they return.
None of them sees an index, and only an `ImageEngine` sees paths: another machine may read the same file itself.

Shapes: B pictures, Q texts, P pairs, M masks of a text, V words of the vocabulary, E length of an ITC vector.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import FileContent, Fingerprint, Head, Refused

Pixels = npt.NDArray[np.float32]  # [B, 3, H, W], preprocessed
Vectors = npt.NDArray[np.float32]  # [B, E], unit length


@dataclass(frozen=True, slots=True)
class Texts:
    """Q texts, encoded once for any number of pictures. Made by `Judge.encode_texts`."""

    vectors: Vectors | None  # [Q, E]; None without an ITC head
    masks: tuple[tuple[int, ...], ...]  # for each text, the token positions of `<mask>`
    features: Any  # for the cross-modal encoder; their type is private to the judge that made them


@dataclass(frozen=True, slots=True)
class Pictures:
    """B pictures, encoded once for any number of texts. Made by `Judge.encode_images`."""

    vectors: Vectors | None  # [B, E]; None without an ITC head
    features: Any  # for the cross-modal encoder; their type is private to the judge that made them


@dataclass(frozen=True, slots=True)
class MaskedPrediction:
    """The predictions for one masked text, by each of B pictures."""

    itm: npt.NDArray[np.float32] | None  # [B, 2] ITM logits of the masked text; None without an ITM head
    log_probabilities: npt.NDArray[np.float32]  # [B, M, V] of the words at each mask


class RecallEncoder(Protocol):
    """Makes vectors that can be compared with each other. Methods raise ModelError for a zero or infinite vector."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of its vectors; an index holds vectors of one fingerprint only."""
        ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def batch_size(self) -> int:
        """The best number of pictures to encode together, at least 1."""
        ...

    def embed_images(self, pixels: Pixels) -> Vectors:
        """Embed pixels float32 [B, 3, H, W], B >= 1, -> unit vectors [B, E]."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed Q texts, Q >= 1, -> unit vectors [Q, E]. Raises UsageError on an empty text."""
        ...

    def truncates(self, text: str) -> bool:
        """Return whether `text` is longer than the network reads."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture with its vector."""

    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970, local time of the camera
    vector: npt.NDArray[np.float32]  # [E], unit length
    features: bytes | None = None  # packed by the judge that is one with the encoder, where they are wanted
    worker: str | None = None  # the name of the worker that made the vector, if the engine has several


class ImageEngine(Protocol):
    """Turns the contents of picture files into vectors, in this process or on other machines."""

    @property
    def batch_size(self) -> int:
        """The best number of pictures to commit together, at least 1."""
        ...

    def embed(self, contents: Iterable[FileContent], *, max_pixels: int | None = None) -> Iterable[Embedded | Refused]:
        """Yield one result for each content, in order. Pictures of more than `max_pixels` are refused.

        The calling thread iterates over `contents`, as far ahead of the results as the engine needs: several batches
        may be in progress, and all of them are in memory. The iterator is closed at the end, if it has a `close`.
        Raises ProcessError, ModelError.
        """
        ...


class Judge(Protocol):
    """Verifies pairs and predicts masked words. Methods raise ModelError if a head is absent or a score not finite."""

    @property
    def name(self) -> str:
        """The name of the model, for people."""
        ...

    @property
    def heads(self) -> frozenset[Head]: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def default_depth(self) -> int:
        """The number of candidates to verify unless the caller chooses one."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        """Compute vectors and features of Q texts. Raises UsageError on an empty text."""
        ...

    def join_texts(self, batches: Sequence[Texts]) -> Texts:
        """Return the texts of at least one batch as one batch. Threads may call this."""
        ...

    def encode_images(self, pixels: Pixels) -> Pictures:
        """Compute vectors and features of pixels float32 [B, 3, H, W], B >= 1."""
        ...

    @property
    def features_id(self) -> str:
        """An identifier of everything but the picture that packed features depend on.

        At most 150 letters (a to z), digits, "_", "." and "-".
        """
        ...

    def pack(self, images: Pictures) -> list[bytes]:
        """Return the features of each picture as bytes, without loss, for the feature cache."""
        ...

    def unpack(self, packed: bytes) -> Pictures:
        """Return one picture, without a vector, from features that were packed under the same `features_id`.

        Every score of it is the same as before it was packed. Threads may call this. Raises ValueError if these bytes
        are no features of this judge.
        """
        ...

    def join(self, batches: Sequence[Pictures]) -> Pictures:
        """Return the pictures of at least one batch, encoded or unpacked, as one batch without vectors."""
        ...

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return finite ITM logits [P, 2] of pairs [P, 2] = (row of `texts`, row of `images`); column 1 is "true"."""
        ...

    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        """Predict the words at the masks of a single text, by each picture; with ITM logits if there is an ITM head.

        Raises UsageError if the text has no `<mask>`.
        """
        ...

    def word(self, token: int) -> str:
        """Return the word of a column of `MaskedPrediction.log_probabilities`; "" for special tokens and bare space."""
        ...

    def truncates(self, text: str) -> bool:
        """Return whether `text` is longer than the network reads."""
        ...


def match_probability(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probability [...] in [0, 1] that the text is true of the picture, from ITM logits [..., 2]."""
    margin = logits[..., 1] - logits[..., 0]
    probability = 0.5 + 0.5 * np.tanh(margin / 2)  # softmax over two logits, without overflow
    return probability.astype(np.float32)
