"""The trainer: what counts as true, what is drawn as false, what is masked, and that all of it learns and resumes."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bridgetower.network.bridgetower import BridgeTower, Fused
from bridgetower.training.losses import itc_loss
from bridgetower.training.trainer import Batch, Recipe, _parameter_groups, contrastive_loss, losses, mask_tokens, train
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


def entropy(queries: Tensor, keys: Tensor, scale: float, counts: Callable[[int, int], bool]) -> float:
    """Each query among the keys that count, written out."""
    rows = range(len(queries))
    logits = (scale * queries @ keys.T).tolist()
    sums = [sum(math.exp(logits[i][j]) for j in rows if counts(i, j)) for i in rows]
    return sum(math.log(sums[i]) - logits[i][i] for i in rows) / len(queries)


def test_the_contrastive_loss_is_that_of_the_model_and_each_picture_among_the_texts() -> None:
    text, image, cross, scale = unit(5, 1), unit(5, 2), unit(5, 3), torch.tensor(7.0)
    ours = contrastive_loss(text, image, cross, scale, torch.eye(5, dtype=torch.bool))
    image_rows = entropy(image, text, 7.0, lambda i, j: True)
    assert float(ours) == pytest.approx((3 * float(itc_loss(text, image, cross, scale)) + image_rows) / 4, rel=1e-5)


def test_a_pair_that_is_true_by_chance_is_no_negative_from_either_side() -> None:
    text, image, cross, scale = unit(4, 1), unit(4, 2), unit(4, 3), 7.0
    true_of = torch.eye(4, dtype=torch.bool)
    true_of[0, 1] = true_of[0, 2] = true_of[3, 1] = True  # and picture 1's text is not true of picture 0

    def by_text(i: int, j: int) -> bool:
        return i == j or not true_of[i, j]

    def by_image(i: int, j: int) -> bool:
        return by_text(j, i)

    expected = (
        entropy(text, image, scale, by_text)
        + entropy(text, cross, scale, by_text)
        + entropy(image, text, scale, by_image)
        + entropy(image, cross, scale, by_image)
    ) / 4
    ours = contrastive_loss(text, image, cross, torch.tensor(scale), true_of)
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_what_is_true_and_what_is_false_weigh_alike_in_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(DETERMINISTIC)

    def judge(pairs: Fused) -> Tensor:  # 6 true pairs, then 18 false ones
        return torch.tensor([[0.0, 3.0]] * 6 + [[0.0, 2.0]] * (len(pairs.pooled) - 6))

    monkeypatch.setattr(model, "itm", judge)
    with torch.no_grad():
        _, itm, _ = losses(model, make_batch(), Recipe(1), MASK, MASKABLE, torch.Generator().manual_seed(0))
    assert float(itm) == pytest.approx((math.log1p(math.exp(-3)) + math.log1p(math.exp(2))) / 2, rel=1e-5)


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
    assert int(easy[1:].min()) >= 2  # of 12, if all were drawn evenly
    assert int(hard[1:].min()) < int(easy[1:].min())
    assert int(hard.max()) > int(easy.max())


def queried(true_of: list[list[bool]]) -> Batch:
    """Six pairs, and queries of which it is known what they are true of."""
    batch = make_batch(foils=False)
    rows = torch.arange(len(true_of))
    return replace(
        batch, query_ids=batch.ids[rows] + 1, query_mask=batch.mask[rows], query_true_of=torch.tensor(true_of)
    )


def test_a_query_is_paired_with_a_picture_that_it_is_true_of_and_with_one_that_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = queried([[False, True, True, True, True, True], [False, False, False, False, True, False]])
    model, seen = tiny_model(DETERMINISTIC), list[tuple[Tensor, Tensor]]()
    real = model.fuse

    def spy(text, image, **keep):  # type: ignore[no-untyped-def]
        seen.append((text.layers[0][:, 1, 0], image.layers[0][:, 0, 0]))
        return real(text, image, **keep)

    def judge(pairs: Fused) -> Tensor:  # the pairs whose text is true come first: six, and one of each query
        return torch.tensor([[0.0, 3.0]] * 8 + [[0.0, 2.0]] * (len(pairs.pooled) - 8))

    monkeypatch.setattr(model, "fuse", spy)
    monkeypatch.setattr(model, "itm", judge)
    with torch.no_grad():
        _, itm, _ = losses(model, batch, Recipe(1), MASK, MASKABLE, torch.Generator().manual_seed(0))
    assert float(itm) == pytest.approx((math.log1p(math.exp(-3)) + math.log1p(math.exp(2))) / 2, rel=1e-5)
    texts, images = seen[0]
    assert len(texts) == 8 + 6 + 6 + 2
    assert torch.equal(texts[6:8], texts[-2:])  # each query once as true, once as false
    assert images[6] != images[0]
    assert images[7] == images[4]
    assert images[-2] == images[0]
    assert images[-1] != images[4]


@pytest.mark.parametrize("foils", [True, False])
def test_the_three_losses_reach_every_parameter(foils: bool) -> None:
    model = tiny_model(DETERMINISTIC).train()
    itc, itm, mlm = losses(model, make_batch(foils=foils), Recipe(1), MASK, MASKABLE, torch.Generator().manual_seed(0))
    (itc + itm + mlm).backward()
    unreached = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    # Of the last picture layer and of its bridge to the words only the first token is read; all else must learn.
    assert unreached == set()


def test_hard_negatives_are_never_pairs_that_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a text is false of one picture only, these two are each other's negative, however dissimilar they are."""
    batch = make_batch(4, foils=False)
    true_of = torch.ones(4, 4, dtype=torch.bool)
    true_of[torch.arange(4), torch.tensor([1, 2, 3, 0])] = False
    batch = replace(batch, true_of=true_of)
    seen: list[tuple[Tensor, Tensor]] = []
    model = tiny_model(DETERMINISTIC).train()
    real = model.fuse

    def spy(text, image, **keep):  # type: ignore[no-untyped-def]
        seen.append((text.layers[0][:, 0, 0], image.layers[0][:, 0, 0]))
        return real(text, image, **keep)

    monkeypatch.setattr(model, "fuse", spy)
    losses(model, batch, Recipe(1), MASK, MASKABLE, torch.Generator().manual_seed(0))
    texts, images = seen[0]
    assert torch.equal(texts, texts[[0, 1, 2, 3, 0, 1, 2, 3, 3, 0, 1, 2]])
    assert torch.equal(images, images[[0, 1, 2, 3, 1, 2, 3, 0, 0, 1, 2, 3]])
    assert len(set(texts.tolist())) == len(set(images.tolist())) == 4  # or any would be equal to any


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
        # Adam makes steps of its full length out of rounding where there is no gradient, as on the keys' biases.
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=2e-3)


