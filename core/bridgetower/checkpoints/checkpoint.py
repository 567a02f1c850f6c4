"""Find, verify and load checkpoints in the Hugging Face layout.

    name -> folder -> config.json         -> ModelConfig     (strict)
                   -> weights             -> key, shape, dtype of every tensor, memory-mapped (strict)
                   -> preprocessor config -> Preprocessing
                   -> tokenizer files     -> Tokenizer

A name is a repository of the Hub, a folder, or "demo". Weights are safetensors, in one file or several; pickles are
read without running code, and a converted copy of them is kept. The user's folder and the Hub's cache are never
written to; what we keep is described in `bridgetower.checkpoints.cache`.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from bridgetower.checkpoints import hub, pickles
from bridgetower.checkpoints.cache import cache_folder, digest_of_files, remembered
from bridgetower.checkpoints.documents import read_json
from bridgetower.checkpoints.hub import SAFETENSORS
from bridgetower.checkpoints.safetensors_files import StoredTensor, open_tensors, raw_bytes
from bridgetower.checkpoints.tensor_names import (
    HEAD_PREFIXES,
    IGNORED_KEYS,
    TIED_KEY,
    WORDS_KEY,
    from_hf,
    hf_names,
    normalised_key,
)
from bridgetower.checkpoints.tokenizer import Tokenizer, digest_of_tokenizer, tokenizer_files
from bridgetower.errors import ModelError, ResourceError
from bridgetower.files.atomic import remove_abandoned
from bridgetower.files.os_errors import unreadable
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.config import ModelConfig
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Head, Say, quiet
from bridgetower.resources import shortage

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "demo"
_LONGEST_NAME = 300  # of what an index says, to be shown
_BUNDLED = "bundled"  # not our version: an index stays valid as long as the weights are the same

_FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors calls them


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine whose configuration and file headers have been read; no tensor has."""

    name: str  # repository id, "demo", or the absolute path of a folder
    folder: Path
    revision: str  # commit of the repository; "local" for a folder, "bundled" for "demo"
    config: ModelConfig
    preprocessing: Preprocessing
    heads: frozenset[Head]
    weights: tuple[Path, ...]  # safetensors

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of the weights themselves, whatever files they stand in.

        sha256 over the tensors that the network reads, in the order of their keys: key, type and shape as one line of
        JSON, then the bytes. A pickle, its conversion and the same in several files have the same digest.
        """
        names = _expected_shapes(self.config, self.heads)
        with readable(self.folder):
            return remembered(
                self.weights, "\n".join(sorted(names)), lambda: _digest_of_tensors(_open_weights(self), names)
            )

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hex digest of what turns a text into ids, by `bridgetower.checkpoints.tokenizer.digest_of_tokenizer`.

        A copy of the folder has the same one, and so has its conversion. Raises `ModelError`.
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
        """Hex digest of what else makes the vectors what they are, apart from the name of the preprocessing.

        sha256 over one line of JSON with sorted keys: the settings that the network computes with, and the numbers of
        the preprocessing. A setting that the files leave out stands there with its default.
        """
        numbers = asdict(self.preprocessing)
        del numbers["name"]  # a field of its own in a fingerprint
        recipe = {"network": self.config.computing(), "preprocessing": numbers}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def with_preprocessing(self, name: str) -> "Checkpoint":
        """The same weights fed with other pixels: "hf" or "plain". Raises `ModelError` for another name."""
        return replace(self, preprocessing=self.preprocessing.named(name))

    def tokenizer(self) -> Tokenizer:
        """Raises `ModelError` where the folder has no tokenizer, or one with ids that the network does not know."""
        with readable(self.folder):
            tokenizer = Tokenizer.from_folder(self.folder, self.config.text.max_tokens)
        if tokenizer.highest_id >= self.config.text.vocab_size:
            raise ModelError(
                f"{self.folder}: the tokenizer has ids up to {tokenizer.highest_id}, the network only "
                f"{self.config.text.vocab_size} words; fetch the tokenizer that belongs to this checkpoint"
            )
        return tokenizer


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A line of the list of models on this machine."""

    name: str
    folder: Path
    size: int  # bytes of its weights
    heads: frozenset[Head] | None  # None where the weights are pickles, which are read on first use, or unusable
    problem: str | None  # why it cannot be used


