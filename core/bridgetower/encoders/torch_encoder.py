"""Run the network in this process with PyTorch, in batches, from NumPy to NumPy.

`TorchEncoder` has both roles of `bridgetower.encoders.protocol`, which defines the shapes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.encoders import packing, weight_cache
from bridgetower.encoders.protocol import MaskedPrediction, Pictures, Pixels, Texts, Vectors
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.threads import compute_with_one, one_thread
from bridgetower.errors import ModelError, UsageError
from bridgetower.network.bridgetower import ImageFeatures, TextFeatures
from bridgetower.pictures.preprocess import PREPROCESSING_VERSION, Preprocessing
from bridgetower.records import DECODING_VERSION, INT8, Fingerprint, Head, Say, quiet, require_heads
from bridgetower.resources import shortages

# Bytes of the widest tensor of a layer, which limit the pictures or pairs of one pass. On a CPU this tensor should stay
# in the cache of the processor between operations, and below 32 MB, because from there on glibc maps new memory for
# each tensor, which the kernel has to zero. A GPU is fast only with large tensors.
_WIDEST_BYTES = {"cpu": 16 * 1024**2, "cuda": 1024**3, "mps": 256 * 1024**2}


_FEATURES_VERSION = 2  # of the format of packed features


_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


def _runs_network(
    method: Callable[Concatenate["TorchEncoder", _Params], _Result],
) -> Callable[Concatenate["TorchEncoder", _Params], _Result]:
    """Make a method run without gradients, and with one thread if the network is narrow.

    It raises ResourceError if memory runs out.
    """

    @wraps(method)
    def computed(encoder: "TorchEncoder", /, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        with shortages(), torch.inference_mode(), encoder._thread_limit():
            return method(encoder, *args, **kwargs)

    return computed


class TorchEncoder:
    """The network in this process, on one device."""

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, *, say: Say = quiet) -> None:
        """Load the weights; `say` gets a line before a step that takes seconds. Raises ModelError."""
        self._checkpoint = checkpoint
        self.runtime = runtime
        self._tokenizer = checkpoint.tokenizer()
        self._device = torch.device(runtime.device)
        self._dtype = weight_cache.DTYPES[runtime.precision]
        self._model = weight_cache.load(checkpoint, runtime.precision, runtime.device, say=say)
        self._is_read_ahead = runtime.device != "cpu"  # only the CPU memory-maps its weights

    def __repr__(self) -> str:
        return f"<TorchEncoder {self.name!r}, {self.runtime.precision} on {self.runtime.device}>"

    @property
    def name(self) -> str:
        return self._checkpoint.name

    @property
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

    def _thread_limit(self, pictures: int = 0) -> AbstractContextManager[None]:
        narrow = self.runtime.device == "cpu" and compute_with_one(self._checkpoint.config, pictures)
        return one_thread() if narrow else nullcontext()

    def embed_images(self, pixels: Pixels) -> Vectors:
        with shortages(), torch.inference_mode(), self._thread_limit(len(pixels)):
            return self._unit(torch.cat([self._model.embed_image(chunk) for chunk in self._pixel_chunks(pixels)]))

    @_runs_network
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        return self._unit(self._model.embed_text(*self._tokens(texts)))

    @_runs_network
    def encode_texts(self, texts: Sequence[str]) -> Texts:
        if not self._is_read_ahead:  # pictures follow texts, so read their weights meanwhile
            weight_cache.read_ahead(self._checkpoint, self.runtime.precision)
            self._is_read_ahead = True
        features = self._model.encode_text(*self._tokens(texts))
        masks = tuple(self._tokenizer.encode(text).masks for text in texts)
        return Texts(None if features.itc is None else self._unit(features.itc), masks, features)

    @_runs_network
    def encode_images(self, pixels: Pixels) -> Pictures:
        features = ImageFeatures.join([self._model.encode_image(chunk) for chunk in self._pixel_chunks(pixels)])
        return Pictures(None if features.itc is None else self._unit(features.itc), features)

    @property
    def features_id(self) -> str:
        made_by = self._checkpoint
        digests = f"{made_by.weights_sha256[:16]}-{made_by.config_sha256[:16]}"
        recipe = f"{made_by.preprocessing.name}{PREPROCESSING_VERSION}d{DECODING_VERSION}"
        return f"{digests}-{recipe}-{self.runtime.precision}-{_FEATURES_VERSION}"

    @_runs_network
    def pack(self, images: Pictures) -> list[bytes]:
        layers: tuple[Tensor, ...] = images.features.layers
        bits = torch.int16 if self._dtype == torch.bfloat16 else torch.int32
        pictures = (torch.stack(picture).cpu() for picture in zip(*layers, strict=True))  # [n_cross, N, D]
        return [packing.pack(picture.view(bits).numpy().view(f"u{bits.itemsize}")) for picture in pictures]

    @_runs_network
    def unpack(self, packed: bytes) -> Pictures:
        config = self._checkpoint.config
        shape = config.n_cross, config.vision.num_tokens, config.hidden_size
        unpacked = torch.from_numpy(packing.unpack(packed, shape, self._dtype.itemsize)).view(self._dtype)
        # A copy, as memory of PyTorch is aligned, on which the last bits of a product may depend.
        layers = unpacked.to(self._device, copy=True)[:, None].unbind()  # n_cross x [1, N, D]
        return Pictures(None, ImageFeatures(layers, self._model.image_alone(layers[0]), None))

    @_runs_network
    def join(self, batches: Sequence[Pictures]) -> Pictures:
        return Pictures(None, ImageFeatures.join([replace(batch.features, itc=None) for batch in batches]))

    @_runs_network
    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        require_heads(self.heads, Head.ITM)
        if not len(pairs):
            return np.zeros((0, 2), np.float32)
        rows = torch.from_numpy(pairs).to(self._device)
        logits = [
            self._model.itm(self._model.fuse(*chunk, keep_text=1, keep_image=1))
            for chunk in self._pair_chunks(texts.features, images.features, rows)
        ]
        return self._finite(torch.cat(logits))

    @_runs_network
    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        require_heads(self.heads, Head.MLM)
        [where] = text.masks
        if not where:
            raise UsageError(
                'no <mask> in what the network reads of the text: write it where a word is wanted, as in "a <mask> '
                'looking out"'
            )
        masks = torch.tensor(where, device=self._device)
        rows = torch.tensor([[0, row] for row in range(len(images.features.alone))], device=self._device)
        itm, words = [], []
        for chunk in self._pair_chunks(text.features, images.features, rows):
            fused = self._model.fuse(*chunk, keep_image=1)
            if Head.ITM in self.heads:
                itm.append(self._model.itm(fused))
            at_masks = replace(fused, text=fused.text[:, masks])
            words.append(self._model.mlm(at_masks).float().log_softmax(-1))
        return MaskedPrediction(self._finite(torch.cat(itm)) if itm else None, self._finite(torch.cat(words)))

    def word(self, token: int) -> str:
        return "" if self._tokenizer.is_special(token) else self._tokenizer.word(token)

    def truncates(self, text: str) -> bool:
        return self._tokenizer.encode(text).truncated

    def _unit(self, vectors: Tensor) -> Vectors:
        """Normalise vectors in fp32, as bf16 rounds. Raises ModelError for vectors that are zero or not finite."""
        unit = _numpy(torch.nn.functional.normalize(vectors.float(), dim=-1))
        if not np.allclose(np.linalg.norm(unit, axis=-1), 1, atol=1e-3):  # also true for NaN
            raise self._damaged_weights("vectors that are zero or no numbers")
        return unit

    def _finite(self, scores: Tensor) -> npt.NDArray[np.float32]:
        """Return scores as fp32. Raises ModelError for NaN and infinity, which cannot be ranked."""
        array = _numpy(scores)
        if not np.isfinite(array).all():
            raise self._damaged_weights("scores that are no numbers or infinite")
        return array

    def _damaged_weights(self, what: str) -> ModelError:
        weight_cache.forget(self._checkpoint, self.runtime.precision, self.runtime.device)  # it may be damaged
        return ModelError(
            f"{self._checkpoint.name}: this model computes {what}, as with damaged weights; fetch or convert it again, "
            "or use another"
        )

    def _pixel_chunks(self, pixels: Pixels) -> Iterator[Tensor]:
        """Split pixels into chunks [B', 3, H, W] of the best size for the vision tower, on the device."""
        vision = self._checkpoint.config.vision
        step = self._chunk_size(vision.num_tokens, 4 * vision.hidden_size)
        if (
            self.runtime.precision == INT8
        ):  # rounds the pictures of a chunk alike, so features would depend on the batch
            step = 1
        for start in range(0, len(pixels), step):
            chunk = torch.from_numpy(pixels[start : start + step])
            if self.runtime.device == "cuda":  # copied from pinned memory without waiting
                yield chunk.pin_memory().to(self._device, non_blocking=True).to(self._dtype)
            else:
                yield chunk.to(self._device, self._dtype)

    def _pair_chunks(
        self, text: TextFeatures, image: ImageFeatures, pairs: Tensor
    ) -> Iterator[tuple[TextFeatures, ImageFeatures]]:
        """Split pairs int64 [P, 2] = (row of text, row of image) into chunks for the cross-modal encoder."""
        config = self._checkpoint.config
        step = self._chunk_size(config.vision.num_tokens, config.text.intermediate_size)
        for start in range(0, len(pairs), step):
            chunk = pairs[start : start + step]
            yield text.select(chunk[:, 0]), image.select(chunk[:, 1])

    def _chunk_size(self, tokens: int, width: int) -> int:
        return max(1, _WIDEST_BYTES[self.runtime.device] // (tokens * width * self._dtype.itemsize))

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, mask = self._tokenizer.encode_batch(texts)
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)


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


def _numpy(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
