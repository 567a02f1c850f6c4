"""Convert parameter names and tensors between our network and Hugging Face checkpoints.

Our network fuses matrices that are always used together: query, key and value of a self-attention, key and value of a
cross-attention, stacked in that order along the first axis. All other parameters are only renamed.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bridgetower.network.config import ModelConfig
from bridgetower.records import Head

if TYPE_CHECKING:
    from torch import Tensor

TOWERS_PREFIX = "bridgetower."  # of every key outside the heads; files of the class without heads omit it
HEAD_PREFIXES = {
    Head.ITC: ("itc_text_head.", "itc_image_head.", "itc_cross_modal_head.", "logit_scale"),
    Head.ITM: ("itm_score.",),
    Head.MLM: ("mlm_score.",),
}

# Keys that a checkpoint may contain and the network never reads.
IGNORED_KEYS = re.compile(
    r"bridgetower\."
    r"(text_model\.pooler\.dense\.(weight|bias)"  # a pooler on the text tower alone; the network pools after fusion
    r"|text_model\.embeddings\.(position_ids|token_type_ids)"  # constants that old versions saved
    r"|vision_model\.visual\.embeddings\.position_ids"
    r"|vision_model\.visual\.ln_separate\.\d+\.(weight|bias))"  # norms of share_layernorm=false, which are never run
)
WORDS_KEY = "bridgetower.text_model.embeddings.word_embeddings.weight"
TIED_KEY = "mlm_score.decoder.weight"  # a copy of the word embeddings, if the configuration ties them

# Section of our network -> (prefix there, {start of a name here: start of the name there}); "{a,b}" is a fused matrix.
_POST_NORM_MLP = {"mlp.up": "intermediate.dense", "mlp.down": "output.dense", "norm_mlp": "output.LayerNorm"}
_TEXT_LAYER = {
    "attention.qkv": "attention.self.{query,key,value}",
    "attention.out": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    **_POST_NORM_MLP,
}
_CROSS_LAYER = {
    "self_attention.qkv": "attention.self.{query,key,value}",
    "self_attention.out": "attention.output.dense",
    "norm_self": "attention.output.LayerNorm",
    "cross_attention.q.": "crossattention.self.query.",
    "cross_attention.kv": "crossattention.self.{key,value}",
    "cross_attention.out": "crossattention.output.dense",
    "norm_cross": "crossattention.output.LayerNorm",
    **_POST_NORM_MLP,
}
_VISION_LAYER = {
    "attention.qkv.": "attn.in_proj_",  # fused there, too
    "attention.out": "attn.out_proj",
    "norm_attention": "ln_1",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
    "norm_mlp": "ln_2",
}
_BRIDGE = {"norm": "LayerNorm", "scale": "scaled_factor", "beta": "beta"}
_SAME = {"": ""}
_SECTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "text_tower": (
        "bridgetower.text_model.embeddings.",
        {
            "word": "word_embeddings",
            "position": "position_embeddings",
            "token_type": "token_type_embeddings",
            "norm": "LayerNorm",
        },
    ),
    "text_tower.layers": ("bridgetower.text_model.encoder.layer.", _TEXT_LAYER),
    "vision_tower": (
        "bridgetower.vision_model.visual.",
        {
            "patch": "embeddings.patch_embedding",
            "class_token": "embeddings.class_embedding",
            "position": "embeddings.position_embedding.weight",
            "norm_pre": "ln_pre",
            "norm_post": "ln_post",
        },
    ),
    "vision_tower.layers": ("bridgetower.vision_model.visual.transformer.resblocks.", _VISION_LAYER),
    "text_transforms": ("bridgetower.cross_modal_text_transform.", _SAME),
    "image_transforms": ("bridgetower.cross_modal_image_transform.", _SAME),
    "stream_type": ("bridgetower.token_type_embeddings.", _SAME),
    "text_norm": ("bridgetower.cross_modal_text_layernorm.", _SAME),
    "image_norm": ("bridgetower.cross_modal_image_layernorm.", _SAME),
    "text_bridges": ("bridgetower.cross_modal_text_link_tower.", _BRIDGE),
    "image_bridges": ("bridgetower.cross_modal_image_link_tower.", _BRIDGE),
    "text_stream": ("bridgetower.cross_modal_text_layers.", _CROSS_LAYER),
    "image_stream": ("bridgetower.cross_modal_image_layers.", _CROSS_LAYER),
    "text_pooler": ("bridgetower.cross_modal_text_pooler.dense.", _SAME),
    "image_pooler": ("bridgetower.cross_modal_image_pooler.dense.", _SAME),
    "itc_head": (
        "",
        {
            "text": "itc_text_head.fc",
            "image": "itc_image_head.fc",
            "cross": "itc_cross_modal_head.fc",
            "logit_scale": "logit_scale",
        },
    ),
    "itm_head": ("itm_score.fc.", _SAME),
    "mlm_head": (
        "mlm_score.",
        {
            "transform": "transform.dense",
            "norm": "transform.LayerNorm",
            "decoder.weight": "decoder.weight",
            "decoder.bias": "bias",
        },
    ),
}


def hf_names(name: str, config: ModelConfig) -> tuple[str, ...]:
    """Return the checkpoint keys of our parameter `name`: one, or several that are stacked into it, in order."""
    match = re.fullmatch(r"([a-z_]+(?:\.layers)?)\.(?:(\d+)\.)?(.+)", name)
    assert match is not None, name
    section, index, rest = match.groups()
    prefix, renames = _SECTIONS[section]
    shared = section.endswith("_transforms") and config.share_cross_modal_transformer_layers
    if index is not None and not shared:
        prefix += f"{index}."
    ours = next(start for start in renames if rest.startswith(start))
    key = prefix + renames[ours] + rest.removeprefix(ours)
    before, _, fused = key.partition("{")
    if not fused:
        return (key,)
    parts, _, after = fused.partition("}")
    return tuple(before + part + after for part in parts.split(","))


def from_hf(name: str, config: ModelConfig, tensor: "Callable[[str], Tensor]") -> "Tensor":
    """Return our parameter `name` from the tensors of a checkpoint; only fused ones are copied."""
    import torch

    parts = [tensor(key) for key in hf_names(name, config)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def to_hf(parameters: "Mapping[str, Tensor]", config: ModelConfig) -> "dict[str, Tensor]":
    """Return the tensors of a checkpoint from all our parameters, as views: the inverse of `from_hf`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        keys = hf_names(name, config)
        tensors.update(zip(keys, parameter.chunk(len(keys)) if len(keys) > 1 else (parameter,), strict=True))
    return tensors


def normalised_key(key: str) -> str:
    """Return `key` with `TOWERS_PREFIX`, which files of the class without heads omit."""
    known = (TOWERS_PREFIX, *(prefix for prefixes in HEAD_PREFIXES.values() for prefix in prefixes))
    return key if key.startswith(known) else TOWERS_PREFIX + key
