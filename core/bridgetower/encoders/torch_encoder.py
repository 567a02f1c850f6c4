"""The model of a checkpoint in this process: texts in NumPy, pictures and pairs in PyTorch.

`TorchEncoder` has both roles of `bridgetower.encoders.protocol`, which defines the shapes. A text becomes a vector
without PyTorch, which is imported when a picture is encoded or a pair matched.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.encoders.protocol import MaskedPrediction, Pictures, Pixels, Texts, Vectors
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.text_tower import Array, TextTower, damaged_weights, unit
from bridgetower.pictures.preprocess import PREPROCESSING_VERSION, Preprocessing
from bridgetower.records import DECODING_VERSION, INT8, TEXTS_AHEAD, Fingerprint, Head, Say, quiet, require_heads
from bridgetower.resources import shortages

if TYPE_CHECKING:
    from bridgetower.encoders.torch_network import TorchNetwork

_FEATURES_VERSION = 2  # of the format of packed features, and of the numbers in them
_RECENT = 2 * TEXTS_AHEAD  # texts whose hidden states are kept: beside those ahead, those of the query
_TEXTS_AT_ONCE = 256  # whose hidden states are in memory together: 400 kB a text in the large model


class TorchEncoder:
    """The network in this process, on one device. Its weights are read when they are first needed."""

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime | Callable[[], Runtime], *, say: Say = quiet) -> None:
        """Read the tokenizer; `runtime` may be chosen later, as that imports PyTorch. `say` gets a line before a step
        that takes seconds. Raises ModelError."""
        self._checkpoint, self._runtime, self._say = checkpoint, runtime, say
        self._tokenizer = checkpoint.tokenizer()
        self._text_tower = TextTower(checkpoint)
        self._lock = threading.RLock()  # held while a thread reads the weights
        self._recent: dict[str, list[Array]] = {}

    def __repr__(self) -> str:
        chosen = self.__dict__.get("runtime", self._runtime)  # choosing it imports PyTorch
        on = f", {chosen.precision} on {chosen.device}" if isinstance(chosen, Runtime) else ""
        return f"<TorchEncoder {self.name!r}{on}>"

    @cached_property
    def runtime(self) -> Runtime:
        """The device and the precision."""
        return self._runtime if isinstance(self._runtime, Runtime) else self._runtime()

    def load(self) -> "TorchNetwork":
        """Return the network; the first call reads its weights. Raises ModelError."""
        with self._lock:
            return self._network

    @cached_property
    def _network(self) -> "TorchNetwork":
        from bridgetower.encoders.torch_network import TorchNetwork

        return TorchNetwork(self._checkpoint, self.runtime, say=self._say)

    @property
    def name(self) -> str:
        return self._checkpoint.name

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint_of(self._checkpoint, self.runtime.precision)

    @property
    def heads(self) -> frozenset[Head]:
        return self._checkpoint.heads

    @property
    def preprocessing(self) -> Preprocessing:
        return self._checkpoint.preprocessing

    @property
    def batch_size(self) -> int:
        return self.runtime.batch_size

    @property
    def default_depth(self) -> int:
        return self.runtime.default_depth

    # Texts

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        require_heads(self.heads, Head.ITC)
        with shortages():
            parts = (texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE))
            return np.concatenate([self._text_vectors(self._hidden(part)) for part in parts])

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        network = self.load()
        with shortages():
            if not self._recent.keys() >= set(texts):  # the text tower begins; else pictures go on
                network.rest()
            hidden = self._hidden(texts)
            self._text_tower.let_go()  # pictures follow
            vectors = self._text_vectors(hidden) if Head.ITC in self.heads else None
        masks = tuple(self._tokenizer.encode(text).masks for text in texts)
        return Texts(vectors, masks, tuple(network.text_features(layers) for layers in hidden))

    def join_texts(self, batches: Sequence[Texts]) -> Texts:
        vectors = [batch.vectors for batch in batches if batch.vectors is not None]
        masks = tuple(chain.from_iterable(batch.masks for batch in batches))
        features = tuple(chain.from_iterable(batch.features for batch in batches))
        return Texts(np.concatenate(vectors) if vectors else None, masks, features)

    def truncates(self, text: str) -> bool:
        return self._tokenizer.encode(text).truncated

    def word(self, token: int) -> str:
        return "" if self._tokenizer.is_special(token) else self._tokenizer.word(token)

    def _text_vectors(self, hidden: Sequence[Sequence[Array]]) -> Vectors:
        vectors = np.stack([self._text_tower.vector(layers[-1]) for layers in hidden])
        return unit(vectors, lambda what: damaged_weights(self._checkpoint, what))

    def _hidden(self, texts: Sequence[str]) -> list[list[Array]]:
        """Return the outputs of the last layers of the text tower for each text, which runs alone in its own thread."""
        ids = {text: np.array(self._tokenizer.encode(text).ids) for text in texts}
        recent = self._recent  # another thread may replace it
        known = {text: recent[text] for text in ids if text in recent}
        new = [text for text in ids if text not in known]
        if len(new) > 1:
            with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as threads:
                known |= zip(new, threads.map(lambda text: self._text_tower.hidden(ids[text]), new), strict=True)
        elif new:
            known[new[0]] = self._text_tower.hidden(ids[new[0]])
        older = {text: layers for text, layers in recent.items() if text not in known}
        self._recent = dict(list((older | known).items())[-_RECENT:])
        return [known[text] for text in texts]

    # Pictures and pairs

    def _for_pictures(self) -> "TorchNetwork":
        """Return the network; the memory of the text tower is free for it."""
        self._text_tower.let_go()
        return self.load()

    def embed_images(self, pixels: Pixels) -> Vectors:
        return self._for_pictures().embed_images(pixels)

    def encode_images(self, pixels: Pixels) -> Pictures:
        return self._for_pictures().encode_images(pixels)

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        require_heads(self.heads, Head.ITM)
        return self._for_pictures().match(texts, images, pairs)

    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        require_heads(self.heads, Head.MLM)
        return self._for_pictures().predict_masked(text, images)

    @property
    def features_id(self) -> str:
        made_by = self._checkpoint
        digests = f"{made_by.weights_sha256[:16]}-{made_by.config_sha256[:16]}"
        recipe = f"{made_by.preprocessing.name}{PREPROCESSING_VERSION}d{DECODING_VERSION}"
        return f"{digests}-{recipe}-{self.runtime.precision}-{_FEATURES_VERSION}"

    def pack(self, images: Pictures) -> list[bytes]:
        return self.load().pack(images)

    def unpack(self, packed: bytes) -> Pictures:
        return self.load().unpack(packed)

    def join(self, batches: Sequence[Pictures]) -> Pictures:
        return self.load().join(batches)


def fingerprint_of(checkpoint: Checkpoint, precision: str) -> Fingerprint:
    """Return the fingerprint of the vectors of a checkpoint; loads no weights. Raises ModelError without an ITC head.

    fp32 and bf16 are one family: their vectors agree to a cosine of 0.999 and may share an index. int8 is a family of
    its own, because its vectors agree with the others only to 0.99.
    """
    require_heads(checkpoint.heads, Head.ITC)
    assert checkpoint.config.contrastive_hidden_size is not None
    return Fingerprint(
        model=checkpoint.name,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        config_sha256=checkpoint.config_sha256,
        preprocessing=checkpoint.preprocessing.name,
        preprocessing_version=PREPROCESSING_VERSION,
        precision_family=INT8 if precision == INT8 else "float",
        dim=checkpoint.config.contrastive_hidden_size,
        tokenizer_sha256=checkpoint.tokenizer_sha256,
    )
