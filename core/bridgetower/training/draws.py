"""Everything that a step draws at random, as a function of the seed and the step: masks, true and false pairs.

Drawn on the CPU, so that it is the same on every device and in every process.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from bridgetower.training.recipe import Recipe


def seed_of(*parts: int | str) -> int:
    """Mix numbers and words into one seed, so that no two lists of parts share a stream."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())


def generator_of(*parts: int | str) -> torch.Generator:
    """Return a generator on the CPU with the seed of these parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


@dataclass(frozen=True, slots=True)
class MaskedTexts:
    """Copies of captions in which words are hidden."""

    ids: Tensor  # int64 [M, L]
    labels: Tensor  # int64 [M, L]: the hidden word, -100 where nothing is hidden
    captions: Tensor  # int64 [M]: the caption, and so the picture, of each copy

    @property
    def words(self) -> int:
        """The number of hidden words, at least 1."""
        return max(1, int((self.labels != -100).sum()))


@dataclass(frozen=True, slots=True)
class MatchingPairs:
    """Texts with pictures, row by row."""

    texts: Tensor  # int64 [P]
    pictures: Tensor  # int64 [P]
    is_true: Tensor  # int64 [P], 1 = the text is true of the picture

    @property
    def weights(self) -> Tensor:
        """float [P]: true and false pairs weigh the same in sum, so that the ITM probability has a prior of 1/2."""
        true = self.is_true.float()
        return true / (2 * true.sum().clamp(min=1)) + (1 - true) / (2 * (1 - true).sum().clamp(min=1))


def masked_texts(
    ids: Tensor, recipe: Recipe, mask_id: int, maskable: Tensor, generator: torch.Generator
) -> MaskedTexts:
    """Draw the masked copies of the captions, int64 [B, L]. `maskable` is as for `mask_tokens`."""
    b = len(ids)
    captions = torch.arange(max(1, round(recipe.maskings * b))) % b
    share = torch.full((len(captions),), recipe.mask_share)
    share[: round(recipe.single_share * len(captions))] = 0.0  # rows of the first copy come first
    masked, labels = mask_tokens(ids[captions], share, mask_id, maskable, generator)
    return MaskedTexts(masked, labels, captions)


def mask_tokens(
    ids: Tensor, share: Tensor, mask_id: int, maskable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace one maskable token of each text, if it has any, and a share of the others, by `<mask>`.

    `ids` int64 [B, T]; `share` float [B] in [0, 1]; `maskable` float [V]: the first token is drawn in proportion to it,
    the others uniformly from all above 0. Returns masked ids and labels, int64 [B, T]; a label is -100 where nothing
    was masked. Unlike in BERT (80/10/10), masked tokens are never kept or replaced by random ones, because our task is
    to fill visible masks.
    """
    weights = maskable[ids]  # float [B, T]
    words = weights > 0
    one = torch.multinomial(weights + 1e-9, 1, generator=generator)  # [B, 1]; `& words` below drops empty rows
    chosen = words & (torch.rand(ids.shape, generator=generator) < share[:, None])
    chosen = chosen.scatter(1, one, True) & words
    return ids.masked_fill(chosen, mask_id), ids.masked_fill(~chosen, -100)


def key_pictures(true_of: Tensor, generator: torch.Generator) -> Tensor:
    """Return a picture for each text of bool [T, B], int64 [T]: the own one of a caption, else a true one at random.

    A text that is true of no picture gets one all the same: the chunk of that picture computes the text's vector.
    """
    b = true_of.shape[1]
    weights = true_of.float()
    weights[~true_of.any(dim=1)] = 1.0
    pictures = torch.multinomial(weights, 1, generator=generator)[:, 0]
    pictures[:b] = torch.arange(b)
    return pictures


def pairs(
    similarity: Tensor, true_of: Tensor, keys: Tensor, easy_share: float, generator: torch.Generator
) -> MatchingPairs:
    """Draw the pairs of the ITM loss.

    These are, in this order: captions with their pictures; further texts with true pictures, their `keys`; each text
    with a false picture; each picture with a false text. The false ones are drawn by softmax of the ITC logits
    `similarity` [T, B]; where every candidate is true, there is no pair.
    """
    true = true_of.any(dim=1).nonzero()[:, 0]
    logits = similarity.masked_fill(true_of, float("-inf"))
    texts, false_pictures = _draw(logits, easy_share, generator)
    pictures, false_texts = _draw(logits.T, easy_share, generator)
    is_true = torch.arange(len(true) + len(texts) + len(pictures)) < len(true)
    return MatchingPairs(
        torch.cat([true, texts, false_texts]), torch.cat([keys[true], false_pictures, pictures]), is_true.long()
    )


def _draw(logits: Tensor, easy_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a column for each row of [R, C] that has a finite logit, by softmax -> the rows, and a column for each.

    In `easy_share` of the rows the logits first shrink by a factor between 0, where every column is equally likely, and
    1.
    """
    easy, factor = torch.rand((2, len(logits), 1), generator=generator)
    finite = logits.isfinite()
    logits = logits.masked_fill(~finite, float("-inf"))  # NaN, of a run that diverges: the trainer ends it
    rows = finite.any(dim=1).nonzero()[:, 0]
    softened = torch.where(finite & (easy < easy_share), logits * factor, logits)[rows]
    if len(rows) == 0:
        return rows, rows
    chances = softened.softmax(dim=1) + 1e-8 * finite[rows]
    return rows, torch.multinomial(chances, 1, generator=generator)[:, 0]
