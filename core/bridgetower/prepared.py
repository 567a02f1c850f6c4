"""A checkpoint -> the network as it runs: fused, folded, in one precision, and proven to say what fp32 says.

That is done once. The result is kept in the cache folder and memory-mapped from then on, so that starting costs no
conversion, and what a command does not use is not even read:

    prepared/<digits of weights_sha256>-<of config_sha256>-<precision>-<version of this format>.safetensors

Each file may be deleted at any time; one that is damaged, or cannot be written, is as good as not there.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bridgetower import quantized
from bridgetower.errors import ModelError
from bridgetower.model import BridgeTower, FeedForward
from bridgetower.records import Head
from bridgetower.tensors import StoredTensor, open_tensors, write_tensors
from bridgetower.weights import Checkpoint, cache_folder, load_model

# What the network computes in: of int8, all but the matrices.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}

# The least cosine to a vector of fp32 with which a precision may be used.
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.99}

_VERSION = 1
_STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}  # as safetensors calls them
_TAKES_SECONDS = 500 * 1000**2  # bytes of weights
_ABANDONED_S = 24 * 3600
_PROBES = 2


def load(checkpoint: Checkpoint, precision: str, *, say: Callable[[str], None] = lambda line: None) -> BridgeTower:
    """The network in `precision` ("fp32", "bf16" or "int8"), for inference, on the CPU.

    `say` gets a line before what takes seconds. Raises ModelError, also where the network makes other vectors in this
    precision than in fp32.
    """
    kept = _place(checkpoint, precision)
    network = _kept(kept, checkpoint, precision)
    if network is None:
        if sum(file.stat().st_size for file in checkpoint.weights) > _TAKES_SECONDS:
            say(f"preparing the weights of {checkpoint.name} in {precision}, once: this takes a moment")
        network = _prepare(checkpoint, precision)
        _keep(kept, network)
    return network


def read_ahead(checkpoint: Checkpoint, precision: str) -> None:
    """Have the system read what is kept while this process does something else; returns at once."""
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError), _place(checkpoint, precision).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _prepare(checkpoint: Checkpoint, precision: str) -> BridgeTower:
    network = load_model(checkpoint)
    vectors = _vectors(network)
    for module in network.modules():
        if isinstance(module, FeedForward):
            module.fold()
    if precision == "int8":
        quantized.quantize(network)
    else:
        network.to(DTYPES[precision])
    cosine = F.cosine_similarity(vectors, _vectors(network)).min().item()
    if not cosine >= LEAST_COSINE[precision]:  # NaN is not, either
        raise ModelError(
            f"{checkpoint.name}: in {precision} this model makes other vectors than in fp32 (cosine {cosine:.4f}, less "
            f"than {LEAST_COSINE[precision]}); use --precision fp32"
        )
    return network


@torch.inference_mode()
def _vectors(network: BridgeTower) -> Tensor:
    """What the towers make of some noise, float32 [2 * _PROBES, E]: the ITC vectors, or what they are made of."""
    config, generator = network.config, torch.Generator().manual_seed(0)
    size, dtype = config.vision.image_size, network.vision_tower.position.dtype
    coarse = torch.randn(_PROBES, 3, 8, 8, generator=generator)
    pixels = F.interpolate(coarse, size=(size, size), mode="bicubic")  # pictures are smooth, with some grain
    pixels += 0.3 * torch.randn(pixels.shape, generator=generator)
    length = min(12, config.text.max_tokens)
    ids = torch.randint(config.text.vocab_size, (_PROBES, length), generator=generator)
    ids[ids == config.text.pad_token_id] = config.text.vocab_size - 1
    mask = torch.ones_like(ids, dtype=torch.bool)
    pixels = pixels.to(dtype)
    if Head.ITC in network.heads:
        image, text = network.embed_image(pixels), network.embed_text(ids, mask)
        return torch.cat([image, text]).float()
    image = network.vision_tower(pixels, config.text.num_hidden_layers, 1)[0][:, 0]
    text = network.text_tower(ids, mask, 1)[0][:, 0]
    # Of different widths: padding with zeros changes no cosine.
    width = max(image.shape[1], text.shape[1])
    return torch.cat([F.pad(x.float(), (0, width - x.shape[1])) for x in (image, text)])


# What is kept


def _place(checkpoint: Checkpoint, precision: str) -> Path:
    digests = f"{checkpoint.weights_sha256[:16]}-{checkpoint.config_sha256[:16]}"
    if precision == "int8" and not quantized.processor_is_wide():
        precision = "int8-narrow"  # the same weights, but not the same proof
    return cache_folder() / "prepared" / f"{digests}-{precision}-{_VERSION}.safetensors"


def _tensors(network: BridgeTower) -> dict[str, Tensor]:
    """All that the network consists of, each tensor once."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _kept(kept: Path, checkpoint: Checkpoint, precision: str) -> BridgeTower | None:
    """The network out of what is kept, if that is what it needs."""
    if not kept.is_file():
        return None
    with torch.device("meta"):  # shapes without memory: every tensor is replaced below
        network = BridgeTower(checkpoint.config, checkpoint.heads)
    if precision == "int8":
        quantized.quantize(network, quantized.QuantizedLinear.blank)
    elif DTYPES[precision] != torch.float32:
        network.to(DTYPES[precision])
    for module in network.modules():
        if isinstance(module, FeedForward):
            module.folded = True
    wanted = _tensors(network)
    try:
        stored = open_tensors([kept])
    except ModelError:
        return None
    if stored.keys() != wanted.keys() or not all(_fits(stored[name], wanted[name]) for name in wanted):
        return None
    network.load_state_dict({name: tensor.read() for name, tensor in stored.items()}, strict=False, assign=True)
    network.tie_words()
    return network.eval()


def _fits(stored: StoredTensor, wanted: Tensor) -> bool:
    return stored.shape == tuple(wanted.shape) and stored.dtype == _STORED[wanted.dtype]


def _keep(place: Path, network: BridgeTower) -> None:
    """Write the network if the disk lets us."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in place.parent.glob(".*.partial"):  # of a process that was killed
            if time.time() - unfinished.stat().st_mtime > _ABANDONED_S:
                unfinished.unlink()
        write_tensors(place, {name: tensor.detach().contiguous() for name, tensor in _tensors(network).items()})
