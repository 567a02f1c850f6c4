"""The shape of a network is read strictly: what is understood is kept, everything else is refused by name."""

import dataclasses
from typing import Any

import pytest
import torch

from bridgetower.errors import ModelError
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.config import ModelConfig, TextConfig, VisionConfig
from bridgetower.records import Head
from tests.tiny import tiny_config

# As the public checkpoint with three heads has it, with the sort of bookkeeping that stands in such files.
PUBLIC_LARGE: dict[str, Any] = {
    "architectures": ["BridgeTowerForContrastiveLearning"],
    "_name_or_path": "somewhere",
    "classifier_drop_rate": 0.1,
    "contrastive_hidden_size": 512,
    "downstream_fusion_method": "elmo",
    "drop_rate": 0.1,
    "freeze_RoBERTa": False,
    "head_hidden_scale": 2,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "init_layernorm_from_vision_encoder": False,
    "initializer_factor": 1,
    "input_image_embed_size": 1024,
    "is_encoder_decoder": False,
    "layer_norm_eps": 1e-05,
    "link_tower_type": "add",
    "logit_scale_init_value": 2.6592,
    "loss_names": {"itm": 1, "mlm": 1},
    "max_text_len": 50,
    "model_type": "bridgetower",
    "num_attention_heads": 16,
    "num_hidden_layers": 6,
    "share_cross_modal_transformer_layers": True,
    "share_link_tower_layers": False,
    "text_config": {
        "_name_or_path": "",
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_size": 1024,
        "id2label": {"0": "LABEL_0"},
        "intermediate_size": 4096,
        "max_position_embeddings": 514,
        "model_type": "bridgetower_text_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "pad_token_id": 1,
        "position_embedding_type": "absolute",
        "torch_dtype": None,
        "type_vocab_size": 1,
        "vocab_size": 50265,
    },
    "text_config_dict": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.26.0.dev0",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 294,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "share_layernorm": True,
        "vit_remove_last": False,
    },
    "vision_config_dict": None,
}


def changed(**changes: Any) -> dict[str, Any]:
    """`PUBLIC_LARGE` with keys set; "text_config.x" and "vision_config.x" reach inside."""
    result = {k: dict(v) if k in ("text_config", "vision_config") else v for k, v in PUBLIC_LARGE.items()}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (result[section] if section else result)[name] = value
    return result


def test_a_public_configuration() -> None:
    config = ModelConfig.from_json(PUBLIC_LARGE)
    assert config == ModelConfig(
        hidden_size=1024,
        num_hidden_layers=6,
        num_attention_heads=16,
        contrastive_hidden_size=512,
        text=TextConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
        vision=VisionConfig(hidden_size=1024, num_hidden_layers=24, patch_size=14, image_size=294),
    )
    assert config.n_cross == 6
    assert config.vision.num_tokens == 442
    assert config.vision.num_attention_heads == 16
    assert config.text.max_tokens == 512


def test_sections_take_the_documented_defaults() -> None:
    """Some versions of `transformers` leave out what equals the default: of a base checkpoint nearly everything."""
    config = ModelConfig.from_json(
        {
            "model_type": "bridgetower",
            "hidden_size": 768,
            "num_hidden_layers": 6,
            "text_config": {"model_type": "bridgetower_text_model"},
        }
    )
    assert (config.text.vocab_size, config.text.num_hidden_layers, config.text.intermediate_size) == (50265, 12, 3072)
    assert (config.vision.patch_size, config.vision.image_size, config.vision.num_tokens) == (16, 288, 325)
    assert config.contrastive_hidden_size is None
    assert config.logit_scale_init_value == pytest.approx(2.6592)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"contrastive_hidden_size": None},
        {"link_tower_type": "interpolate", "tie_word_embeddings": True, "layer_norm_eps": 1e-6},
        {"share_cross_modal_transformer_layers": False, "logit_scale_init_value": -1.5},
        {"text": {"pad_token_id": 5, "hidden_dropout_prob": 0.0}, "vision": {"patch_size": 7, "num_hidden_layers": 4}},
    ],
)
def test_written_and_read_again(changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    assert ModelConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("key", ["share_layer_norm", "text_config.rope_theta", "vision_config.qkv_bias"])
def test_an_unknown_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ModelError, match=rf"^some/config\.json: unknown key {key}: "):
        ModelConfig.from_json(changed(**{key: 1}), source="some/config.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("share_link_tower_layers", True),
        ("text_config.hidden_act", "gelu_new"),
        ("text_config.is_decoder", True),
        ("text_config.add_cross_attention", True),
        ("text_config.position_embedding_type", "relative_key"),
        ("vision_config.remove_last_layer", True),
        ("vision_config.num_channels", 1),
    ],
)
def test_what_the_reference_cannot_run_is_refused(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"{key}={value!r} is not supported"):
        ModelConfig.from_json(changed(**{key: value}))


