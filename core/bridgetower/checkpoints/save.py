"""Save a network as a checkpoint in the Hugging Face layout, and convert a checkpoint."""

import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from bridgetower.checkpoints import hub
from bridgetower.checkpoints.checkpoint import Checkpoint, readable
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.hub import SAFETENSORS
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.safetensors_files import write_tensors
from bridgetower.checkpoints.tensor_names import WORDS_KEY, to_hf
from bridgetower.errors import ModelError, UsageError
from bridgetower.files.atomic import is_vacant, new_folder, replace_file, write_json
from bridgetower.files.os_errors import writing
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.layers import FeedForward
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Head, Say, quiet

# The class of `transformers` that a configuration names: only one is possible, so the first head present decides.
_ARCHITECTURES = {
    Head.ITC: "BridgeTowerForContrastiveLearning",
    Head.ITM: "BridgeTowerForImageAndTextRetrieval",
    Head.MLM: "BridgeTowerForMaskedLM",
}


def save(
    model: BridgeTower,
    folder: Path,
    *,
    preprocessing: Preprocessing | None = None,
    tokenizer_from: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint that `resolve` and `transformers` read: configuration, weights, and the optional parts.

    `tokenizer_from` is a folder whose tokenizer files are copied; `dtype` None keeps the type of the parameters. Each
    file is replaced as a whole, the configuration last, so a reader never sees a partial file.
    """
    if any(isinstance(module, FeedForward) and module.folded for module in model.modules()):
        raise ValueError("this network was folded for inference: its weights are no longer those of a checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    tensors = to_hf({name: p.detach() for name, p in model.named_parameters()}, config)
    # The reference has a pooler that it never runs, and reports a checkpoint without it as incomplete.
    word = tensors[WORDS_KEY]
    width = config.text.hidden_size
    tensors["bridgetower.text_model.pooler.dense.weight"] = word.new_zeros(width, width)
    tensors["bridgetower.text_model.pooler.dense.bias"] = word.new_zeros(width)
    tensors = {key: tensor.to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
    write_tensors(folder / SAFETENSORS, tensors)

    if tokenizer_from is not None:
        copy_tokenizer(tokenizer_from, folder)
    if preprocessing is not None:
        write_json(folder / hub.PREPROCESSOR_FILES[0], preprocessing.to_json())
    architecture = next((c for head, c in _ARCHITECTURES.items() if head in model.heads), "BridgeTowerModel")
    stored = {"architectures": [architecture], "dtype": str(dtype or word.dtype).removeprefix("torch.")}
    write_json(folder / "config.json", stored | config.to_json())


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer files of a checkpoint, each as a whole. Raises OSError."""
    for name in hub.TOKENIZER_FILES:
        if (source / name).is_file():
            replace_file(folder / name, partial(shutil.copyfile, source / name))


def convert(name: str, destination: Path, *, progress: bool = False, say: Say = quiet) -> Checkpoint:
    """Write the checkpoint `name` as a new folder, complete or not at all, with its weights in one safetensors file.

    Raises `ModelError`; `UsageError` if the folder exists and is not empty.
    """
    destination = Path(os.path.realpath(destination))
    with writing(destination, ModelError), suppress(FileNotFoundError):
        if not is_vacant(destination):
            raise UsageError(f"{destination}: it is there already and not empty; give a new folder")
    checkpoint = resolve(name, progress=progress, say=say)
    with readable(checkpoint.folder):
        return _convert(checkpoint, destination)


def _convert(checkpoint: Checkpoint, destination: Path) -> Checkpoint:
    model = load_model(checkpoint, dtype=None)
    names = (SAFETENSORS, hub.PREPROCESSOR_FILES[0], *hub.TOKENIZER_FILES, "config.json")
    with new_folder(destination, names, ModelError) as unfinished, writing(destination, ModelError):
        save(model, unfinished, preprocessing=checkpoint.preprocessing, tokenizer_from=checkpoint.folder)
    return resolve(str(destination))
