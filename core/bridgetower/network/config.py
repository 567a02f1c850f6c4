"""The shape of a BridgeTower, read strictly from a Hugging Face `config.json`.

Strict means: a key is used, or fixed to the only value that the reference can run, or on an ignore list; any other key
raises `ModelError`. If a key were dropped silently, the model might silently compute something else.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self, get_args

from bridgetower.errors import ModelError

MODEL_TYPE = "bridgetower"
VISION_HEAD_WIDTH = 64  # the configuration has no key for the vision heads; those of CLIP are 64 wide
# Larger than in any real network. Without limits, a damaged file could exhaust the memory before its weights are read.
_MOST = 2**31 - 1
_MOST_OF = {
    "num_hidden_layers": 200,
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "contrastive_hidden_size": 2**16,
    "vocab_size": 2**24,
    "max_position_embeddings": 2**20,
    "type_vocab_size": 2**16,
    "image_size": 2**12,
}
LINK_TOWER_TYPES = ("add", "scaled_add", "interpolate")

# Keys for which the reference supports a single value: other values are refused, and this value is written back.
_FIXED_TOP = {"model_type": MODEL_TYPE, "hidden_act": "gelu", "share_link_tower_layers": False}
_FIXED_TEXT = {"hidden_act": "gelu", "is_decoder": False, "add_cross_attention": False}
_LEGACY_TEXT = {"position_embedding_type": "absolute"}  # only in old files, so not written back
_FIXED_VISION = {"remove_last_layer": False, "num_channels": 3}

# `transformers` 4 and 5 write these keys into every section; none changes the results of an encoder.
_IGNORED_LIBRARY_KEYS = frozenset(
    """
    architectures bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_factor
    initializer_range is_encoder_decoder label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores pad_token_id prefix problem_type pruned_heads remove_invalid_values repetition_penalty
    return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 use_cache
    """.split()
)
# The public checkpoints contain settings of their training code, which the released network does not read.
_IGNORED_TRAINING_KEYS = frozenset(
    """
    cache_dir classifier_drop_rate classifier_dropout cross_modal_transform_shared drop_rate head_hidden_scale
    image_size init_layernorm_from_vit input_image_embed_size input_text_embed_size link_tower_shared log_dir loss_names
    max_text_len mlp_ratio nlvr2_head_format num_nodes only_load_cross_modal_from_meter patch_size
    resolution_before stop_gradient task_head_layers test_only text_config_dict tie_word_embeddings tokenizer
    vision_config_dict vit vocab_size vqav2_label_size
    """.split()
)
_IGNORED_PREFIXES = ("_", "downstream_fusion", "freeze_", "unfreeze_", "vit_")


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The RoBERTa tower. The cross-modal layers have the same width, heads and feed-forward size."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 514  # includes pad_token_id + 1 positions that no token uses
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"text_config: hidden_size {self.hidden_size} does not divide into {self.num_attention_heads} heads"
            )
        if not self.pad_token_id < self.vocab_size:
            raise ModelError(f"text_config: pad_token_id {self.pad_token_id} lies outside vocab_size {self.vocab_size}")
        if self.max_tokens < 1:
            raise ModelError(
                f"text_config: max_position_embeddings {self.max_position_embeddings} leaves no position for a token"
            )

    @property
    def max_tokens(self) -> int:
        """The number of tokens, special ones included, of the longest text that has positions."""
        return self.max_position_embeddings - self.pad_token_id - 1


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The CLIP tower. Heads are always `VISION_HEAD_WIDTH` wide, the feed-forward is four times `hidden_size`."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    patch_size: int = 16
    image_size: int = 288
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.hidden_size % VISION_HEAD_WIDTH:
            raise ModelError(f"vision_config: hidden_size {self.hidden_size} is not a multiple of {VISION_HEAD_WIDTH}")
        if self.patch_size > self.image_size:
            raise ModelError(f"vision_config: patch_size {self.patch_size} exceeds image_size {self.image_size}")

    @property
    def num_attention_heads(self) -> int:
        return self.hidden_size // VISION_HEAD_WIDTH

    @property
    def num_tokens(self) -> int:
        """The number of visual tokens: one for each whole patch, and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The whole network. `hidden_size` and `num_hidden_layers` belong to the cross-modal encoder.

    Raises `ModelError` if the values contradict each other.
    """

    hidden_size: int
    num_hidden_layers: int
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    num_attention_heads: int = 12  # the reference writes it, but uses the heads of `text`
    layer_norm_eps: float = 1e-5
    link_tower_type: str = "add"
    share_cross_modal_transformer_layers: bool = True
    tie_word_embeddings: bool = False
    contrastive_hidden_size: int | None = None  # length of an ITC vector; None without an ITC head
    logit_scale_init_value: float = 2.6592  # ln(1 / 0.07)

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.hidden_size != self.text.hidden_size:
            raise ModelError(
                f"hidden_size {self.hidden_size} differs from text_config.hidden_size {self.text.hidden_size}: "
                "the cross-modal layers take their width from the text tower"
            )
        if self.num_hidden_layers > self.text.num_hidden_layers:
            raise ModelError(
                f"num_hidden_layers {self.num_hidden_layers} exceeds text_config.num_hidden_layers "
                f"{self.text.num_hidden_layers}: each cross-modal layer needs a text layer of its own"
            )
        if self.vision.num_hidden_layers < self.text.num_hidden_layers:
            # Both towers run as many layers as the text tower has; further vision layers are never run.
            raise ModelError(
                f"vision_config.num_hidden_layers {self.vision.num_hidden_layers} is less than "
                f"text_config.num_hidden_layers {self.text.num_hidden_layers}: the towers are walked in step"
            )
        if self.link_tower_type not in LINK_TOWER_TYPES:
            raise ModelError(
                f"link_tower_type {_shorten(self.link_tower_type)} is none of {', '.join(LINK_TOWER_TYPES)}"
            )

    @property
    def n_cross(self) -> int:
        """The number of layers of the cross-modal encoder, and so of the last layers of each tower that feed it."""
        return self.num_hidden_layers

    def with_contrastive_head(self) -> Self:
        """Return the configuration with a length of ITC vectors: if it has none, half the width, as published."""
        return self if self.contrastive_hidden_size else replace(self, contrastive_hidden_size=self.hidden_size // 2)

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any], source: str = "config.json") -> Self:
        """Read the parsed `config.json`; `source` names the file in errors.

        An absent key takes the default that Hugging Face documents, because its files omit values that equal the
        default. Only the two keys that are always written are required. Raises `ModelError`.
        """
        if mapping.get("model_type") != MODEL_TYPE:
            raise ModelError(
                f"{source}: model_type is {_shorten(mapping.get('model_type'))}, not {MODEL_TYPE!r}: "
                "point at a BridgeTower checkpoint"
            )
        text, vision = _section(mapping, "text_config", source), _section(mapping, "vision_config", source)
        # The reference never runs the separate norms of share_layernorm=false, so the flag alone changes nothing.
        if not vision.pop("share_layernorm", True) and mapping.get("init_layernorm_from_vision_encoder"):
            raise ModelError(
                f"{source}: init_layernorm_from_vision_encoder=true with share_layernorm=false is not supported "
                "(the reference cannot build it either): choose another checkpoint"
            )
        top = {k: v for k, v in mapping.items() if k not in _SEPARATE_KEYS}
        if top.get("logit_scale_init_value", 0) is None:
            del top["logit_scale_init_value"]
        try:
            return cls(
                text=TextConfig(**_read(TextConfig, text, _FIXED_TEXT | _LEGACY_TEXT, "text_config.")),
                vision=VisionConfig(**_read(VisionConfig, vision, _FIXED_VISION, "vision_config.")),
                **_read(cls, top, _FIXED_TOP, ""),
            )
        except ModelError as error:
            raise ModelError(f"{source}: {error}; choose another checkpoint, or fetch this one again") from None

    def to_json(self) -> dict[str, Any]:
        """Return a mapping that `transformers.BridgeTowerConfig` and `from_json` read as this configuration."""
        top = asdict(self)
        text, vision = top.pop("text"), top.pop("vision")
        if self.contrastive_hidden_size is None:
            del top["contrastive_hidden_size"]
        return {
            **_FIXED_TOP,
            **top,
            "init_layernorm_from_vision_encoder": False,
            "text_config": {"model_type": "bridgetower_text_model", **_FIXED_TEXT, **text},
            "vision_config": {
                "model_type": "bridgetower_vision_model",
                **_FIXED_VISION,
                "share_layernorm": True,
                **vision,
            },
        }

    def computing(self) -> dict[str, Any]:
        """Return the fields that results depend on: networks with equal weights and fields give equal results."""

        def kept(section: dict[str, Any]) -> dict[str, Any]:
            return {k: kept(v) if isinstance(v, dict) else v for k, v in section.items() if k not in _NO_EFFECT}

        fields_by_name = asdict(self)
        del fields_by_name["num_attention_heads"]  # the heads are those of `text`
        return kept(fields_by_name)


# Settings of training and of other programs, on which the results of the network do not depend.
_NO_EFFECT = frozenset(
    "hidden_dropout_prob attention_probs_dropout_prob bos_token_id eos_token_id logit_scale_init_value".split()
)
_SEPARATE_KEYS = frozenset({"text_config", "vision_config", "init_layernorm_from_vision_encoder"})  # read by name above


def _section(mapping: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    section = mapping.get(name) or {}  # absent, null and empty all mean: all defaults
    if not isinstance(section, Mapping):
        raise ModelError(f"{source}: {name} is {_shorten(section)}, not an object; fetch the file again")
    return dict(section)


def _read(cls: type[Any], mapping: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values of `mapping` for the fields of `cls`, types checked; `where` prefixes a key in errors."""
    known = {f.name: f for f in fields(cls) if f.name not in ("text", "vision")}
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key in known:
            values[key] = _check_type(where + key, value, known[key].type)
        elif key in fixed:
            if value != fixed[key]:
                raise ModelError(f"{where}{key}={_shorten(value)} is not supported, only {fixed[key]!r}")
        elif not (key in _IGNORED_LIBRARY_KEYS or key in _IGNORED_TRAINING_KEYS or key.startswith(_IGNORED_PREFIXES)):
            raise ModelError(f"unknown key {where}{key:.100}: it may change the network, so it is not ignored")
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ModelError(f"{where}{name} is missing: the file is not a complete BridgeTower configuration")
    return values


