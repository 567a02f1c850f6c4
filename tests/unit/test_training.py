"""The trainer: what counts as true, what is drawn as false, what is masked, and that all of it learns and resumes."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bridgetower.model import itc_loss
from bridgetower.training import Batch, Recipe, contrastive_loss, losses, mask_tokens, train
from tests.tiny import tiny_config, tiny_model

MASK = 4
MASKABLE = (torch.arange(400) >= 9).float()  # specials, and some words that may not be hidden
DETERMINISTIC = tiny_config(text={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})


def unit(rows: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def make_batch(size: int = 6, seed: int = 0, foils: bool = True) -> Batch:
    """Pairs that can be learnt: the picture's brightness is the text's word."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.arange(size) * 7 + 20
    pixels = (torch.arange(size)[:, None, None, None] - size / 2).expand(size, 3, 96, 96).clone()
    pixels += 0.1 * torch.randn(pixels.shape, generator=generator)
    ids = torch.tensor([0, 9, 0, 2]).repeat(size, 1)
    ids[:, 2] = words
    mask = torch.ones_like(ids, dtype=torch.bool)
    false_ids = ids.clone()
    false_ids[:, 2] = 300
    truth = torch.eye(size, dtype=torch.bool)
    return Batch(pixels, ids, mask, truth, false_ids if foils else None, mask if foils else None)


def test_the_contrastive_loss_is_that_of_the_model_where_nothing_is_true_by_chance() -> None:
    text, image, cross, scale = unit(5, 1), unit(5, 2), unit(5, 3), torch.tensor(7.0)
    ours = contrastive_loss(text, image, cross, scale, torch.eye(5, dtype=torch.bool))
    image_rows = torch.nn.functional.cross_entropy(scale * image @ text.T, torch.arange(5))
    assert ours == pytest.approx(float((3 * itc_loss(text, image, cross, scale) + image_rows) / 4), rel=1e-6)


def test_a_pair_that_is_true_by_chance_is_no_negative() -> None:
    text, image, cross, scale = unit(3, 1), unit(3, 2), unit(3, 3), torch.tensor(50.0)
    image[1] = text[0]  # picture 1 fits text 0 perfectly
    denied = contrastive_loss(text, image, cross, scale, torch.eye(3, dtype=torch.bool))
    true_of = torch.eye(3, dtype=torch.bool)
    true_of[0, 1] = True
    assert contrastive_loss(text, image, cross, scale, true_of) < denied - 1


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


def negatives(easy_share: float, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """How often each picture was the false one of the first text, int64 [6]; the first picture is its true one."""
    model, batch = tiny_model(DETERMINISTIC).train(), make_batch(foils=False)
    with torch.no_grad():
        model.itc_head.logit_scale.fill_(4.0)  # type: ignore[union-attr]
    seen: list[Tensor] = []
    real = model.fuse

    def spy(text, image, **keep):  # type: ignore[no-untyped-def]
        seen.append(image.layers[0][:, 0, 0])
        return real(text, image, **keep)

    monkeypatch.setattr(model, "fuse", spy)
    with torch.no_grad():
        for seed in range(60):
            generator = torch.Generator().manual_seed(seed)
            losses(model, batch, Recipe(1, easy_share=easy_share), MASK, MASKABLE, generator)
    pairs = seen[::2]  # every other call is that for the masked texts
    return torch.stack([torch.tensor([int((p[6] == p[i]).item()) for i in range(6)]) for p in pairs]).sum(dim=0)


def test_a_share_of_the_negatives_is_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    hard, easy = negatives(0.0, monkeypatch), negatives(1.0, monkeypatch)
    assert hard[0] == 0  # never the true one
    assert easy[0] == 0
    assert int(easy[1:].min()) >= 4  # of 12 expected
    assert int(hard.max()) > int(easy.max())


@pytest.mark.parametrize("foils", [True, False])
def test_the_three_losses_reach_every_parameter(foils: bool) -> None:
    model = tiny_model(DETERMINISTIC).train()
    itc, itm, mlm = losses(model, make_batch(foils=foils), Recipe(1), MASK, MASKABLE, torch.Generator().manual_seed(0))
    (itc + itm + mlm).backward()
    unreached = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    # Of the last picture layer and of its bridge to the words only the first token is read; all else must learn.
    assert unreached == set()


def test_hard_negatives_are_never_pairs_that_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all but one picture is true of a text, that one is the negative, however dissimilar it is."""
    batch = make_batch(4, foils=False)
    true_of = torch.ones(4, 4, dtype=torch.bool)
    true_of[torch.arange(4), torch.tensor([1, 2, 3, 0])] = False
    batch = replace(batch, true_of=true_of)
    seen: list[Tensor] = []
    model = tiny_model(DETERMINISTIC).train()
    real = model.fuse

    def spy(text, image, **keep):  # type: ignore[no-untyped-def]
        seen.append(image.layers[0][:, 0, 0])
        return real(text, image, **keep)

    monkeypatch.setattr(model, "fuse", spy)
    losses(model, batch, Recipe(1), MASK, MASKABLE, torch.Generator().manual_seed(0))
    own, hard = seen[0][:4], seen[0][4:8]
    assert torch.equal(hard, own[[1, 2, 3, 0]])


def endless(step: int) -> Iterator[Batch]:
    return (make_batch(seed=seed) for seed in count(step))


def run(steps: int, state: Path | None, upto: int | None = None) -> tuple[list[float], dict[str, Tensor]]:
    model = tiny_model(DETERMINISTIC)
    model.initialise(torch.Generator().manual_seed(3))
    recipe = Recipe(steps, learning_rate=2e-3, new_factor=1.0, warmup=0.1, bf16=False)
    totals = []
    for report in train(
        model, endless, recipe, mask_id=MASK, maskable=MASKABLE, seed=1, state_file=state, save_every=5
    ):
        totals.append(report.itc + report.itm + report.mlm)
        if report.step == upto:
            break
    return totals, model.state_dict()


def test_training_learns() -> None:
    totals, _ = run(60, None)
    assert sum(totals[-5:]) < 0.35 * sum(totals[:5])


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, weights = run(20, None)
    first, _ = run(20, tmp_path / "state.pt", upto=12)  # the last save was after step 10
    rest, resumed = run(20, tmp_path / "state.pt")
    assert first == pytest.approx(whole[:12])
    assert rest == pytest.approx(whole[10:], rel=1e-4)
    for name, tensor in weights.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=1e-4)  # rounding, through Adam


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    model = tiny_model(DETERMINISTIC)
    recipe = Recipe(20, learning_rate=1e-3, warmup=0.2, bf16=False)
    rates = [r.learning_rate for r in train(model, endless, recipe, mask_id=MASK, maskable=MASKABLE, seed=0)]
    assert len(rates) == 20
    assert rates.index(max(rates)) in (3, 4)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[:4] == sorted(rates[:4])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 1e-4
