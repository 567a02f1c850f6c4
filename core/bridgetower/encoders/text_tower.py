"""The text tower in NumPy: RoBERTa in float32 on the weights of the checkpoint, memory-mapped, without PyTorch.

It makes the vector of every text that recalls, and the hidden states that the cross-modal encoder starts from. Each
text runs alone and unpadded, so that its numbers depend on nothing but the text.

Shapes: T tokens of a text, D width of the tower, H heads, E length of an ITC vector.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt

from bridgetower.checkpoints.checkpoint import Checkpoint, open_weights, readable
from bridgetower.checkpoints.safetensors_files import StoredTensor
from bridgetower.checkpoints.tensor_names import hf_names
from bridgetower.errors import ModelError

Array = npt.NDArray[np.float32]

_LET_GO_BYTES = 64 * 1000**2  # of weights, from which `let_go` frees them

# OpenBLAS has kernels for small products that neither copy the weights nor start threads: for a text of a dozen tokens
# they are twice as fast as one large product, and on a busy machine many times.
_SMALL_PRODUCT = 1_000_000  # multiplications
_BLOCKS = (64, 32, 16, 8)  # outputs that are computed at once

# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: erf to 1.5e-7.
_ERF_P = 0.3275911
_ERF_A = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


class TextTower:
    """The text tower of one checkpoint. Threads may share it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._config = checkpoint, checkpoint.config.text
        self._lock, self._is_in_memory = Lock(), False
        self._converted: dict[str, Array] = {}  # weights of a file in another type than float32

    @cached_property
    def _tensors(self) -> dict[str, StoredTensor]:
        """The tensors of the tower and of its ITC head by their keys. Raises ModelError, ResourceError."""
        with readable(self._checkpoint.folder):
            tensors = open_weights(self._checkpoint)
            if replace(self._checkpoint).weights_sha256 != self._checkpoint.weights_sha256:  # a copy computes it again
                raise ModelError(
                    f"{self._checkpoint.folder}: the weights were replaced while they were read; run it again"
                )
        parts = ("bridgetower.text_model.", "itc_text_head.")
        return {key: tensor for key, tensor in tensors.items() if key.startswith(parts)}

    def hidden(self, ids: npt.NDArray[np.int64]) -> list[Array]:
        """Return the outputs of the last `n_cross` layers, each [T, D], of one text with ids [T]. Raises ModelError."""
        self._is_in_memory = True
        config = self._config
        real = ids != config.pad_token_id
        positions = real.cumsum() * real + config.pad_token_id  # padding has position `pad_token_id`
        first = np.zeros(1, np.int64)  # of the token types, of which only one is ever used
        x = self._rows("word", ids) + self._rows("position", positions) + self._rows("token_type", first)
        x = self._norm("text_tower.norm", x)
        outputs = []
        for k in range(config.num_hidden_layers):
            layer = f"text_tower.layers.{k}"
            x = self._norm(f"{layer}.norm_attention", x + self._attention(f"{layer}.attention", x))
            inner = _gelu(self._linear(f"{layer}.mlp.up", x))
            x = self._norm(f"{layer}.norm_mlp", x + self._linear(f"{layer}.mlp.down", inner))
            outputs.append(x)
        return outputs[-self._checkpoint.config.n_cross :]

    def vector(self, last: Array) -> Array:
        """Return the ITC vector [E], not normalised, from the output [T, D] of the last layer."""
        vector: Array = self._linear("itc_head.text", last[:1])[0]
        return vector

    def let_go(self) -> None:
        """Free the memory of large weights; the next text maps them again."""
        if not self._is_in_memory:
            return
        self._is_in_memory = False
        if sum(tensor.stop - tensor.start for tensor in self._tensors.values()) >= _LET_GO_BYTES:
            with self._lock:
                self._converted.clear()
            for tensor in self._tensors.values():
                tensor.let_go()

    def _attention(self, name: str, x: Array) -> Array:
        heads = self._config.num_attention_heads
        # The parts of `qkv` are apart in the file: joining them would copy the weights.
        q, k, v = (
            (_product(x, weight) + bias).reshape(len(x), heads, -1).swapaxes(0, 1)  # [H, T, D / H]
            for weight, bias in zip(self._parts(f"{name}.qkv.weight"), self._parts(f"{name}.qkv.bias"), strict=True)
        )
        scores = q @ k.swapaxes(1, 2) * np.float32(q.shape[-1] ** -0.5)  # [H, T, T]
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = scores / scores.sum(axis=-1, keepdims=True) @ v
        return self._linear(f"{name}.out", attended.swapaxes(0, 1).reshape(x.shape))

    def _linear(self, name: str, x: Array) -> Array:
        return _product(x, self._weight(f"{name}.weight")) + self._weight(f"{name}.bias")

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(self._config.layer_norm_eps))
        normed: Array = centred / deviation * self._weight(f"{name}.weight")
        return normed + self._weight(f"{name}.bias")

    def _rows(self, table: str, rows: npt.NDArray[np.int64]) -> Array:
        """Return rows [n] of a table of embeddings -> [n, D]."""
        [key] = hf_names(f"text_tower.{table}.weight", self._checkpoint.config)
        return self._tensors[key].array(rows)

    def _weight(self, name: str) -> Array:
        """Return a parameter that the checkpoint has as one tensor, by the name of the network."""
        [weight] = self._parts(name)
        return weight

    def _parts(self, name: str) -> list[Array]:
        """Return the tensors that the parameter `name` of the network is made of."""
        return [self._array(key) for key in hf_names(name, self._checkpoint.config)]

    def _array(self, key: str) -> Array:
        stored = self._tensors[key]
        if stored.dtype == "F32":
            return stored.array()
        with self._lock:  # threads that convert the same weights would hold them twice
            if key not in self._converted:
                self._converted[key] = stored.array()
            return self._converted[key]


def _product(x: Array, weight: Array) -> Array:
    """Return x [T, D] times the transpose of weight [O, D] -> [T, O]."""
    tokens, width = x.shape
    for block in _BLOCKS:
        if tokens * block * width <= _SMALL_PRODUCT and len(weight) % block == 0:
            blocks: Array = np.matmul(x, weight.reshape(-1, block, width).swapaxes(1, 2))  # [O / block, T, block]
            return blocks.swapaxes(0, 1).reshape(tokens, len(weight))
    product: Array = x @ weight.T
    return product


def _gelu(x: Array) -> Array:
    """The exact GELU, x (1 + erf(x / sqrt 2)) / 2, of float32 of any shape."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t: Array = np.float32(1) / (1 + np.float32(_ERF_P) * z)
    tail: Array = np.full_like(t, _ERF_A[0])
    for factor in _ERF_A[1:]:
        tail = tail * t + np.float32(factor)
    tail = tail * t * np.exp(-z * z)  # 1 - erf(z)
    found: Array = x * np.where(x < 0, tail, 2 - tail) * np.float32(0.5)
    return found


def unit(vectors: Array, fault: Callable[[str], ModelError]) -> Array:
    """Normalise vectors [B, E]. Raises `fault` for one that is zero or not finite."""
    with np.errstate(all="ignore"):
        found: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        if not np.allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-3):  # also true for NaN
            raise fault("vectors that are zero or no numbers")
    return found


def damaged_weights(checkpoint: Checkpoint, what: str) -> ModelError:
    """Return the error for a network that computes no numbers."""
    return ModelError(
        f"{checkpoint.name}: this model computes {what}, as with damaged weights; fetch or convert it again, or use "
        "another"
    )
