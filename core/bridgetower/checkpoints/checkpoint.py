"""A checkpoint in the Hugging Face layout: its parts, its digests, and the check of its weights against its
configuration.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from bridgetower.checkpoints.cache import known_digest, remembered
from bridgetower.checkpoints.safetensors_files import StoredTensor, TensorHeader, open_tensors
from bridgetower.checkpoints.tensor_names import (
    IGNORED_KEYS,
    TIED_KEY,
    WORDS_KEY,
    hf_names,
    normalised_key,
)
from bridgetower.checkpoints.tokenizer import Tokenizer, digest_of_tokenizer, tokenizer_files
from bridgetower.errors import ModelError, ResourceError
from bridgetower.files.os_errors import unreadable
from bridgetower.network.config import ModelConfig
from bridgetower.network.shapes import parameter_shapes
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Head
from bridgetower.resources import shortage

_FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors calls them


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. Its configuration and file headers have been read, its tensors have not."""

    name: str  # repository id, "demo", or absolute path of a folder
    folder: Path
    revision: str  # commit of the repository; "local" for a folder, "bundled" for "demo"
    config: ModelConfig
    preprocessing: Preprocessing
    heads: frozenset[Head]
    weights: tuple[Path, ...]  # safetensors

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of the weights, independent of the files that contain them.

        sha256 over the tensors that the network reads, in the order of their keys: key, type and shape as one line of
        JSON, then the bytes. A pickle, its conversion and a copy split into several files have the same digest.
        """
        names = _expected_shapes(self.config, self.heads)
        with readable(self.folder):
            return remembered(
                self.weights, "\n".join(sorted(names)), lambda: _digest_of_tensors(open_weights(self), names)
            )

    @property
    def known_weights_sha256(self) -> str | None:
        """`weights_sha256` if it has been computed before, as it was if a copy of the weights was ever prepared."""
        with readable(self.folder):
            return known_digest(self.weights, "\n".join(sorted(_expected_shapes(self.config, self.heads))))

    @property
    def parameters(self) -> int:
        """The number of parameters of the network, which depends on its heads."""
        return sum(math.prod(shape) for shape in parameter_shapes(self.config, self.heads).values())

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hex digest of the tokenizer, from `bridgetower.checkpoints.tokenizer.digest_of_tokenizer`.

        A copy of the folder and a conversion have the same digest. Raises `ModelError`.
        """
        with readable(self.folder):
            most = self.config.text.max_tokens
            return remembered(
                tokenizer_files(self.folder),
                f"tokenizer of at most {most}",
                lambda: digest_of_tokenizer(self.folder, most),
            )

    @property
    def config_sha256(self) -> str:
        """Hex digest of all other settings that vectors depend on, except the name of the preprocessing.

        sha256 over one line of JSON with sorted keys: the settings that the network computes with, and those of the
        preprocessing. Settings that the files omit are included with their defaults.
        """
        numbers = asdict(self.preprocessing)
        del numbers["name"]  # a separate field of a fingerprint
        recipe = {"network": self.config.computing(), "preprocessing": numbers}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def with_preprocessing(self, name: str) -> "Checkpoint":
        """Return this checkpoint with the preprocessing "hf" or "plain". Raises `ModelError` for another name."""
        return replace(self, preprocessing=self.preprocessing.named(name))

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer. Raises `ModelError` if it is missing, or has ids beyond the vocabulary of the network."""
        with readable(self.folder):
            tokenizer = Tokenizer.from_folder(self.folder, self.config.text.max_tokens)
        if tokenizer.highest_id >= self.config.text.vocab_size:
            raise ModelError(
                f"{self.folder}: the tokenizer has ids up to {tokenizer.highest_id}, the network only "
                f"{self.config.text.vocab_size} words; fetch the tokenizer that belongs to this checkpoint"
            )
        return tokenizer


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn an OSError in this block into a ModelError, and a lack of memory or file handles into a ResourceError.

    The causes of an error are examined, because a library that ran out of memory may report a damaged file.
    """
    try:
        yield
    except Exception as error:
        if (resource_error := shortage(error)) is not None:
            raise ResourceError(f"{folder}: {resource_error}") from error
        if isinstance(error, OSError):
            raise unreadable(folder, error, ModelError, advice="check its permissions") from error
        raise


def open_weights(checkpoint: Checkpoint) -> dict[str, StoredTensor]:
    """Open the tensors of a checkpoint, and check them again, as the files may have changed. Raises ModelError."""
    tensors = open_tensors(checkpoint.weights, normalised_key)
    check_layout(tensors, checkpoint.config, checkpoint.heads, checkpoint.folder)
    return tensors


def check_layout(
    tensors: Mapping[str, TensorHeader], config: ModelConfig, heads: frozenset[Head], folder: Path
) -> None:
    """Raise ModelError unless every key that the network needs has the right shape, and any other key is ignored."""
    expected = dict(_expected_shapes(config, heads))
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise ModelError(f"{folder}: the weights lack {_first_of(missing)}; fetch the whole checkpoint again")
    if config.tie_word_embeddings and TIED_KEY in tensors:
        expected[TIED_KEY] = expected[WORDS_KEY]
    extra = sorted(k for k in tensors.keys() - expected.keys() if not IGNORED_KEYS.fullmatch(k))
    if extra:
        raise ModelError(
            f"{folder}: the weights hold {_first_of(extra)}, unknown to the network of config.json; "
            "they do not belong together; fetch the whole checkpoint again"
        )
    for key, shape in expected.items():
        if tensors[key].shape != shape:
            raise ModelError(
                f"{folder}: {key} has shape {list(tensors[key].shape)} in the weights but {list(shape)} by "
                "config.json; they do not belong together; fetch the whole checkpoint again"
            )
        if tensors[key].dtype not in _FLOATS:
            raise ModelError(
                f"{folder}: {key} is of type {tensors[key].dtype}, none of {', '.join(_FLOATS)}; "
                "quantized checkpoints are not supported; choose another one"
            )


@cache
def _expected_shapes(config: ModelConfig, heads: frozenset[Head]) -> Mapping[str, tuple[int, ...]]:
    """Return the key and shape of every tensor that the network reads."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in parameter_shapes(config, heads).items():
        keys = hf_names(name, config)
        expected |= dict.fromkeys(keys, (shape[0] // len(keys), *shape[1:]) if shape else ())
    return expected


def _digest_of_tensors(tensors: Mapping[str, StoredTensor], names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        stored = tensors[name]
        digest.update(json.dumps([name, stored.dtype, stored.shape]).encode() + b"\n")
        digest.update(stored.bytes())
    return digest.hexdigest()


def _first_of(keys: list[str]) -> str:
    return f"{keys[0]:.200}" + (f" and {len(keys) - 1} more keys" if len(keys) > 1 else "")
