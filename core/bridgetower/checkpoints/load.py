"""Load a checkpoint as a network, in evaluation mode on the CPU."""

from pathlib import Path

import torch
from torch import Tensor

from bridgetower.checkpoints.checkpoint import Checkpoint, open_weights, readable
from bridgetower.checkpoints.tensor_names import TIED_KEY, WORDS_KEY, from_hf, hf_names
from bridgetower.errors import ModelError
from bridgetower.network.bridgetower import BridgeTower


def load_model(
    checkpoint: Checkpoint, dtype: torch.dtype | None = torch.float32, *, text_tower: bool = True
) -> BridgeTower:
    """Return the network on the CPU, in evaluation mode, with weights in `dtype`, or for None in the type of the file.

    Tensors that are neither fused nor converted stay memory-mapped. Raises `ModelError`.
    """
    with readable(checkpoint.folder):
        return _load(checkpoint, dtype, text_tower)


def _load(checkpoint: Checkpoint, dtype: torch.dtype | None, text_tower: bool) -> BridgeTower:
    with torch.device("meta"):  # shapes without memory: every parameter is replaced below
        model = BridgeTower(checkpoint.config, checkpoint.heads)
    if not text_tower:
        model.without_text_tower()
    tensors = open_weights(checkpoint)
    if checkpoint.config.tie_word_embeddings:
        if TIED_KEY in tensors:
            _check_tied(tensors[TIED_KEY].tensor(), tensors[WORDS_KEY].tensor(), checkpoint.folder)
        tensors[TIED_KEY] = tensors[WORDS_KEY]
    state = {
        name: from_hf(name, checkpoint.config, lambda key: tensors[key].tensor())
        for name, _ in model.named_parameters()
    }
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    for name, tensor in state.items():
        low, high = tensor.aminmax()  # NaN if the tensor contains one
        if not (low.isfinite() and high.isfinite()):
            key = hf_names(name, checkpoint.config)[0]
            raise ModelError(f"{checkpoint.folder}: {key} holds numbers that are not finite; fetch the weights again")
    model.load_state_dict(state, strict=False, assign=True)
    if text_tower:
        model.tie_words()
    return model.eval()


def _check_tied(decoder: Tensor, words: Tensor, folder: Path) -> None:
    if decoder.dtype != words.dtype or not torch.equal(decoder, words):
        raise ModelError(
            f"{folder}: {TIED_KEY} differs from the word embeddings, though config.json ties them; "
            "set tie_word_embeddings to false there if the file is right"
        )
