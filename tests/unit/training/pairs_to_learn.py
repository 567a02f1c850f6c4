"""Pairs that can be learnt: the brightness of the picture is the word of its text."""

from collections.abc import Iterator
from itertools import count

import torch

from bridgetower.training.batch import Batch
from tests.tiny import tiny_config

MASK = 4
MASKABLE = (torch.arange(400) >= 9).float()  # special tokens, and some words that may not be hidden
NO_DROPOUT = tiny_config(text={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})


def make_batch(seed: int = 0, size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.arange(size)[:, None, None, None] - size / 2).expand(size, 3, 96, 96).clone()
    pixels += 0.1 * torch.randn(pixels.shape, generator=generator)
    ids = torch.tensor([0, 9, 0, 2]).repeat(size, 1)
    ids[:, 2] = torch.arange(size) * 7 + 20
    return Batch(pixels, ids, torch.ones_like(ids, dtype=torch.bool), torch.eye(size, dtype=torch.bool))


def endless(step: int) -> Iterator[Batch]:
    """A batch for each number from `step` on."""
    return (make_batch(seed) for seed in count(step))
