"""The networks that are measured: their true shapes, with random weights where the real ones are gigabytes away.

Time does not depend on what the weights are, and both sides read the same file. `transformers` draws and writes it,
once; it stays in the work folder for the next run.
"""

import json
import shutil
from pathlib import Path

from bridgetower.checkpoints.find import DEMO_FOLDER, resolve
from bridgetower.errors import ModelError
from bridgetower.network.config import ModelConfig, TextConfig, VisionConfig
from bridgetower.pictures.preprocess import Preprocessing

# The contrastive vectors of `base` are our addition: the public checkpoint of that size has no such head.
SIZES = {
    "tiny": ModelConfig(
        hidden_size=64,
        num_hidden_layers=2,
        text=TextConfig(
            vocab_size=2048, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256
        ),
        vision=VisionConfig(hidden_size=64, num_hidden_layers=3, image_size=96),
        contrastive_hidden_size=32,
    ),
    "base": ModelConfig(hidden_size=768, num_hidden_layers=6, contrastive_hidden_size=512),
    "large": ModelConfig(
        hidden_size=1024,
        num_hidden_layers=6,
        text=TextConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
        vision=VisionConfig(hidden_size=1024, num_hidden_layers=24, patch_size=14, image_size=294),
        contrastive_hidden_size=512,
    ),
}
NAMES = ("tiny", "demo", "base", "large")  # "demo" is the bundled model itself, with the weights that it has


def checkpoint(size: str, work: Path) -> Path:
    """The folder of a checkpoint with all heads, fp32 but for "demo"; written into `work` if it is not there."""
    if size == "demo":
        return DEMO_FOLDER
    folder = work / "checkpoints" / size
    try:
        if resolve(str(folder)).config == SIZES[size]:
            return folder
    except ModelError:
        pass  # none yet, or a damaged one
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder.with_name(f"{size}.unfinished")
    _draw(SIZES[size], unfinished)
    unfinished.rename(folder)
    return folder


def _draw(config: ModelConfig, folder: Path) -> None:
    import torch
    from torch import nn
    from transformers import BridgeTowerConfig, BridgeTowerForMaskedLM, logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = BridgeTowerForMaskedLM(BridgeTowerConfig(**config.to_json()))
    # No class of the reference has all the heads; the public checkpoint that has them was put together like this.
    width, vector = config.hidden_size, config.contrastive_hidden_size
    assert vector is not None
    model.itc_text_head = nn.ModuleDict({"fc": nn.Linear(width, vector)})
    model.itc_image_head = nn.ModuleDict({"fc": nn.Linear(width, vector)})
    model.itc_cross_modal_head = nn.ModuleDict({"fc": nn.Linear(2 * width, vector)})
    model.itm_score = nn.ModuleDict({"fc": nn.Linear(2 * width, 2)})
    model.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
    model.save_pretrained(folder)

    side = config.vision.image_size
    preprocessing = Preprocessing(shortest_edge=side, crop_size=side).to_json()
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
    shutil.copyfile(DEMO_FOLDER / "tokenizer.json", folder / "tokenizer.json")  # its ids are few: all sizes have them
