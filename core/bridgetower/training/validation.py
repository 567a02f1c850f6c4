"""Validate a model in training: recall@1 by ITC over held-out pictures and their texts."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bridgetower.network.bridgetower import BridgeTower
from bridgetower.training.distributed import ONE_RANK, Ranks
from bridgetower.training.precision import computing
from bridgetower.training.recipe import Recipe

_TEXTS = 64  # of a pass


class HeldOut(Protocol):
    """N pictures and Q texts on which nothing is trained."""

    ids: Tensor  # int64 [Q, L]
    mask: Tensor  # bool [Q, L], True = token
    true_of: Tensor  # bool [Q, N]: text i is true of picture j; each is true of one at least

    def pixels(self, rows: range) -> Generator[Tensor]:
        """Yield the pixels of these pictures in their order, in batches: float32 [B, 3, H, W]."""
        ...


@dataclass(frozen=True, slots=True)
class Validation:
    """Recall@1 over the held-out pairs after a step, in percent: IR of a text among pictures, TR the other way."""

    step: int
    ir1: float
    tr1: float
    pictures: int
    texts: int

    @property
    def score(self) -> float:
        """The mean of both, by which the best model is kept."""
        return (self.ir1 + self.tr1) / 2

    def as_json(self) -> dict[str, Any]:
        """Return the validation for programs."""
        return asdict(self)


def validate(
    model: BridgeTower,
    held_out: HeldOut,
    recipe: Recipe,
    *,
    step: int,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ONE_RANK,
) -> Validation | None:
    """Measure the model as it is after `step`; each process encodes its share of the pictures.

    `should_stop` is asked before each batch; None if it said so in any process. The model is in evaluation mode
    afterwards. Draws nothing at random.
    """
    device = next(model.parameters()).device
    texts, pictures = held_out.true_of.shape
    width = model.config.contrastive_hidden_size
    assert width is not None
    model.eval()
    with torch.inference_mode():
        shares = torch.arange(pictures).tensor_split(ranks.size)
        own = shares[ranks.rank].tolist()
        images = torch.zeros(pictures, width, device=device)
        first = done = own[0] if own else 0
        stops = should_stop()
        if own and not stops:
            with closing(held_out.pixels(range(first, first + len(own)))) as batches:
                for pixels in batches:
                    with computing(device, recipe.precision):
                        images[done : done + len(pixels)] = model.embed_image(pixels.to(device)).float()
                    done += len(pixels)
                    if stops := should_stop():
                        break
        embedded = []
        for ids, mask in zip(torch.split(held_out.ids, _TEXTS), torch.split(held_out.mask, _TEXTS), strict=True):
            if stops := stops or should_stop():
                break
            longest = int(mask.sum(dim=1).max())
            with computing(device, recipe.precision):
                embedded.append(model.embed_text(ids[:, :longest].to(device), mask[:, :longest].to(device)).float())
        if ranks.anywhere(stops, device):
            return None
        similarity = (torch.cat(embedded) @ ranks.sum(images).T).cpu()
    return Validation(
        step, recall_at_1(similarity, held_out.true_of), recall_at_1(similarity.T, held_out.true_of.T), pictures, texts
    )


def recall_at_1(similarity: Tensor, right: Tensor) -> float:
    """Return the percentage of rows of [Q, N] in which no wrong column reaches the best right one."""
    best = similarity.masked_fill(~right, float("-inf")).amax(dim=1)
    wrong = similarity.masked_fill(right, float("-inf")).amax(dim=1)
    return 100 * float((best > wrong).float().mean())
