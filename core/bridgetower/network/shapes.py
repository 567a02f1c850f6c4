"""The name and shape of every parameter of a network, without PyTorch.

A checkpoint is checked against them before PyTorch is imported. A test holds them to the parameters of `BridgeTower`.
"""

from collections.abc import Iterator
from functools import cache
from itertools import chain

from bridgetower.errors import ModelError
from bridgetower.network.config import ModelConfig
from bridgetower.records import Head

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@cache
def parameter_shapes(config: ModelConfig, heads: frozenset[Head]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter by its name. The words of a tied MLM head are those of the text tower."""
    return dict(chain(_text_tower(config), _vision_tower(config), _cross_modal(config), _heads(config, heads)))


def _text_tower(config: ModelConfig) -> Shapes:
    text = config.text
    width = text.hidden_size
    yield "text_tower.word.weight", (text.vocab_size, width)
    yield "text_tower.position.weight", (text.max_position_embeddings, width)
    yield "text_tower.token_type.weight", (text.type_vocab_size, width)
    yield from _norm("text_tower.norm", width)
    for k in range(text.num_hidden_layers):
        layer = f"text_tower.layers.{k}"
        yield from _self_attention(f"{layer}.attention", width)
        yield from _norm(f"{layer}.norm_attention", width)
        yield from _feed_forward(f"{layer}.mlp", width, text.intermediate_size)
        yield from _norm(f"{layer}.norm_mlp", width)


def _vision_tower(config: ModelConfig) -> Shapes:
    vision = config.vision
    width = vision.hidden_size
    yield "vision_tower.class_token", (width,)
    yield "vision_tower.position", (vision.num_tokens, width)
    yield "vision_tower.patch.weight", (width, 3, vision.patch_size, vision.patch_size)
    yield from _norm("vision_tower.norm_pre", width)
    for k in range(vision.num_hidden_layers):
        layer = f"vision_tower.layers.{k}"
        yield from _norm(f"{layer}.norm_attention", width)
        yield from _self_attention(f"{layer}.attention", width)
        yield from _norm(f"{layer}.norm_mlp", width)
        yield from _feed_forward(f"{layer}.mlp", width, 4 * width)
    yield from _norm("vision_tower.norm_post", width)


def _cross_modal(config: ModelConfig) -> Shapes:
    width = config.hidden_size
    transforms = 1 if config.share_cross_modal_transformer_layers else config.n_cross
    for stream, tower in (("text", config.text.hidden_size), ("image", config.vision.hidden_size)):
        for k in range(transforms):
            yield from _linear(f"{stream}_transforms.{k}", tower, width)
        yield from _norm(f"{stream}_norm", width)
        for k in range(config.n_cross - 1):
            if config.link_tower_type == "scaled_add":
                yield f"{stream}_bridges.{k}.scale", ()
            elif config.link_tower_type == "interpolate":
                yield f"{stream}_bridges.{k}.beta", ()
            yield from _norm(f"{stream}_bridges.{k}.norm", width)
        for k in range(config.n_cross):
            layer = f"{stream}_stream.{k}"
            yield from _self_attention(f"{layer}.self_attention", width)
            yield from _norm(f"{layer}.norm_self", width)
            yield from _linear(f"{layer}.cross_attention.q", width, width)
            yield from _linear(f"{layer}.cross_attention.kv", width, 2 * width)
            yield from _linear(f"{layer}.cross_attention.out", width, width)
            yield from _norm(f"{layer}.norm_cross", width)
            yield from _feed_forward(f"{layer}.mlp", width, config.text.intermediate_size)
            yield from _norm(f"{layer}.norm_mlp", width)
        yield from _linear(f"{stream}_pooler", width, width)
    yield "stream_type.weight", (2, width)


def _heads(config: ModelConfig, heads: frozenset[Head]) -> Shapes:
    width, vector, words = config.hidden_size, config.contrastive_hidden_size, config.text.vocab_size
    if Head.ITC in heads:
        if vector is None:
            raise ModelError("contrastive_hidden_size is missing: a contrastive head needs the length of its vectors")
        yield "itc_head.logit_scale", ()
        yield from _linear("itc_head.text", width, vector)
        yield from _linear("itc_head.image", width, vector)
        yield from _linear("itc_head.cross", 2 * width, vector)
    if Head.ITM in heads:
        yield from _linear("itm_head", 2 * width, 2)
    if Head.MLM in heads:
        yield from _linear("mlm_head.transform", width, width)
        yield from _norm("mlm_head.norm", width)
        if not config.tie_word_embeddings:
            yield "mlm_head.decoder.weight", (words, width)
        yield "mlm_head.decoder.bias", (words,)


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _self_attention(name: str, width: int) -> Shapes:
    yield from _linear(f"{name}.qkv", width, 3 * width)
    yield from _linear(f"{name}.out", width, width)


def _feed_forward(name: str, width: int, inner: int) -> Shapes:
    yield from _linear(f"{name}.up", width, inner)
    yield from _linear(f"{name}.down", inner, width)
