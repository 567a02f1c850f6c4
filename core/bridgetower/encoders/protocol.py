"""The seam for computing: what searches and indexes ask of a model, in NumPy. No engine is imported here.

Two roles, which one object may play:

    RecallEncoder   makes the vectors of pictures and texts; it is the fingerprint of an index
    Judge           says how probably a text is true of a picture, and which word is masked; it is free to choose, and
                    the features that are kept of pictures belong to it

`bridgetower.encoders.torch_encoder.TorchEncoder` plays both in this process. Others (a pool of machines, a service, a
double in a test) stand behind the same protocols. None of them sees a path or an index. `bridgetower.encoders.checked`
holds what they return to it.

Shapes: B pictures, Q texts, P pairs, M masks of a text, V words of the vocabulary, E length of an ITC vector.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Fingerprint, Head, Refused

Pixels = npt.NDArray[np.float32]  # [B, 3, H, W], preprocessed
Vectors = npt.NDArray[np.float32]  # [B, E], unit length


@dataclass(frozen=True, slots=True)
class Texts:
    """Q texts, encoded once for any number of pictures. Made by `Judge.encode_texts`."""

    vectors: Vectors | None  # [Q, E] (ITC); None without that head
    masks: tuple[tuple[int, ...], ...]  # for each text, the tokens at which `<mask>` stands
    features: Any  # for the cross-modal encoder; only the judge that made them looks inside


@dataclass(frozen=True, slots=True)
class Pictures:
    """B pictures, encoded once for any number of texts. Made by `Judge.encode_images`."""

    vectors: Vectors | None  # [B, E] (ITC); None without that head
    features: Any  # for the cross-modal encoder; only the judge that made them looks inside


@dataclass(frozen=True, slots=True)
class MaskedPrediction:
    """The answers of B pictures about one masked text."""

    itm: npt.NDArray[np.float32] | None  # [B, 2] matching logits of the masked text; None without an ITM head
    log_probabilities: npt.NDArray[np.float32]  # [B, M, V] of the words at each mask


class RecallEncoder(Protocol):
    """Makes vectors that can be compared with each other. Methods raise ModelError where its weights give none."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The identity that an index of its vectors is bound to."""
        ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def batch_size(self) -> int:
        """How many pictures are worth encoding together, at least 1."""
        ...

    def embed_images(self, pixels: Pixels) -> Vectors:
        """float32 [B, 3, H, W], B >= 1, -> unit vectors [B, E]."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Q texts, Q >= 1, -> unit vectors [Q, E]. Raises UsageError on an empty text."""
        ...

    def truncates(self, text: str) -> bool:
        """Whether the end of `text` is beyond what the network reads."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture that has its vector."""

    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken
    vector: npt.NDArray[np.float32]  # [E], unit length


class ImageEngine(Protocol):
    """Turns the contents of picture files into vectors: in this process, or on other machines."""

    @property
    def batch_size(self) -> int:
        """How many pictures are worth committing together, at least 1."""
        ...

    def embed(self, contents: Iterable[bytes], *, max_pixels: int | None = None) -> Iterable[Embedded | Refused]:
        """One result for each content, in order. Pictures of more than `max_pixels` are refused.

        `contents` are asked for in the calling thread, as many ahead of what was given back as the engine has use for:
        several batches may be under way, and all of them are in memory. The iterator is closed at the end, if it has a
        `close`. Raises ProcessError, ModelError.
        """
        ...


class Judge(Protocol):
    """Verifies and fills. Methods raise ModelError for a head that is absent, and for weights that give no numbers."""

    @property
    def name(self) -> str:
        """The model, as a person knows it."""
        ...

    @property
    def heads(self) -> frozenset[Head]: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def default_depth(self) -> int:
        """How many candidates are worth verifying where nobody says how many."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        """All that can be said of Q texts before they meet a picture. Raises UsageError on an empty text."""
        ...

    def encode_images(self, pixels: Pixels) -> Pictures:
        """All that can be said of pictures, at least one, before they meet a text."""
        ...

    @property
    def features_id(self) -> str:
        """An identifier of all that the bytes of `pack` depend on besides the picture.

        At most 150 letters (a to z), digits, "_", "." and "-".
        """
        ...

    @property
    def features_bytes(self) -> int:
        """How many bytes `pack` gives for each picture, at least 1."""
        ...

    def pack(self, images: Pictures) -> list[bytes]:
        """The features of each picture as bytes, to be kept."""
        ...

    def unpack(self, stored: Sequence[bytes]) -> Pictures:
        """Pictures out of what `pack` gave under the same `features_id`, without their vectors."""
        ...

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Finite matching logits [P, 2] of pairs [P, 2] = (row of `texts`, row of `images`); column 1 says "true"."""
        ...

    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        """Predict the words at the masks of the one text, by each picture (MLM; ITM if it is there).

        Raises UsageError where it has no `<mask>`.
        """
        ...

    def word(self, token: int) -> str:
        """The text of a column of `MaskedPrediction.log_probabilities`; "" for special tokens and bare space."""
        ...

    def truncates(self, text: str) -> bool:
        """Whether the end of `text` is beyond what the network reads."""
        ...


def match_probability(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """ITM logits [..., 2] -> the probability [...] in [0, 1] that the text is true of the picture."""
    margin = logits[..., 1] - logits[..., 0]
    probability = 0.5 + 0.5 * np.tanh(margin / 2)  # softmax over two, safe for any logit
    return probability.astype(np.float32)
