"""The tensors that pass between the parts of the network.

Shapes: B batch, T text tokens, N visual tokens (1 + patches), D hidden size, E length of an ITC vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """The features of a batch of texts: everything that is computed from the texts alone."""

    layers: tuple[Tensor, ...]  # n_cross x [B, T, D]: input of the cross-modal encoder, then what is bridged into it
    alone: Tensor  # [B, T, D]: `layers[0]` after the self-attention of the first cross-modal layer
    mask: Tensor  # bool [B, T], True = token, False = padding
    itc: Tensor | None  # [B, E], unit length; None without an ITC head

    def select(self, rows: Tensor) -> Self:
        """The rows of the batch that an int64 [B'] index names, in its order, repeats allowed."""
        itc = None if self.itc is None else self.itc[rows]
        return type(self)(tuple(layer[rows] for layer in self.layers), self.alone[rows], self.mask[rows], itc)

    @classmethod
    def join(cls, texts: Sequence[Self]) -> Self:
        """Concatenate texts of one length along B."""
        layers = tuple(torch.cat(same) for same in zip(*(text.layers for text in texts), strict=True))
        itc = [text.itc for text in texts if text.itc is not None]
        alone, mask = torch.cat([text.alone for text in texts]), torch.cat([text.mask for text in texts])
        return cls(layers, alone, mask, torch.cat(itc) if itc else None)


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The features of a batch of pictures: everything that is computed from them alone, so reusable for every text."""

    layers: tuple[Tensor, ...]  # n_cross x [B, N, D]: input of the cross-modal encoder, then what is bridged into it
    # [B, N, D]: `layers[0]` after the self-attention of the first cross-modal layer. If it is None, `fuse` computes it.
    alone: Tensor | None
    itc: Tensor | None  # [B, E], unit length; None without an ITC head

    def select(self, rows: Tensor) -> Self:
        """The rows of the batch that an int64 [B'] index names, in its order, repeats allowed."""
        alone, itc = (None if part is None else part[rows] for part in (self.alone, self.itc))
        return type(self)(tuple(layer[rows] for layer in self.layers), alone, itc)

    def first(self, number: int) -> Self:
        """The first rows of the batch."""
        if number == len(self.layers[0]):
            return self
        alone, itc = (None if part is None else part[:number] for part in (self.alone, self.itc))
        return type(self)(tuple(layer[:number] for layer in self.layers), alone, itc)

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """Concatenate at least one batch along B, each part that all of them have."""
        if len(batches) == 1:
            return batches[0]
        layers = tuple(torch.cat(same) for same in zip(*(batch.layers for batch in batches), strict=True))
        alone, itc = [batch.alone for batch in batches], [batch.itc for batch in batches]
        return cls(layers, _joined(alone), _joined(itc))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate tensors along the first axis; None if one is missing."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


@dataclass(frozen=True, slots=True)
class Fused:
    """Output of the cross-modal encoder, row i from text i and picture i."""

    text: Tensor  # [B, T, D], or its first tokens only
    image: Tensor  # [B, N, D], or its first tokens only
    pooled: Tensor  # [B, 2D], each number in (-1, 1)
