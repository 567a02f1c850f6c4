"""Prepare the network of a checkpoint: fused, folded, in one precision, its vectors checked against those of fp32.

The result is saved in the cache folder and memory-mapped by later starts, which then convert nothing, and read only the
weights that a command uses:

    prepared/<weights_sha256[:16]>-<config_sha256[:16]>-<precision>-<device>-<version of PyTorch>-<ours>.safetensors

Only the files that were used last are kept, and each may be deleted at any time. A file with a damaged header counts as
absent; if a file cannot be written, the next start prepares the network again.
"""

import errno
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.checkpoint import Checkpoint, readable
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.safetensors_files import StoredTensor, open_tensors, write_tensors
from bridgetower.errors import ModelError
from bridgetower.files.atomic import remove_abandoned
from bridgetower.files.regular_files import NotAFileError, is_own, open_own
from bridgetower.network import int8
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.layers import FeedForward
from bridgetower.records import INT8, Head, Say, quiet

# The type that the network computes in; for int8, all but the matrices.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}

# The least cosine between the vectors of a precision and of fp32 with which the precision may be used.
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.99}

_VERSION = 2
_NAME = r"[0-9a-f]{16}-[0-9a-f]{16}-[\w.+-]+\.safetensors"  # see `_cached_file`
_MOST_FILES = 6
_STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}  # as safetensors calls them
_TAKES_SECONDS = 500 * 1000**2  # bytes of weights from which they take seconds to prepare, and much of the memory
_PROBES = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network for inference, and the tensors of the file that its weights are mapped from, if it is on the CPU."""

    network: BridgeTower
    stored: Mapping[str, StoredTensor]

    def let_go(self, *sections: str) -> None:
        """Free the memory of the weights of these sections, if they are large; their next use maps them again."""
        if sum(tensor.stop - tensor.start for tensor in self.stored.values()) >= _TAKES_SECONDS:
            for name, tensor in self.stored.items():
                if name.startswith(sections):
                    tensor.let_go()


def load(checkpoint: Checkpoint, precision: str, device: str = "cpu", *, say: Say = quiet) -> Prepared:
    """Return the network in `precision` ("fp32", "bf16" or "int8"), without its text tower, for inference on `device`.

    `say` gets a line before a conversion that takes seconds, and if its result cannot be saved. Raises ModelError, also
    if the vectors in this precision differ too much from those in fp32.
    """
    with readable(checkpoint.folder):
        return _load(checkpoint, precision, device, say)


def _load(checkpoint: Checkpoint, precision: str, device: str, say: Say) -> Prepared:
    place = _cached_file(checkpoint, precision, device)
    cached = _load_cached(place, checkpoint, precision, device)
    if cached is not None:
        return cached
    takes_seconds = sum(file.stat().st_size for file in checkpoint.weights) > _TAKES_SECONDS
    if takes_seconds:
        say(f"preparing the weights of {checkpoint.name} in {precision}, once: this takes a moment")
    network = _prepare(checkpoint, precision, device)
    if replace(checkpoint).weights_sha256 != checkpoint.weights_sha256:  # a copy computes it again
        raise ModelError(f"{checkpoint.folder}: the weights were replaced while they were read; run it again")
    try:
        _write_cached(place, network)
    except OSError as error:
        if takes_seconds:  # at every start
            why = error.strerror or error
            say(f"note: {place}: the prepared weights cannot be kept ({why}); each start takes as long until they can")
        return Prepared(network, {})
    # Read the file, as later starts do: its pages are memory that the system may take back.
    return _load_cached(place, checkpoint, precision, device) or Prepared(network, {})


def forget(checkpoint: Checkpoint, precision: str, device: str) -> None:
    """Delete the cached weights, which may be damaged, so that the next start prepares them again."""
    place = _cached_file(checkpoint, precision, device)
    if _is_own_file(place):
        with suppress(OSError):
            place.unlink()


def read_ahead(checkpoint: Checkpoint, precision: str) -> None:
    """Have the system read the cached weights for the CPU in the background."""
    if not hasattr(os, "posix_fadvise"):
        return
    place = _cached_file(checkpoint, precision, "cpu")
    if not _is_own_file(place):
        return
    with suppress(OSError), open_own(place) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _prepare(checkpoint: Checkpoint, precision: str, device: str) -> BridgeTower:
    network = load_model(checkpoint, text_tower=False).to(device)
    vectors = _probe_vectors(network)
    for module in network.modules():
        if isinstance(module, FeedForward):
            module.fold()
    if precision == INT8:
        int8.quantize(network)
    else:
        network.to(DTYPES[precision])
    try:
        cosine = F.cosine_similarity(vectors, _probe_vectors(network)).min().item()
    except (RuntimeError, TypeError) as error:
        if precision != INT8:
            raise
        # The int8 operators are no public interface of PyTorch, so other versions may lack them.
        raise ModelError(f"int8: this version of PyTorch refuses it ({error}); use --precision auto") from error
    if not cosine >= LEAST_COSINE[precision]:  # also true for NaN
        raise ModelError(
            f"{checkpoint.name}: in {precision} this model makes other vectors than in fp32 (cosine {cosine:.4f}, less "
            f"than {LEAST_COSINE[precision]}); use --precision fp32"
        )
    return network


@torch.inference_mode()
def _probe_vectors(network: BridgeTower) -> Tensor:
    """Return vectors of random pixels, float32 [_PROBES, E]: by the ITC head, or those of the tower without one."""
    config, generator = network.config, torch.Generator().manual_seed(0)
    size, position = config.vision.image_size, network.vision_tower.position
    coarse = torch.randn(_PROBES, 3, 8, 8, generator=generator)
    pixels = F.interpolate(coarse, size=(size, size), mode="bicubic")  # smooth with some grain, like photos
    pixels += 0.3 * torch.randn(pixels.shape, generator=generator)
    pixels = pixels.to(position.device, position.dtype)
    if Head.ITC in network.heads:
        return network.embed_image(pixels).float().cpu()
    tower: Tensor = network.vision_tower(pixels, config.text.num_hidden_layers, 1)[0][:, 0]
    return tower.float().cpu()


# The cache


def _cached_file(checkpoint: Checkpoint, precision: str, device: str) -> Path:
    """Return the path of the cached weights; its name has everything that they, and the check of vectors, depend on."""
    digests = f"{checkpoint.weights_sha256[:16]}-{checkpoint.config_sha256[:16]}"
    if precision == INT8 and not int8.processor_is_wide():
        precision = "int8-narrow"
    return cache_folder() / "prepared" / f"{digests}-{precision}-{device}-{torch.__version__}-{_VERSION}.safetensors"


def _tensors(network: BridgeTower) -> dict[str, Tensor]:
    """Return all parameters and buffers of the network, each tensor once."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _load_cached(place: Path, checkpoint: Checkpoint, precision: str, device: str) -> Prepared | None:
    """Return the network from the cached weights; None if they are absent or do not fit."""
    if not _is_own_file(place):
        return None
    with torch.device("meta"):  # shapes without memory: every tensor is replaced below
        network = BridgeTower(checkpoint.config, checkpoint.heads).without_text_tower()
    if precision == INT8:
        int8.quantize(network, int8.QuantizedLinear.blank)
    elif DTYPES[precision] != torch.float32:
        network.to(DTYPES[precision])
    for module in network.modules():
        if isinstance(module, FeedForward):
            module.folded = True
    wanted = _tensors(network)
    try:
        stored = open_tensors([place])
    except ModelError:
        return None
    if stored.keys() != wanted.keys() or not all(_fits(stored[name], wanted[name]) for name in wanted):
        return None
    network.load_state_dict({name: tensor.tensor() for name, tensor in stored.items()}, strict=False, assign=True)
    with suppress(OSError):
        os.utime(place)  # for the order of use
    return Prepared(network.eval().to(device), stored if device == "cpu" else {})


def _fits(stored: StoredTensor, wanted: Tensor) -> bool:
    return stored.shape == tuple(wanted.shape) and stored.dtype == _STORED[wanted.dtype]


def _write_cached(place: Path, network: BridgeTower) -> None:
    """Write the network to the cache, and delete the least recently used files. Raises OSError."""
    if place.parent.is_symlink():
        raise NotAFileError(errno.ENOTDIR, "its folder is a link", place)
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place.parent, _NAME)
    write_tensors(place, {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(network).items()})
    with suppress(OSError):  # another process has deleted a file
        by_use = sorted(_own_files(place.parent, _NAME), key=lambda file: file.stat().st_mtime_ns)
        for file in by_use[:-_MOST_FILES]:
            file.unlink()


def _is_own_file(place: Path) -> bool:
    """Return whether the file is one of ours; links are not, because they may lead outside the cache folder."""
    return not place.parent.is_symlink() and is_own(place)


def _own_files(folder: Path, form: str) -> list[Path]:
    """Return our files in a folder: regular ones whose whole name matches `form`; other files may be there, too."""
    return [file for file in folder.iterdir() if re.fullmatch(form, file.name) and is_own(file)]
