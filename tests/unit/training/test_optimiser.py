"""The optimiser: what learns how fast, what decays, and how the rate rises and falls."""

from typing import Any

import pytest
import torch

from bridgetower.network.bridgetower import BridgeTower
from bridgetower.records import Head
from bridgetower.training.optimiser import freeze, parameter_groups, schedule
from bridgetower.training.recipe import Recipe
from tests.tiny import tiny_config, tiny_model


def told(model: BridgeTower, **recipe: Any) -> dict[str, tuple[float, float]]:
    """The learning rate and the weight decay of each parameter that learns."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    settings = Recipe(1, learning_rate=2.0, new_factor=3.0, weight_decay=0.5, **recipe)
    freeze(model, settings)
    groups: list[Any] = parameter_groups(model, settings)
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_what_is_new_learns_faster_and_matrices_alone_decay() -> None:
    model = tiny_model()
    rates = told(model)
    assert rates.keys() == {name for name, _ in model.named_parameters()}
    assert rates["text_tower.word.weight"] == rates["vision_tower.layers.0.attention.out.weight"] == (2.0, 0.5)
    assert rates["vision_tower.layers.0.attention.out.bias"] == rates["vision_tower.class_token"] == (2.0, 0.0)
    assert rates["text_stream.0.mlp.up.weight"] == rates["itc_head.text.weight"] == (6.0, 0.5)
    assert rates["text_stream.0.mlp.up.bias"] == rates["mlm_head.norm.weight"] == (6.0, 0.0)
    assert rates["itc_head.logit_scale"] == (6.0, 0.0)


def test_a_head_that_was_added_learns_as_the_others() -> None:
    model = tiny_model(heads=frozenset({Head.ITM}))
    model.add_heads(frozenset({Head.ITC, Head.MLM}), torch.Generator().manual_seed(0))
    assert told(model)["itc_head.image.weight"] == told(model)["mlm_head.decoder.weight"] == (6.0, 0.5)


def test_frozen_towers_are_not_in_the_optimiser() -> None:
    assert not any("tower." in name for name in told(tiny_model(), freeze="towers"))
    text = told(tiny_model(), freeze="text")
    assert "vision_tower.norm_post.weight" in text
    assert not any(name.startswith("text_tower.") for name in text)
    tied = told(tiny_model(tiny_config(tie_word_embeddings=True)), freeze="text")
    assert "mlm_head.decoder.bias" in tied
    assert "mlm_head.decoder.weight" not in tied


def rates(**recipe: Any) -> list[float]:
    settings = Recipe(20, **recipe)
    return [schedule(step, settings) for step in range(20)]


def test_the_rate_warms_up_and_decays_to_nothing() -> None:
    found = rates(warmup=0.2)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4:] == pytest.approx([1 - step / 16 for step in range(16)])


def test_the_rate_may_stay_until_it_falls_at_the_end() -> None:
    assert rates(warmup=0.1, decay=0.25) == pytest.approx([0.5, *[1.0] * 15, 0.8, 0.6, 0.4, 0.2])


def test_without_a_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rates(warmup=0.0)[0] == 1.0
