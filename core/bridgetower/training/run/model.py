"""The model of a run: loaded to be trained, and saved as a checkpoint that `bt` and `transformers` take."""

from pathlib import Path

import torch

from bridgetower.checkpoints.checkpoint import Checkpoint, open_weights, readable
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.save import copy_tokenizer, save
from bridgetower.checkpoints.tensor_names import WORDS_KEY
from bridgetower.errors import OutputError, UsageError
from bridgetower.files.os_errors import writing
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.records import Head
from bridgetower.training.draws import generator_of

_SMALL_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


def require_new(checkpoint: Checkpoint, heads: tuple[Head, ...]) -> None:
    """Raise UsageError for a new head that the model has already."""
    for head in heads:
        if head in checkpoint.heads:
            raise UsageError(f"{checkpoint.name}: it has an {head.name} head already; leave out --new-head {head}")


def load(checkpoint: Checkpoint, new_heads: tuple[Head, ...], seed: int, device: torch.device) -> BridgeTower:
    """Return the network with weights in fp32 on the device, new heads drawn from the seed. Raises ModelError."""
    model = load_model(checkpoint).add_heads(frozenset(new_heads), generator_of(seed, "new heads"))
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # of their own, no pages of the file
    return model.to(device)


class Keeping:
    """Keeps the network of a run as a checkpoint, with what that has of the model that the run began with.

    That model is read only here, because its folder may be moved while the run lasts.
    """

    def __init__(self, init: Checkpoint, tokenizer: Path) -> None:
        """Copy the tokenizer to a folder of the run. Raises ModelError, OutputError."""
        self._preprocessing, self._tokenizer = init.preprocessing, tokenizer
        with readable(init.folder):
            self._type = _SMALL_TYPES.get(open_weights(init)[WORDS_KEY].dtype, torch.float32)
        with writing(tokenizer, OutputError):
            tokenizer.mkdir(exist_ok=True)
            copy_tokenizer(init.folder, tokenizer)

    def keep(self, model: BridgeTower, folder: Path) -> None:
        """Write the checkpoint in `folder`, its weights in the type that they had before. Raises OutputError.

        The folder is complete from the first time on: the configuration comes last, and each file is replaced as a
        whole.
        """
        with writing(folder, OutputError):
            save(model, folder, preprocessing=self._preprocessing, tokenizer_from=self._tokenizer, dtype=self._type)
