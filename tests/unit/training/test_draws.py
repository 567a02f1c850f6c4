"""Masks, and true and false pairs: what may be drawn, how often, and from what it follows."""

import pytest
import torch
from torch import Tensor

from bridgetower.training.draws import generator_of, key_pictures, mask_tokens, masked_texts, pairs, seed_of
from bridgetower.training.recipe import Recipe

MASK = 4
MASKABLE = (torch.arange(400) >= 9).float()  # specials, and some words that may not be hidden


def truth(texts: int, pictures: int, *more: tuple[int, int]) -> Tensor:
    true_of = torch.zeros(texts, pictures, dtype=torch.bool)
    true_of[torch.arange(pictures), torch.arange(pictures)] = True
    for text, picture in more:
        true_of[text, picture] = True
    return true_of


def test_masking_hides_what_may_be_hidden_and_at_least_one_word_of_each_text() -> None:
    ids = torch.tensor(
        [[0, 10, 11, 7, 2, 1, 1], [0, 13, 2, 1, 1, 1, 1], [0, 14, 15, 16, 8, 18, 2], [0, 8, 7, 2, 1, 1, 1]]
    )
    generator = torch.Generator().manual_seed(0)
    hidden = torch.zeros_like(ids)
    for _ in range(400):
        masked, labels = mask_tokens(ids, torch.full((4,), 0.25), MASK, MASKABLE, generator)
        chosen = masked == MASK
        assert torch.equal(labels[chosen], ids[chosen])
        assert torch.equal(masked[~chosen], ids[~chosen])
        assert bool((labels[~chosen] == -100).all())
        assert bool(chosen[:3].any(dim=1).all())
        hidden += chosen
    assert bool((hidden[ids < 9] == 0).all())  # the last text has nothing that may be hidden
    assert bool((hidden[ids >= 9] > 0).all())
    assert int(hidden[1, 1]) == 400  # the only word of its text


def test_a_share_of_nothing_hides_one_word_and_the_readiest_most_often() -> None:
    ids = torch.tensor([[0, 10, 11, 12, 13, 2]] * 500)
    weights = MASKABLE.clone()
    weights[12] = 7.0  # of 10 in all
    masked, _ = mask_tokens(ids, torch.zeros(500), MASK, weights, torch.Generator().manual_seed(0))
    hidden = masked == MASK
    assert bool((hidden.sum(dim=1) == 1).all())
    assert 0.6 < float(hidden[:, 3].float().mean()) < 0.8


def test_each_text_has_its_own_share() -> None:
    ids = torch.arange(10, 30).repeat(2, 1)
    masked, _ = mask_tokens(ids, torch.tensor([0.0, 1.0]), MASK, MASKABLE, torch.Generator().manual_seed(0))
    assert (masked == MASK).sum(dim=1).tolist() == [1, 20]


def test_captions_are_masked_as_often_as_is_asked_and_some_copies_in_one_word() -> None:
    ids = torch.arange(10, 40).repeat(4, 1)
    recipe = Recipe(1, maskings=2.0, mask_share=1.0, single_share=0.25)
    masked = masked_texts(ids, recipe, MASK, MASKABLE, generator_of(1))
    assert masked.captions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert (masked.labels != -100).sum(dim=1).tolist() == [1, 1, 30, 30, 30, 30, 30, 30]
    assert masked.words == 2 + 6 * 30
    assert masked_texts(ids, Recipe(1, maskings=0.5), MASK, MASKABLE, generator_of(1)).captions.tolist() == [0, 1]


def test_a_caption_has_its_own_picture_and_another_text_one_that_it_is_true_of() -> None:
    true_of = truth(7, 3, (0, 2), (3, 1), (4, 0), (4, 2), (6, 0))
    drawn = torch.stack([key_pictures(true_of, generator_of(step)) for step in range(60)])
    assert bool((drawn[:, :3] == torch.arange(3)).all())
    found = [set(column.tolist()) for column in drawn.T]
    assert found[3:] == [{1}, {0, 2}, {0, 1, 2}, {0}]  # text 5 is true of none


def test_pairs_are_each_true_text_once_each_text_falsely_once_and_each_picture_falsely_once() -> None:
    true_of = truth(6, 3, (0, 2), (4, 1))
    keys = key_pictures(true_of, generator_of(0))
    for step in range(60):
        drawn = pairs(torch.zeros(6, 3), true_of, keys, 0.0, generator_of(step))
        told = true_of[drawn.texts, drawn.pictures].long()
        assert torch.equal(told, drawn.is_true)  # no false pair is a true one
        assert drawn.texts.tolist()[:10] == [0, 1, 2, 4, 0, 1, 2, 3, 4, 5]
        assert drawn.pictures.tolist()[:4] == [0, 1, 2, 1]
        assert drawn.pictures.tolist()[10:] == [0, 1, 2]
        assert len(drawn.texts) == 13
        weights = drawn.weights
        assert float(weights[:4].sum()) == pytest.approx(0.5)
        assert float(weights[4:].sum()) == pytest.approx(0.5)


def test_where_everything_is_true_there_is_no_false_pair() -> None:
    true_of = truth(3, 2, (0, 1))
    true_of[2] = True
    drawn = pairs(torch.zeros(3, 2), true_of, torch.tensor([0, 1, 0]), 0.5, generator_of(0))
    # Text 1 is false of picture 0 alone, and the only one that is false of any.
    assert list(zip(drawn.texts.tolist(), drawn.pictures.tolist(), strict=True)) == [
        (0, 0), (1, 1), (2, 0), (1, 0), (1, 0),
    ]  # fmt: skip
    alone = pairs(torch.zeros(1, 1), truth(1, 1), torch.tensor([0]), 0.0, generator_of(0))
    assert (alone.texts.tolist(), alone.is_true.tolist()) == ([0], [1])


def test_false_pairs_are_the_similar_ones_but_for_a_share_that_is_drawn_evenly() -> None:
    true_of = truth(6, 6)
    logits = torch.arange(6.0).repeat(6, 1) * 2

    def of_first_text(easy_share: float) -> Tensor:
        drawn = [pairs(logits, true_of, torch.arange(6), easy_share, generator_of(step)) for step in range(200)]
        return torch.bincount(torch.stack([some.pictures[6] for some in drawn]), minlength=6)

    hard, easy = of_first_text(0.0), of_first_text(1.0)
    assert int(hard[0]) == int(easy[0]) == 0
    assert int(hard[5]) > 150
    assert int(easy[1:].min()) > 0 == int(hard[1])
    assert int(easy[5]) < 150


def test_seeds_depend_on_each_part_and_its_place() -> None:
    seeds = {seed_of(*parts) for parts in [(1, 2), (2, 1), (12,), (1, 2, 0), (1, "2"), (1, 3)]}
    assert len(seeds) == 6
    assert seed_of(1, "pairs") == seed_of(1, "pairs")
    assert all(0 <= seed < 2**63 for seed in seeds)
