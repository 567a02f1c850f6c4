"""Validation: recall@1 as counted by hand, the same for any number of processes, and nothing of it in training."""

from collections.abc import Generator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bridgetower.training.distributed import Ranks
from bridgetower.training.recipe import Recipe
from bridgetower.training.validation import Validation, recall_at_1, validate
from tests.tiny import tiny_model
from tests.unit.training.pairs_to_learn import make_batch


@dataclass
class Held:
    """Six pictures; the first two share a text, and the last has a second one."""

    ids: Tensor
    mask: Tensor
    true_of: Tensor
    pictures: Tensor

    def pixels(self, rows: range) -> Generator[Tensor]:
        yield from torch.split(self.pictures[rows.start : rows.stop], 2)


@pytest.fixture
def held() -> Held:
    batch = make_batch()
    ids = torch.cat([batch.ids, batch.ids[5:] + 1])
    ids = torch.nn.functional.pad(ids, (0, 3), value=1)
    true_of = torch.cat([batch.true_of, batch.true_of[5:]])
    true_of[0, 1] = True
    return Held(ids, ids != 1, true_of, batch.pixels)


def test_recall_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.3, 0.3], [0.1, 0.9, 0.8]])
    right = torch.tensor([[True, False, False], [True, True, False], [False, False, True], [False, False, True]])
    # The third text has all pictures alike, which finds nothing; the fourth prefers a wrong one.
    assert recall_at_1(similarity, right) == 50.0
    # Picture 1: its texts have .9 and .8; picture 2: .7, but a wrong one .9; picture 3: .8.
    assert recall_at_1(similarity.T, right.T) == pytest.approx(200 / 3)


def test_it_is_the_recall_of_the_vectors(held: Held) -> None:
    model = tiny_model()
    with torch.inference_mode():
        texts = torch.cat([model.embed_text(held.ids[i : i + 1, :4], held.mask[i : i + 1, :4]) for i in range(7)])
        similarity = texts @ model.embed_image(held.pictures).T
    ir1 = recall_at_1(similarity, held.true_of)
    tr1 = recall_at_1(similarity.T, held.true_of.T)
    found = validate(model, held, Recipe(1, precision="fp32"), step=3)
    assert found == Validation(3, ir1, tr1, pictures=6, texts=7)
    assert found is not None
    assert found.score == (ir1 + tr1) / 2


@pytest.mark.parametrize("size", [2, 4, 7])
def test_each_process_encodes_its_share(held: Held, size: int) -> None:
    shares: list[Tensor] = []

    class Alone(Ranks):
        def sum(self, numbers: Tensor) -> Tensor:
            shares.append(numbers.clone())
            return numbers

        def anywhere(self, here: bool, device: torch.device) -> bool:
            return here

    model, recipe = tiny_model(), Recipe(1, precision="fp32")
    for rank in range(size):
        validate(model, held, recipe, step=1, ranks=Alone(rank, size))
    with torch.inference_mode():
        torch.testing.assert_close(torch.stack(shares).sum(dim=0), model.embed_image(held.pictures))
    assert all(bool((torch.stack(shares)[:, row] != 0).any(dim=1).sum() == 1) for row in range(6))


def test_it_draws_nothing_and_has_no_dropout(held: Held) -> None:
    model = tiny_model().train()
    before = torch.get_rng_state()
    first = validate(model, held, Recipe(1), step=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert validate(model.train(), held, Recipe(1), step=1) == first
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_it_stops_before_the_next_batch(held: Held, batches: int) -> None:
    encoded: list[Tensor] = []
    pixels, asked = held.pixels, iter([False] * batches + [True])

    def counting(rows: range) -> Generator[Tensor]:
        for some in pixels(rows):
            encoded.append(some)
            yield some

    held.pixels = counting  # type: ignore[method-assign]
    assert validate(tiny_model(), held, Recipe(1, precision="fp32"), step=1, should_stop=lambda: next(asked)) is None
    assert len(encoded) == batches


def test_it_stops_where_another_process_wants_to(held: Held) -> None:
    class Stopped(Ranks):
        def anywhere(self, here: bool, device: torch.device) -> bool:
            return True

    assert validate(tiny_model(), held, Recipe(1), step=1, ranks=Stopped()) is None
