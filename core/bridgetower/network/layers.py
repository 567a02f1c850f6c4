"""The building blocks of the network: attention, feed-forward, embeddings.

Shapes: B batch, T tokens of one stream, N tokens of the other stream, D hidden size, H heads.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Activation = Callable[[Tensor], Tensor]

# Products of fewer rows are computed by other kernels, and threads divide them in other ways, so that the last bits of
# a row would depend on how many rows are beside it. From 12 rows on they do not, on processors with AVX2, AVX-512 and
# avx512_bf16: docs/decisions/2026-11-29-same-number.md.
_FEWEST_ROWS = 16
_FEWEST_QUERIES = 8  # of attention: the bits of fewer than 4 depend on the threads and on the batch
# PyTorch divides the numbers of a tensor among its threads, and computes what does not fill two vectors at the end of a
# part one by one, with other last bits. So each thread gets whole rows, in full vectors.
_GRAIN = 32768  # numbers, from which PyTorch divides them (at::internal::GRAIN_SIZE)
_TWO_VECTORS = 64  # bfloat16 numbers in 512 bits, twice


def as_key_mask(mask: Tensor) -> Tensor | None:
    """bool [B, T] -> bool [B, 1, 1, T], or None if nothing is padded, as attention is faster without a mask."""
    return None if bool(mask.all()) else mask[:, None, None, :]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, key_mask: Tensor | None, dropout: float) -> Tensor:
    """Multi-head attention of q [B, Q, D] over k, v [B, K, D] -> [B, Q, D].

    `key_mask` is bool [B, 1, 1, K], True = is attended to; None, which is faster, means all True.
    """
    queries = q.shape[1]
    # Never with dropout, because it would draw other numbers than the same step with gradients.
    if queries < _FEWEST_QUERIES and not dropout and not torch.is_grad_enabled():
        q = F.pad(q, (0, 0, 0, _FEWEST_QUERIES - queries))
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))  # [B, H, Q or K, D / H]
    attended = F.scaled_dot_product_attention(q, k, v, key_mask, dropout)
    return attended[:, :, :queries].transpose(1, 2).flatten(2)


_Output = TypeVar("_Output")


def run(layer: Callable[..., _Output], *inputs: object, recompute: bool) -> _Output:
    """Compute a layer. With `recompute` the backward pass computes it again, so only its inputs are kept until then."""
    if not recompute or not torch.is_grad_enabled():
        return layer(*inputs)
    output: _Output = checkpoint(layer, *inputs, use_reentrant=False)
    return output


def _divisible(rows: int, width: int) -> int:
    """Return the least number of rows, at least `rows`, that PyTorch divides among its threads by whole rows."""
    threads = torch.get_num_threads()
    while True:
        parts = min(threads, -(-rows * width // _GRAIN))
        if rows % parts == 0 and rows // parts * width % _TWO_VECTORS == 0:
            return rows
        rows += 1


def linear(x: Tensor, weight: Tensor, bias: Tensor, activation: Activation | None = None) -> Tensor:
    """[..., D] -> the activation of [..., O], each row with the same bits whatever rows are beside it.

    While gradients are recorded, few rows are computed as they are.
    """
    rows = x.reshape(-1, x.shape[-1])  # one layout, as PyTorch has other kernels for other layouts
    number = len(rows)
    if not torch.is_grad_enabled():
        wanted = max(number, _FEWEST_ROWS)
        if activation is not None:
            wanted = _divisible(wanted, len(weight))
        if wanted > number:
            rows = F.pad(rows, (0, 0, 0, wanted - number))
    product = F.linear(rows, weight, bias)
    if activation is not None:
        product = activation(product)
    return product[:number].view(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """A linear layer with undefined weights. `bridgetower.network.int8` may replace it."""

    def reset_parameters(self) -> None:
        """Leave the weights undefined: drawing them, even on the meta device, is most of the time of construction."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., O]."""
        return linear(input, self.weight, self.bias)

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """[..., D] -> the activation of [..., O]."""
        return linear(x, self.weight, self.bias, activation)

    def part(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Compute only the outputs `start` to `stop`: [..., D] -> [..., stop - start]."""
        return linear(x, self.weight[start:stop], self.bias[start:stop])


class SelfAttention(nn.Module):
    """Self-attention, with queries, keys and values from one matrix product."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, key_mask: Tensor | None = None, keep: int | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D], or [B, keep, D] with queries from the first `keep` tokens only."""
        if keep is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            q = self.qkv.part(x[:, :keep], 0, width)
            k, v = self.qkv.part(x, width, 3 * width).chunk(2, dim=-1)
        attended: Tensor = self.out(attend(q, k, v, self.heads, key_mask, self.dropout if self.training else 0.0))
        return attended


class CrossAttention(nn.Module):
    """Cross-attention: queries from one stream, keys and values from the other."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, other: Tensor, key_mask: Tensor | None) -> Tensor:
        """x [B, T, D], other [B, N, D] -> [B, T, D]; `key_mask` belongs to `other`."""
        k, v = self.kv(other).chunk(2, dim=-1)
        p = self.dropout if self.training else 0.0
        attended: Tensor = self.out(attend(self.q(x), k, v, self.heads, key_mask, p))
        return attended


_QUICK_FACTOR = 1.702  # the quick GELU of CLIP is x * sigmoid(1.702 x)


def quick_gelu(x: Tensor) -> Tensor:
    """Return the quick GELU of each number, [...] -> [...]."""
    return x * torch.sigmoid(_QUICK_FACTOR * x)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them: exact, or the quick GELU that CLIP was trained with."""

    def __init__(self, width: int, inner: int, quick: bool = False) -> None:
        super().__init__()
        self.up = Linear(width, inner)
        self.down = Linear(inner, width)
        self.quick = quick
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        narrow: Tensor = self.down(self.up.activated(x, self._activation))
        return narrow

    @property
    def _activation(self) -> Activation:
        if not self.quick:
            return F.gelu
        return F.silu if self.folded else quick_gelu

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the factor of the quick GELU into the weights: one pass over the widest tensor instead of three.

        For inference only: the weights change, the outputs do not.
        """
        if self.quick and not self.folded:
            self.up.weight.mul_(_QUICK_FACTOR)
            self.up.bias.mul_(_QUICK_FACTOR)
            self.down.weight.div_(_QUICK_FACTOR)
            self.folded = True


def embedding(rows: int, width: int) -> nn.Embedding:
    """Return an embedding with undefined weights: drawing them on the meta device costs a second of imports."""
    weight = torch.empty(rows, width)
    table: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False)  # type: ignore[no-untyped-call]
    return table
