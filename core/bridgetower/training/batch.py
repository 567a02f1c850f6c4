"""The batch of one training step, as one process sees it."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(slots=True)
class Batch:
    """B pictures, T texts, and the statement which texts are true of which pictures.

    Text i < B is the caption of picture i. The other texts are true of any number of pictures, also of none. Each
    process of a run has all texts, and the pictures that it computes: columns `start` to `start` + b of `true_of`.
    """

    pixels: Tensor  # float32 [b, 3, H, W], preprocessed
    ids: Tensor  # int64 [T, L], padded; T >= B
    mask: Tensor  # bool [T, L], True = token
    true_of: Tensor  # bool [T, B], [i, j]: text i is true of picture j; [i, i] is True for i < B
    start: int = 0

    def to(self, device: torch.device) -> Self:
        """The same batch with all but its pixels on a device: those move when they are computed, a part at a time."""
        ids, mask, true_of = (tensor.to(device) for tensor in (self.ids, self.mask, self.true_of))
        return type(self)(self.pixels, ids, mask, true_of, self.start)
