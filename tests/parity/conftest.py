"""The reference: tiny `transformers` models with random weights, saved by `transformers`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import (
    BridgeTowerConfig,
    BridgeTowerForContrastiveLearning,
    BridgeTowerForImageAndTextRetrieval,
    BridgeTowerForMaskedLM,
)

from bridgetower.records import Head
from tests.tiny import randomise

CLASSES = {
    Head.ITC: BridgeTowerForContrastiveLearning,
    Head.ITM: BridgeTowerForImageAndTextRetrieval,
    Head.MLM: BridgeTowerForMaskedLM,
}
VOCABULARY = 400


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def reference_config(
    *,
    patch: int,
    image: int,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    **top: Any,
) -> BridgeTowerConfig:
    """3 + 3 layers of width 64 and 2 cross-modal ones, but for what is given."""
    text_config = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 34,
    }
    vision_config = {"hidden_size": 64, "num_hidden_layers": 3, "patch_size": patch, "image_size": image}
    defaults = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "contrastive_hidden_size": 32,
        "logit_scale_init_value": 2.6592,  # has no default there
    }
    return BridgeTowerConfig(
        text_config={**text_config, **(text or {})},
        vision_config={**vision_config, **(vision or {})},
        **{**defaults, **top},
    )


@dataclass(frozen=True)
class Reference:
    """The classes of the reference on one set of weights."""

    models: Mapping[Head, Any]

    def save(self, folder: Path, **options: Any) -> Path:
        """One checkpoint with all the heads, as the public one with three heads is: one class, the others added."""
        *others, host = self.models.values()  # the class with the MLM head knows which weights are tied
        for other in others:
            for name, module in other.named_children():
                if name != "bridgetower":
                    host.add_module(name, module)
            for name, parameter in other.named_parameters(recurse=False):
                host.register_parameter(name, parameter)
        host.save_pretrained(folder, **options)
        return folder


def make_reference(config: BridgeTowerConfig, heads: tuple[Head, ...], seed: int = 0) -> Reference:
    models = {head: CLASSES[head](config).eval() for head in heads}
    backbone = next(iter(models.values())).bridgetower
    for model in models.values():
        model.bridgetower = backbone
        model.tie_weights()
        randomise(model, seed)
    return Reference(models)


def record(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """A mapping that fills with the output of each module when it next runs; a pair gives its first."""
    seen: dict[str, Tensor] = {}

    def hook(label: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[label] = output[0] if isinstance(output, tuple) else output

        return keep

    for label, module in modules.items():
        module.register_forward_hook(hook(label))
    return seen


def inputs(image_size: int, lengths: tuple[int, ...] = (9, 4, 14), seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """ids int64 [B, T] between <s> and </s>, mask bool [B, T], pixels [B, 3, H, W]; padded where lengths differ."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids[:, 0] = 0
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 2
    pixels = torch.randn(len(lengths), 3, image_size, image_size, generator=generator)
    return ids.masked_fill(~mask, 1), mask, pixels
