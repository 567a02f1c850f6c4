"""Run the network in this process with PyTorch, in batches, from NumPy to NumPy.

The numbers of a picture, and of a pair, do not depend on what else is in the batch:

- Pictures and pairs of one text share a pass. Each row of a product has its own bits, see `bridgetower.network.layers`.
- Texts of different lengths never share a pass, so nothing is padded.
- In int8 each picture has its own scale, see `bridgetower.network.int8`.
- On other devices than the CPU every pass has the same number of pictures or pairs.

`bridgetower.encoders.protocol` defines the shapes.
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
from bridgetower.encoders.text_tower import Array, damaged_weights, unit
from bridgetower.encoders.threads import compute_with_one, one_thread
from bridgetower.errors import ModelError, UsageError
from bridgetower.network.features import ImageFeatures, TextFeatures
from bridgetower.records import INT8, Head, Say, quiet
from bridgetower.resources import shortages

# Bytes of the widest tensor of a layer, which limit the pictures or pairs of one pass. On a CPU this tensor should stay
# in the cache of the processor between operations, and below 32 MB, because from there on glibc maps new memory for
# each tensor, which the kernel has to zero.
_WIDEST_BYTES = 16 * 1024**2
_WIDEST_BYTES_INT8 = 4 * 1024**2  # in int8 pictures of a pass are multiplied one by one, so more only leave the cache
_PASS = 4  # pictures or pairs of each pass on other devices; a rest is filled up

_VISION = ("vision_tower.", "image_transforms.")
_CROSS_MODAL = ("text_stream.", "image_stream.")


_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


def _runs_network(
    method: Callable[Concatenate["TorchNetwork", _Params], _Result],
) -> Callable[Concatenate["TorchNetwork", _Params], _Result]:
    """Make a method run without gradients, and with one thread if the network is narrow.

    It raises ResourceError if memory runs out.
    """

    @wraps(method)
    def computed(network: "TorchNetwork", /, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        with shortages(), torch.inference_mode(), network._thread_limit():
            return method(network, *args, **kwargs)

    return computed


class TorchNetwork:
    """The network of a checkpoint on one device, all but the text tower."""

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, *, say: Say = quiet) -> None:
        """Load the weights; `say` gets a line before a step that takes seconds. Raises ModelError."""
        self._checkpoint, self._runtime = checkpoint, runtime
        self._device = torch.device(runtime.device)
        self._fixed_passes = runtime.device != "cpu"  # GPUs choose their kernels by the shape of a pass
        self._dtype = weight_cache.DTYPES[runtime.precision]
        if runtime.device == "cpu":  # the other devices copy the weights
            weight_cache.read_ahead(checkpoint, runtime.precision)
        self._weights = weight_cache.load(checkpoint, runtime.precision, runtime.device, say=say)
        self._model = self._weights.network
        self._part: tuple[str, ...] = ()  # the sections of the weights that were used last

    def _thread_limit(self, pictures: int = 0) -> AbstractContextManager[None]:
        narrow = self._runtime.device == "cpu" and compute_with_one(self._checkpoint.config, pictures)
        return one_thread() if narrow else nullcontext()

    def embed_images(self, pixels: Pixels) -> Vectors:
        """Embed pixels [B, 3, H, W] -> unit vectors [B, E]."""
        with shortages(), torch.inference_mode(), self._thread_limit(len(pixels)):
            self._begin(_VISION)
            vectors = [self._model.embed_image(chunk)[:number] for chunk, number in self._pixel_passes(pixels)]
            return self._unit(torch.cat(vectors))

    def _begin(self, part: tuple[str, ...]) -> None:
        """Free the memory of the other part of the weights when this one begins."""
        if self._part not in ((), part):
            self._weights.let_go(*self._part)
        self._part = part

    def rest(self) -> None:
        """Free the memory of the part of the weights that was used last."""
        self._begin(())

    @_runs_network
    def encode_images(self, pixels: Pixels) -> Pictures:
        """Compute vectors and features of pixels [B, 3, H, W]."""
        self._begin(_VISION)
        passes = [self._model.encode_image(chunk).first(number) for chunk, number in self._pixel_passes(pixels)]
        features = ImageFeatures.join(passes)
        return Pictures(None if features.itc is None else self._unit(features.itc), features)

    @_runs_network
    def text_features(self, hidden: Sequence[Array]) -> TextFeatures:
        """Return the features of one text from the outputs of the last `n_cross` layers of its tower, each [T, D]."""
        layers = [self._copied(torch.from_numpy(layer)[None]) for layer in hidden]
        return self._model.text_features(layers, torch.ones(layers[0].shape[:2], dtype=torch.bool, device=self._device))

    @_runs_network
    def pack(self, images: Pictures) -> list[bytes]:
        """Return the features of each picture as bytes, without loss."""
        layers: tuple[Tensor, ...] = images.features.layers
        bits = torch.int16 if self._dtype == torch.bfloat16 else torch.int32
        pictures = (torch.stack(picture).cpu() for picture in zip(*layers, strict=True))  # [n_cross, N, D]
        return [packing.pack(picture.view(bits).numpy().view(f"u{bits.itemsize}")) for picture in pictures]

    @_runs_network
    def unpack(self, packed: bytes) -> Pictures:
        """Return one picture, without a vector. Raises ValueError for bytes that are no features of this network."""
        config = self._checkpoint.config
        shape = config.n_cross, config.vision.num_tokens, config.hidden_size
        unpacked = torch.from_numpy(packing.unpack(packed, shape, self._dtype.itemsize)).view(self._dtype)
        layers = self._copied(unpacked)[:, None].unbind()  # n_cross x [1, N, D]
        return Pictures(None, ImageFeatures(layers, None, None))

    @_runs_network
    def join(self, batches: Sequence[Pictures]) -> Pictures:
        """Return the pictures of all batches, without vectors."""
        return Pictures(None, ImageFeatures.join([replace(batch.features, itc=None) for batch in batches]))

    @_runs_network
    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return ITM logits [P, 2] of pairs [P, 2] = (row of `texts`, row of `images`)."""
        self._begin(_CROSS_MODAL)
        logits = np.zeros((len(pairs), 2), np.float32)
        for rows, text, image in self._pair_passes(texts.features, images.features, pairs):
            found = self._model.itm(self._model.fuse(text, image, keep_text=1, keep_image=1))
            logits[rows] = self._finite(found[: len(rows)])
        return logits

    @_runs_network
    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        """Predict the words at the masks of a single text. Raises UsageError without a mask."""
        [where] = text.masks
        if not where:
            raise UsageError(
                'no <mask> in what the network reads of the text: write it where a word is wanted, as in "a <mask> '
                'looking out"'
            )
        self._begin(_CROSS_MODAL)
        masks = torch.tensor(where, device=self._device)
        pairs = np.array([[0, row] for row in range(len(images.features.layers[0]))], np.int64)
        itm, words = [], []
        for rows, features, image in self._pair_passes(text.features, images.features, pairs):
            fused = self._model.fuse(features, image, keep_image=1)
            if Head.ITM in self._model.heads:
                itm.append(self._finite(self._model.itm(fused)[: len(rows)]))
            at_masks = replace(fused, text=fused.text[:, masks])
            words.append(self._finite(self._model.mlm(at_masks)[: len(rows)].float().log_softmax(-1)))
        return MaskedPrediction(np.concatenate(itm) if itm else None, np.concatenate(words))

    def _copied(self, tensor: Tensor) -> Tensor:
        """Return a copy on the device: PyTorch aligns its memory, NumPy does not, and last bits may depend on that."""
        return tensor.to(self._device, self._dtype, copy=True)

    def _unit(self, vectors: Tensor) -> Vectors:
        """Normalise vectors in fp32, as bf16 rounds. Raises ModelError for vectors that are zero or not finite."""
        return unit(_numpy(vectors), self._damaged_weights)

    def _finite(self, scores: Tensor) -> npt.NDArray[np.float32]:
        """Return scores as fp32. Raises ModelError for NaN and infinity, which cannot be ranked."""
        array = _numpy(scores)
        if not np.isfinite(array).all():
            raise self._damaged_weights("scores that are no numbers or infinite")
        return array

    def _damaged_weights(self, what: str) -> ModelError:
        weight_cache.forget(self._checkpoint, self._runtime.precision, self._runtime.device)  # it may be damaged
        return damaged_weights(self._checkpoint, what)

    def _pixel_passes(self, pixels: Pixels) -> Iterator[tuple[Tensor, int]]:
        """Split pixels into passes [B', 3, H, W] on the device, and tell how many pictures of each are wanted."""
        vision = self._checkpoint.config.vision
        for rows in self._passes(np.arange(len(pixels)), vision.num_tokens, 4 * vision.hidden_size):
            chunk = torch.from_numpy(pixels[self._filled(rows)])
            if self._runtime.device == "cuda":  # copied from pinned memory without waiting
                yield chunk.pin_memory().to(self._device, non_blocking=True).to(self._dtype), len(rows)
            else:
                yield self._copied(chunk), len(rows)

    def _pair_passes(
        self, texts: Sequence[TextFeatures], images: ImageFeatures, pairs: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], TextFeatures, ImageFeatures]]:
        """Split pairs [P, 2] into passes of texts of one length: which pairs they are, and the features of both sides.

        The features may have further rows, which fill the pass up.
        """
        config = self._checkpoint.config
        lengths = np.array([text.mask.shape[1] for text in texts])[pairs[:, 0]]
        for length in np.unique(lengths):
            of_length = np.flatnonzero(lengths == length)
            for rows in self._passes(of_length, config.vision.num_tokens, config.text.intermediate_size):
                chosen = pairs[self._filled(rows)]
                text = TextFeatures.join([texts[row] for row in chosen[:, 0]])
                yield rows, text, images.select(torch.from_numpy(chosen[:, 1]).to(self._device))

    def _passes(self, rows: npt.NDArray[np.int64], tokens: int, width: int) -> Iterator[npt.NDArray[np.int64]]:
        """Split rows into passes of the best size for layers with `tokens` rows of at most `width` numbers."""
        widest = _WIDEST_BYTES_INT8 if self._runtime.precision == INT8 else _WIDEST_BYTES
        most = max(1, widest // (tokens * width * self._dtype.itemsize))
        step = _PASS if self._fixed_passes else most
        yield from (rows[start : start + step] for start in range(0, len(rows), step))

    def _filled(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of a pass, filled up with the last row where its size is fixed."""
        missing = _PASS - len(rows) if self._fixed_passes else 0
        return np.append(rows, np.repeat(rows[-1:], missing))


def _numpy(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
