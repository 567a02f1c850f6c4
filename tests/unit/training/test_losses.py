"""The contrastive loss: who is compared with whom, and who is left out."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bridgetower.training.losses import contrastive_loss, itc_loss, itm_loss, mlm_loss


def unit(rows: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def entropy(
    queries: Tensor, keys: Tensor, right: dict[int, int], counts: Callable[[int, int], bool], scale: float = 7.0
) -> float:
    """Each query, with its right key, among the keys that count, written out."""
    logits = (scale * queries @ keys.T).tolist()
    sums = {i: sum(math.exp(logits[i][j]) for j in range(len(keys)) if counts(i, j)) for i in right}
    return sum(math.log(sums[i]) - logits[i][j] for i, j in right.items()) / len(right)


def test_with_one_text_for_each_picture_it_is_the_reference_and_each_picture_among_the_texts() -> None:
    text, image, cross, scale = unit(5, 1), unit(5, 2), unit(5, 3), torch.tensor(7.0)
    ours = contrastive_loss(text, image, cross, scale, torch.eye(5, dtype=torch.bool), torch.arange(5))
    image_rows = entropy(image, text, {i: i for i in range(5)}, lambda i, j: True)
    assert float(ours) == pytest.approx((3 * float(itc_loss(text, image, cross, scale)) + image_rows) / 4, rel=1e-5)


def test_true_pairs_are_no_negatives_and_further_texts_are_queries_only_where_they_are_true() -> None:
    text, image, cross = unit(7, 1), unit(4, 2), unit(4, 3)
    true_of = torch.zeros(7, 4, dtype=torch.bool)
    true_of[:4] = torch.eye(4, dtype=torch.bool)
    true_of[0, 1] = true_of[0, 2] = true_of[3, 1] = True  # and the caption of picture 1 is not true of picture 0
    true_of[4, 2] = true_of[4, 3] = true_of[6, 0] = True  # text 5 is true of none
    keys = torch.tensor([0, 1, 2, 3, 3, 2, 0])

    def by_text(i: int, j: int) -> bool:
        return bool(j == keys[i]) or not true_of[i, j]

    def by_image(i: int, j: int) -> bool:
        return i == j or not true_of[j, i]

    own = {i: i for i in range(4)}
    expected = (
        entropy(text, image, {**own, 4: 3, 6: 0}, by_text)
        + entropy(image, text, own, by_image)
        + entropy(text, cross, own, by_text)
        + entropy(image, cross, own, by_image)
    ) / 4
    ours = contrastive_loss(text, image, cross, torch.tensor(7.0), true_of, keys)
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_parts_of_a_batch_add_up_to_its_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 2, generator=generator), torch.tensor([1, 0, 1, 1, 0, 0, 0, 1, 1])
    parts = [itm_loss(logits[rows], labels[rows], torch.full((len(rows),), 1 / 9)) for rows in (range(4), range(4, 9))]
    torch.testing.assert_close(sum(parts), itm_loss(logits, labels))
    words, hidden = torch.randn(3, 5, 11, generator=generator), torch.full((3, 5), -100)
    hidden[0, 1] = hidden[0, 3] = hidden[2, 4] = 7
    parts = [mlm_loss(words[rows], hidden[rows], 3) for rows in (slice(0, 2), slice(2, 3))]
    torch.testing.assert_close(sum(parts), mlm_loss(words, hidden))
