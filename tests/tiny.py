"""Small checkpoints with random weights, written in a moment: what tests use where a trained network is not the point.

Nothing in them is left at the value it was initialised with: a LayerNorm with weight 1 and bias 0, or a bridge with
factor 1, would hide that it is applied in the wrong place.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, processors
from torch import nn

from bridgetower.checkpoints.save import save
from bridgetower.checkpoints.tokenizer import SPECIAL_TOKENS
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.config import ModelConfig, TextConfig, VisionConfig
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Head

CAPTIONS = [
    "two cats on a couch", "a cat looking out of the window", "a dog in a car", "an image of two cats chilling",
    "three umbrellas left of a house", "twelve birds above the sea", "a red ball under a tree",
]  # fmt: skip

ALL_HEADS = frozenset(Head)


def tiny_config(**changes: Any) -> ModelConfig:
    """Width 64, 3 + 3 layers, 2 cross-modal ones, 96 px, patch 16; `text`, `vision` are mappings of changes."""
    text = replace(
        TextConfig(
            vocab_size=400,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=34,
        ),
        **changes.pop("text", {}),
    )
    vision = replace(VisionConfig(hidden_size=64, num_hidden_layers=3, image_size=96), **changes.pop("vision", {}))
    defaults = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "contrastive_hidden_size": 32,
    }
    return ModelConfig(text=text, vision=vision, **{**defaults, **changes})


def tiny_model(config: ModelConfig | None = None, heads: frozenset[Head] = ALL_HEADS, seed: int = 0) -> BridgeTower:
    """A network in evaluation mode, with random weights that depend on the seed alone."""
    model = BridgeTower(config or tiny_config(), heads)
    randomise(model, seed)
    return model.eval()


def tiny_checkpoint(
    folder: Path, config: ModelConfig | None = None, heads: frozenset[Head] = ALL_HEADS, seed: int = 0
) -> Path:
    """A complete folder: configuration, weights, preprocessing and a tokenizer that was learned from `CAPTIONS`."""
    model = tiny_model(config, heads, seed)
    size = model.config.vision.image_size
    save(model, folder, preprocessing=Preprocessing(shortest_edge=size, crop_size=size))
    tiny_tokenizer(folder)
    return folder


def tiny_tokenizer(folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer.json` of a byte-level BPE with RoBERTa's special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        CAPTIONS, vocab_size=350, min_frequency=1, special_tokens=[*SPECIAL_TOKENS], show_progress=False
    )
    bpe.save_model(str(folder))
    whole = Tokenizer.from_str(bpe.to_str())
    whole.add_special_tokens(
        [AddedToken(token, lstrip=token == "<mask>", normalized=False) for token in SPECIAL_TOKENS]
    )
    begin, end = SPECIAL_TOKENS.index("<s>"), SPECIAL_TOKENS.index("</s>")
    whole.post_processor = processors.RobertaProcessing(
        ("</s>", end), ("<s>", begin), trim_offsets=True, add_prefix_space=False
    )
    whole.save(str(folder / "tokenizer.json"))


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Draw every parameter, of our network or of the reference, so that signals neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("logit_scale"):
            parameter.fill_(1.5)
        elif parameter.ndim == 0:  # scaled_factor and beta
            parameter.copy_(0.6 + 0.1 * noise)
        elif parameter.ndim == 1 and name.endswith("weight"):  # norms
            parameter.copy_(1 + 0.3 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(0.3 * noise)
        elif "embedding" in name or "position" in name or "word" in name or "type" in name:
            parameter.copy_(noise)
        else:
            parameter.copy_(noise * 1.5 * parameter[0].numel() ** -0.5)