def test_a_state_is_on_the_disk_and_takes_the_place_of_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.partial").write_text("mine")
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.fstat(file).st_ino))
    run(20, tmp_path / "state.pt", upto=5)
    assert (tmp_path / "state.partial").read_text() == "mine"
    assert (tmp_path / "state.pt").stat().st_ino in synced
    assert len(list(tmp_path.iterdir())) == 2


def one_step(model: BridgeTower, **recipe: Any) -> None:
    list(train(model, endless, Recipe(1, bf16=False, **recipe), mask_id=MASK, maskable=MASKABLE, seed=0))


def test_the_logit_scale_stays_in_its_bound() -> None:
    model = tiny_model(DETERMINISTIC)
    assert model.itc_head is not None
    with torch.no_grad():
        model.itc_head.logit_scale.fill_(5.0)
    one_step(model)
    assert model.itc_head.logit_scale.item() == pytest.approx(math.log(100))


def test_gradients_are_cut_to_a_length() -> None:
    model = tiny_model(DETERMINISTIC)
    one_step(model, clip_norm=1e-3)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-2)


def test_masked_words_weigh_as_much_as_is_asked() -> None:
    def of_word_head(weight: float) -> Tensor:
        model = tiny_model(DETERMINISTIC)
        one_step(model, clip_norm=1e9, mlm_weight=weight)
        assert model.mlm_head is not None
        gradient = model.mlm_head.transform.weight.grad
        assert gradient is not None
        return gradient

    torch.testing.assert_close(of_word_head(3.0), 3 * of_word_head(1.0), rtol=1e-4, atol=1e-6)


def test_what_is_new_learns_faster_and_matrices_alone_decay() -> None:
    model = tiny_model(DETERMINISTIC)
    names = {parameter: name for name, parameter in model.named_parameters()}
    told = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in _parameter_groups(model, Recipe(1, learning_rate=2.0, new_factor=3.0, weight_decay=0.5))
        for parameter in group["params"]  # type: ignore[attr-defined]
    }
    assert told.keys() == set(names.values())
    assert told["text_tower.word.weight"] == told["vision_tower.layers.0.attention.out.weight"] == (2.0, 0.5)
    assert told["vision_tower.layers.0.attention.out.bias"] == told["vision_tower.class_token"] == (2.0, 0.0)
    assert told["text_stream.0.mlp.up.weight"] == told["itc_head.text.weight"] == (6.0, 0.5)
    assert told["text_stream.0.mlp.up.bias"] == told["text_norm.weight"] == told["mlm_head.norm.weight"] == (6.0, 0.0)
    assert told["itc_head.logit_scale"] == (6.0, 0.0)


def test_training_leaves_attention_as_it_found_it() -> None:
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)  # the default
    steps = train(tiny_model(DETERMINISTIC), endless, Recipe(2), mask_id=MASK, maskable=MASKABLE, seed=0)
    next(steps)
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_the_learning_rate_may_stay_until_it_falls_at_the_end() -> None:
    recipe = Recipe(20, learning_rate=1e-3, warmup=0.1, decay=0.25, bf16=False)
    model = tiny_model(DETERMINISTIC)
    rates = [r.learning_rate for r in train(model, endless, recipe, mask_id=MASK, maskable=MASKABLE, seed=0)]
    assert rates == pytest.approx([5e-4, *[1e-3] * 15, 8e-4, 6e-4, 4e-4, 2e-4])


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
