"""The table of shapes is that of the parameters."""

from typing import Any

import pytest

from bridgetower.errors import ModelError
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.config import ModelConfig
from bridgetower.network.shapes import parameter_shapes
from bridgetower.records import Head
from tests.tiny import ALL_HEADS, tiny_config

CHANGES: list[dict[str, Any]] = [
    {},
    {"link_tower_type": "scaled_add", "tie_word_embeddings": True},
    {"link_tower_type": "interpolate", "share_cross_modal_transformer_layers": False},
    {
        "num_hidden_layers": 1,
        "vision": {"hidden_size": 128, "num_hidden_layers": 5, "patch_size": 14, "image_size": 98},
    },
]


@pytest.mark.parametrize("heads", [ALL_HEADS, frozenset(), *(frozenset({head}) for head in Head)], ids=len)
@pytest.mark.parametrize("changes", CHANGES)
def test_the_shapes_are_those_of_the_parameters(changes: dict[str, Any], heads: frozenset[Head]) -> None:
    config = tiny_config(**changes)
    parameters = BridgeTower(config, heads).named_parameters()
    assert parameter_shapes(config, heads) == {name: tuple(parameter.shape) for name, parameter in parameters}


def test_a_contrastive_head_needs_the_length_of_its_vectors() -> None:
    config: ModelConfig = tiny_config(contrastive_hidden_size=None)
    with pytest.raises(ModelError, match="contrastive_hidden_size is missing"):
        parameter_shapes(config, frozenset({Head.ITC}))