def test_separate_norms_are_refused_only_where_the_reference_breaks() -> None:
    separate = {"vision_config.share_layernorm": False}
    assert ModelConfig.from_json(changed(**separate)) == ModelConfig.from_json(PUBLIC_LARGE)
    initialised = {"init_layernorm_from_vision_encoder": True}
    assert ModelConfig.from_json(changed(**initialised)) == ModelConfig.from_json(PUBLIC_LARGE)
    with pytest.raises(ModelError, match="init_layernorm_from_vision_encoder=true with share_layernorm=false"):
        ModelConfig.from_json(changed(**separate, **initialised))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "clip", "model_type is 'clip', not 'bridgetower'"),
        ("link_tower_type", "multiply", "'multiply' is none of add, scaled_add, interpolate"),
        ("hidden_size", 768, "hidden_size 768 differs from text_config.hidden_size 1024"),
        ("num_hidden_layers", 25, "num_hidden_layers 25 exceeds text_config.num_hidden_layers 24"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0, it must be positive"),
        ("num_hidden_layers", "6", 'num_hidden_layers is "6": a whole number is wanted'),
        ("num_hidden_layers", True, "num_hidden_layers is true: a whole number is wanted"),
        ("num_hidden_layers", None, "num_hidden_layers is null: a whole number is wanted"),
        ("contrastive_hidden_size", 0.5, "contrastive_hidden_size is 0.5: a whole number or null is wanted"),
        ("tie_word_embeddings", 1, "tie_word_embeddings is 1: true or false is wanted"),
        ("layer_norm_eps", True, "layer_norm_eps is true: a number is wanted"),
        ("layer_norm_eps", 10**400, "layer_norm_eps is too large a number"),
        ("layer_norm_eps", 0, "layer_norm_eps is 0.0, it must be positive"),
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, it must be at most 200"),
        ("contrastive_hidden_size", 10**30, "hidden_size is 1" + 30 * "0" + ", it must be at most 65536"),
        ("text_config.hidden_size", 2**30, "hidden_size is 1073741824, it must be at most 65536"),
        ("text_config.intermediate_size", 2**30, "intermediate_size is 1073741824, it must be at most 262144"),
        ("text_config.vocab_size", 2**30, "vocab_size is 1073741824, it must be at most 16777216"),
        ("text_config.max_position_embeddings", 2**30, "embeddings is 1073741824, it must be at most 1048576"),
        ("text_config.type_vocab_size", 2**30, "type_vocab_size is 1073741824, it must be at most 65536"),
        ("text_config.bos_token_id", 2**40, "bos_token_id is 1099511627776, it must be at most 2147483647"),
        ("vision_config.hidden_size", 2**30, "hidden_size is 1073741824, it must be at most 65536"),
        ("vision_config.image_size", 2**30, "image_size is 1073741824, it must be at most 4096"),
        ("hidden_act", "x" * 10**6, "hidden_act='x{99} is not supported"),
        ("layer_norm_eps", float("inf"), "layer_norm_eps is inf, it must be finite"),
        ("logit_scale_init_value", float("nan"), "logit_scale_init_value is nan, it must be finite"),
        ("text_config.num_attention_heads", 15, "1024 does not divide into 15 heads"),
        ("text_config.vocab_size", 1, "pad_token_id 1 lies outside vocab_size 1"),
        ("text_config.max_position_embeddings", 2, "2 leaves no position for a token"),
        ("text_config.hidden_dropout_prob", 1, r"hidden_dropout_prob is 1.0, it must be in \[0, 1\)"),
        ("text_config.pad_token_id", -1, "pad_token_id is -1, it must be at least 0"),
        ("text_config", [], None),
        ("vision_config.hidden_size", 1000, "1000 is not a multiple of 64"),
        ("vision_config.patch_size", 295, "patch_size 295 exceeds image_size 294"),
        ("vision_config.image_size", [294, 294], r"image_size is \[294, 294\]: a whole number is wanted"),
        ("vision_config.num_hidden_layers", 23, "vision_config.num_hidden_layers 23 is less than"),
    ],
)
def test_values_that_cannot_be_wired_are_refused(key: str, value: object, message: str | None) -> None:
    if message is None:  # an empty section is one of defaults, which do not go with the width of this file
        message = "hidden_size 1024 differs from text_config.hidden_size 768"
    with pytest.raises(ModelError, match=message) as caught:
        ModelConfig.from_json(changed(**{key: value}), source="some/config.json")
    assert str(caught.value).startswith("some/config.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
def test_a_section_that_is_no_object_is_refused(section: str) -> None:
    with pytest.raises(ModelError, match=f"some/config.json: {section} is 'x', not an object"):
        ModelConfig.from_json(changed(**{section: "x"}), source="some/config.json")


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_hidden_layers"])
def test_what_no_file_leaves_out_is_required(key: str) -> None:
    mapping = {k: v for k, v in PUBLIC_LARGE.items() if k != key}
    with pytest.raises(ModelError, match=key):
        ModelConfig.from_json(mapping)


def test_configurations_are_frozen() -> None:
    config = tiny_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 1  # type: ignore[misc]
    assert hash(config) == hash(tiny_config())


def test_the_largest_network_that_a_file_can_claim_is_laid_out_without_memory() -> None:
    config = tiny_config(
        hidden_size=2**16,
        text={"hidden_size": 2**16, "intermediate_size": 2**18, "vocab_size": 2**24, "num_attention_heads": 1},
        vision={"hidden_size": 2**16, "image_size": 2**12, "patch_size": 1},
    )
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in BridgeTower(config, frozenset(Head)).parameters()) > 2**40