# Finding


def resolve(
    name: str, *, fetch: bool = True, refresh: bool = False, progress: bool = False, say: Say = quiet
) -> Checkpoint:
    """Find a checkpoint by the name that a person gave, fetching it from the Hub if it is not on this machine.

    A folder of that name goes before a repository. Without `fetch` the name is one that an index says: it is looked up
    on this machine only, and never in the current folder. With `refresh` the Hub is asked for a newer commit;
    `progress` lets `huggingface_hub` show bars on stderr; `say` gets a line before the Hub is asked. Raises
    `ModelError`.
    """
    if name == DEMO:
        if not DEMO_FOLDER.is_dir():
            raise ModelError(f"{DEMO_FOLDER}: this installation lacks the demo model; install it again")
        return _read(DEMO, DEMO_FOLDER, _BUNDLED)
    if not fetch:
        return _resolve_recorded(name)
    folder = os.path.expanduser(name)  # unlike Path.expanduser, leaves alone what it does not know
    try:
        mode = os.stat(folder).st_mode
    except PermissionError as error:
        raise unreadable(name, error, ModelError, advice="check the permissions of its folders") from error
    except (OSError, ValueError):  # not there, or no name that a file could have
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        folder = os.path.realpath(folder)
        return _read(folder, Path(folder), "local")
    if mode is not None:
        raise ModelError(f"{name}: this is a file; point at the folder that holds config.json and the weights")
    if not hub.is_repository_id(name):
        raise ModelError(f"{name}: no such folder, and no repository id either (owner/name); try --model demo")
    snapshot = hub.find_or_fetch(name, refresh=refresh, progress=progress, say=say)
    return _read(name, snapshot, snapshot.name)


def _resolve_recorded(name: str) -> Checkpoint:
    """The model with which an index says that it was made: an absolute folder, or a repository in the Hub's cache."""
    if os.path.isabs(name):
        if not os.path.isdir(name):
            raise ModelError(
                f"{name:.{_LONGEST_NAME}}: the index was made with the model in this folder, which is gone; say where "
                "it is now with --model"
            )
        return resolve(name)
    if not hub.is_repository_id(name):
        raise ModelError(
            f"{name!r:.{_LONGEST_NAME}}: the index says that it was made with this model, which is no name of one; say "
            "where it is with --model"
        )
    snapshot = hub.find(name)
    if snapshot is None:
        raise ModelError(
            f"{name}: the index was made with this model, which is not on this machine: fetch it with "
            f"`bt model pull {name}`, or say where it is with --model"
        )
    return _read(name, snapshot, snapshot.name)


def pull(name: str, *, progress: bool = False, say: Say = quiet) -> Checkpoint:
    """Fetch the newest commit of a repository, or what is missing of it. Raises `ModelError`."""
    return resolve(name, refresh=True, progress=progress, say=say)


def available() -> list[LocalModel]:
    """The models that need no network: the demo model, and those that the cache of the Hub holds completely."""
    folders = [(DEMO, DEMO_FOLDER, _BUNDLED)] if DEMO_FOLDER.is_dir() else []
    folders += [(name, folder, folder.name) for name, folder in hub.cached_repositories()]
    return [_describe(*entry) for entry in folders]


