"""Names and fused matrices: what goes out comes back, key for key."""

from collections import Counter
from typing import Any

import pytest
import torch

from bridgetower.checkpoints.tensor_names import (
    HEAD_PREFIXES,
    IGNORED_KEYS,
    TOWERS_PREFIX,
    from_hf,
    hf_names,
    normalised_key,
    to_hf,
)
from tests.tiny import tiny_config, tiny_model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share_cross_modal_transformer_layers": False, "link_tower_type": "interpolate"},
        {"num_hidden_layers": 1, "share_cross_modal_transformer_layers": False},
        {"num_hidden_layers": 3, "link_tower_type": "scaled_add"},
    ],
)
def test_out_and_back(changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    parameters = dict(tiny_model(config).named_parameters())
    keys = Counter(key for name in parameters for key in hf_names(name, config))
    assert set(keys.values()) == {1}
    tensors = to_hf({name: p.detach() for name, p in parameters.items()}, config)
    assert tensors.keys() == keys.keys()
    for name, parameter in parameters.items():
        assert torch.equal(from_hf(name, config, tensors.__getitem__), parameter), name


def test_query_key_and_value_are_stacked_in_this_order() -> None:
    name = "text_tower.layers.1.attention.qkv.weight"
    prefix = "bridgetower.text_model.encoder.layer.1.attention.self."
    names = (f"{prefix}query.weight", f"{prefix}key.weight", f"{prefix}value.weight")
    assert hf_names(name, tiny_config()) == names
    parts = {key: torch.full((2, 2), float(i)) for i, key in enumerate(names)}
    assert from_hf(name, tiny_config(), parts.__getitem__)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_one_projection_has_no_number_and_several_have() -> None:
    shared, separate = tiny_config(), tiny_config(share_cross_modal_transformer_layers=False)
    key = "bridgetower.cross_modal_text_transform"
    assert hf_names("text_transforms.0.weight", shared) == (f"{key}.weight",)
    assert hf_names("text_transforms.1.weight", separate) == (f"{key}.1.weight",)


def test_what_needs_no_fusing_is_not_copied() -> None:
    words = torch.zeros(3, 2)
    assert from_hf("text_tower.word.weight", tiny_config(), lambda _: words) is words
    [out] = to_hf({"text_tower.word.weight": words}, tiny_config()).values()
    assert out is words


def test_keys_of_the_class_without_a_head_get_their_prefix() -> None:
    assert normalised_key("text_model.pooler.dense.bias") == TOWERS_PREFIX + "text_model.pooler.dense.bias"
    for key in (
        "bridgetower.text_model.x",
        "itc_text_head.fc.bias",
        "itm_score.fc.bias",
        "mlm_score.bias",
        "logit_scale",
    ):
        assert normalised_key(key) == key


def test_no_key_that_the_network_reads_is_on_the_ignore_list() -> None:
    config = tiny_config()
    keys = [key for name, _ in tiny_model(config).named_parameters() for key in hf_names(name, config)]
    assert not [key for key in keys if IGNORED_KEYS.fullmatch(key)]
    heads = tuple(prefix for prefixes in HEAD_PREFIXES.values() for prefix in prefixes)
    assert all(key.startswith((TOWERS_PREFIX, *heads)) for key in keys)