def _shorten(value: object) -> str:
    """Return the beginning of a value of the file, on one line, for a message."""
    return f"{value!r:.100}"


_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def _check_type(name: str, value: Any, expected: Any) -> Any:
    """Return `value` if it has the annotated type: an int is accepted as a float, a bool only as a bool."""
    allowed = get_args(expected) or (expected,)
    if float in allowed and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ModelError(f"{name} is too large a number: a file has it up to about 1e308") from None
    if type(value) not in allowed:
        wanted = " or ".join(_TYPE_NAMES[t] for t in allowed)
        raise ModelError(f"{name} is {json.dumps(value):.100}: {wanted} is wanted")
    return value


def _check_ranges(config: Any) -> None:
    """Check that numbers are finite, sizes positive and not absurd, token ids >= 0, probabilities in [0, 1)."""
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, float) and not math.isfinite(value):
            valid, what = False, "finite"
        elif type(value) is int and value > (most := _MOST_OF.get(f.name, _MOST)):
            valid, what = False, f"at most {most}"
        elif f.name.endswith("_prob"):
            valid, what = 0 <= value < 1, "in [0, 1)"
        elif f.name.endswith("token_id"):
            valid, what = value >= 0, "at least 0"
        elif type(value) in (int, float) and f.name != "logit_scale_init_value":
            valid, what = value > 0, "positive"
        else:
            continue
        if not valid:
            raise ModelError(f"{f.name} is {_shorten(value)}, it must be {what}")