def _describe(name: str, folder: Path, revision: str) -> LocalModel:
    size = 0
    try:
        with readable(folder):
            files = hub.weight_files(folder)
            size = sum(file.stat().st_size for file in files)
        heads = None if _is_pickled(files) else _read(name, folder, revision).heads
        return LocalModel(name, folder, size, heads, None)
    except ModelError as error:
        return LocalModel(name, folder, size, None, str(error))


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn an OSError in here into a ModelError, and want of memory or file handles into a ResourceError.

    A library that ran out of them may take the file for damaged, so what led to an error counts.
    """
    try:
        yield
    except Exception as error:
        if (lack := shortage(error)) is not None:
            raise ResourceError(f"{folder}: {lack}") from error
        if isinstance(error, OSError):
            raise unreadable(folder, error, ModelError, advice="check its permissions") from error
        raise


def _read(name: str, folder: Path, revision: str) -> Checkpoint:
    with readable(folder):
        return _read_folder(name, folder, revision)


def _read_folder(name: str, folder: Path, revision: str) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json here; point at the folder of a checkpoint, with its weights")
    config = ModelConfig.from_json(read_json(folder / "config.json"), source=str(folder / "config.json"))
    sources = hub.weight_files(folder)
    if not sources:
        raise ModelError(f"{folder}: neither {SAFETENSORS} nor {hub.PICKLE} here; fetch the weights, too")
    weights = (_converted(sources, config, folder),) if _is_pickled(sources) else sources
    tensors = open_tensors(weights, normalised_key)
    heads = _heads_of(tensors)
    _check_layout(tensors, config, heads, folder)
    return Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        config=config,
        preprocessing=_read_preprocessing(folder, config),
        heads=heads,
        weights=weights,
    )


def _heads_of(tensors: Iterable[str]) -> frozenset[Head]:
    return frozenset(h for h, prefixes in HEAD_PREFIXES.items() if any(key.startswith(prefixes) for key in tensors))


def _converted(files: tuple[Path, ...], config: ModelConfig, folder: Path) -> Path:
    """The safetensors file with what the network reads of these pickles, written on the first call."""

    def digest() -> str:
        return remembered(files, "files", lambda: digest_of_files(files))

    before = digest()
    target = cache_folder() / "converted" / before / SAFETENSORS
    if target.is_file():
        return target
    tensors = pickles.open_pickles(files, normalised_key)
    _check_layout(pickles.stored(tensors), config, _heads_of(tensors), folder)
    tensors = {key: tensor for key, tensor in tensors.items() if not IGNORED_KEYS.fullmatch(key)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_conversions(target.parent.parent)
        pickles.write(target, tensors, files)
    except OSError as error:
        raise ModelError(
            f"{target}: cannot keep a converted copy of the weights ({error.strerror or error}); make room there"
        ) from error
    if digest() != before:
        target.unlink()
        raise ModelError(f"{folder}: the weights were replaced while they were read; run it again")
    return target


def _remove_abandoned_conversions(converted: Path) -> None:
    """Of any weights: those of a process that was killed may never be converted again."""
    for folder in () if converted.is_symlink() else converted.iterdir():
        if re.fullmatch("[0-9a-f]{64}", folder.name):
            remove_abandoned(folder, re.escape(SAFETENSORS))


def _is_pickled(files: tuple[Path, ...]) -> bool:
    return any(file.suffix != ".safetensors" for file in files)


def _read_preprocessing(folder: Path, config: ModelConfig) -> Preprocessing:
    for file in (folder / name for name in hub.PREPROCESSOR_FILES):
        if file.exists():
            return Preprocessing.from_json(read_json(file), config.vision.image_size, source=str(file))
    # Not every public checkpoint has the file; its defaults are those of the reference.
    return Preprocessing.from_json({}, config.vision.image_size)


# Loading


def load_model(checkpoint: Checkpoint, dtype: torch.dtype | None = torch.float32) -> BridgeTower:
    """The network with its weights in `dtype`, None for that of the file, on the CPU and in evaluation mode.

    Tensors that are neither fused nor converted stay memory-mapped. Raises `ModelError`.
    """
    with readable(checkpoint.folder):
        return _load(checkpoint, dtype)


def _open_weights(checkpoint: Checkpoint) -> dict[str, StoredTensor]:
    """Its tensors, checked once more: the files may be others by now."""
    tensors = open_tensors(checkpoint.weights, normalised_key)
    _check_layout(tensors, checkpoint.config, checkpoint.heads, checkpoint.folder)
    return tensors


def _load(checkpoint: Checkpoint, dtype: torch.dtype | None) -> BridgeTower:
    with torch.device("meta"):  # shapes without memory: every parameter is replaced below
        model = BridgeTower(checkpoint.config, checkpoint.heads)
    tensors = _open_weights(checkpoint)
    state = {
        name: from_hf(name, checkpoint.config, lambda key: tensors[key].read()) for name, _ in model.named_parameters()
    }
    if checkpoint.config.tie_word_embeddings and TIED_KEY in tensors:
        _check_tied(tensors[TIED_KEY].read(), state["text_tower.word.weight"], checkpoint.folder)
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    for name, tensor in state.items():
        low, high = tensor.aminmax()  # NaN if one is among them
        if not (low.isfinite() and high.isfinite()):
            key = hf_names(name, checkpoint.config)[0]
            raise ModelError(f"{checkpoint.folder}: {key} holds numbers that are not finite; fetch the weights again")
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_words()
    return model.eval()


def _check_layout(
    tensors: Mapping[str, StoredTensor], config: ModelConfig, heads: frozenset[Head], folder: Path
) -> None:
    """Every key that the network needs is there in the right shape, and no other one but those on the ignore list."""
    expected = dict(_expected_shapes(config, heads))
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise ModelError(f"{folder}: the weights lack {_some(missing)}; fetch the whole checkpoint again")
    if config.tie_word_embeddings and TIED_KEY in tensors:
        expected[TIED_KEY] = expected[WORDS_KEY]
    extra = sorted(k for k in tensors.keys() - expected.keys() if not IGNORED_KEYS.fullmatch(k))
    if extra:
        raise ModelError(
            f"{folder}: the weights hold {_some(extra)}, unknown to the network of config.json; "
            "they do not belong together"
        )
    for key, shape in expected.items():
        if tensors[key].shape != shape:
            raise ModelError(
                f"{folder}: {key} has shape {list(tensors[key].shape)} in the weights but {list(shape)} by "
                "config.json; they do not belong together"
            )
        if tensors[key].dtype not in _FLOATS:
            raise ModelError(
                f"{folder}: {key} is of type {tensors[key].dtype}, none of {', '.join(_FLOATS)}; "
                "quantized checkpoints are not supported"
            )


@cache
def _expected_shapes(config: ModelConfig, heads: frozenset[Head]) -> Mapping[str, tuple[int, ...]]:
    """The key and shape of every tensor that the network reads."""
    with torch.device("meta"):
        model = BridgeTower(config, heads)
    expected: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        keys = hf_names(name, config)
        rows = (parameter.shape[0] // len(keys),) if parameter.ndim else ()
        expected |= dict.fromkeys(keys, (*rows, *parameter.shape[1:]))
    return expected


def _digest_of_tensors(tensors: Mapping[str, StoredTensor], names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        stored = tensors[name]
        digest.update(json.dumps([name, stored.dtype, stored.shape]).encode() + b"\n")
        digest.update(raw_bytes(stored.read()))
    return digest.hexdigest()


def _check_tied(decoder: Tensor, words: Tensor, folder: Path) -> None:
    if decoder.dtype != words.dtype or not torch.equal(decoder, words):
        raise ModelError(
            f"{folder}: {TIED_KEY} differs from the word embeddings, though config.json ties them; "
            "set tie_word_embeddings to false there if the file is right"
        )


def _some(keys: list[str]) -> str:
    return f"{keys[0]:.200}" + (f" and {len(keys) - 1} more keys" if len(keys) > 1 else "")
