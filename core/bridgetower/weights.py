"""Find, verify, load and save checkpoints in the Hugging Face layout.

    name -> folder -> config.json         -> ModelConfig     (strict)
                   -> weights             -> key, shape, dtype of every tensor, memory-mapped (strict)
                   -> preprocessor config -> Preprocessing
                   -> tokenizer files     -> Tokenizer

A name is a repository of the Hub, a folder, or "demo". Weights are safetensors, in one file or several; pickles are
read without running code, and a converted copy of them is kept. The user's folder and the Hub's cache are never
written to; what we keep stands under `platformdirs.user_cache_dir("bridgetower")`:

    converted/<sha256>/model.safetensors   from the pickles with this digest
    digests/<sha256 of what>.json          a digest, valid while nothing has touched its files
    prepared/                              see `bridgetower.prepared`

All of it may be deleted at any time.
"""

import hashlib
import json
import os
import pickle
import secrets
import shutil
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

from bridgetower import hub
from bridgetower.atomic import replace_file
from bridgetower.blocks import FeedForward
from bridgetower.config import ModelConfig
from bridgetower.errors import ModelError, UsageError
from bridgetower.hub import SAFETENSORS, Say
from bridgetower.layout import HEAD_PREFIXES, IGNORED_KEYS, TIED_KEY, from_hf, hf_names, normalised_key, to_hf
from bridgetower.model import BridgeTower
from bridgetower.preprocess import Preprocessing
from bridgetower.records import Head
from bridgetower.tensors import StoredTensor, open_tensors, raw_bytes, write_tensors
from bridgetower.tokenizer import Tokenizer

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "assets" / "demo"
_BUNDLED = "bundled"  # not our version: an index stays valid as long as the weights are the same

_FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors calls them

# The class of `transformers` that a configuration names: it can name one, so the first head that is there decides.
_ARCHITECTURES = {
    Head.ITC: "BridgeTowerForContrastiveLearning",
    Head.ITM: "BridgeTowerForImageAndTextRetrieval",
    Head.MLM: "BridgeTowerForMaskedLM",
}


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
        return _remembered(
            self.weights,
            "\n".join(sorted(names)),
            lambda: _digest_of_tensors(open_tensors(self.weights, normalised_key), names),
        )

    @property
    def config_sha256(self) -> str:
        """Hex digest of what else makes the vectors what they are, apart from the name of the preprocessing.

        sha256 over one line of JSON with sorted keys: the settings that the network computes with, and the numbers of
        the preprocessing. What the files leave out stands there with its default.
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


def _keep_quiet(_line: str) -> None:
    pass


def resolve(name: str, *, refresh: bool = False, progress: bool = False, say: Say = _keep_quiet) -> Checkpoint:
    """Find a checkpoint by name, fetching it from the Hub if it is not on this machine.

    A folder of that name goes before a repository. With `refresh` the Hub is asked for a newer commit; `progress` lets
    `huggingface_hub` show bars on stderr; `say` gets a line before the Hub is asked. Raises `ModelError`.
    """
    folder = os.path.expanduser(name)  # unlike Path.expanduser, leaves alone what it does not know
    if name == DEMO:
        if not DEMO_FOLDER.is_dir():
            raise ModelError(f"{DEMO_FOLDER}: this installation lacks the demo model; install it anew")
        return _read(DEMO, DEMO_FOLDER, _BUNDLED)
    try:
        mode = os.stat(folder).st_mode
    except PermissionError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror}); check the permissions of its folders") from error
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


def pull(name: str, *, progress: bool = False, say: Say = _keep_quiet) -> Checkpoint:
    """Fetch the newest commit of a repository, or what is missing of it. Raises `ModelError`."""
    return resolve(name, refresh=True, progress=progress, say=say)


def available() -> list[LocalModel]:
    """What can be used without a network: the demo model, and what the Hub's cache holds completely."""
    folders = [(DEMO, DEMO_FOLDER, _BUNDLED)] if DEMO_FOLDER.is_dir() else []
    folders += [(name, folder, folder.name) for name, folder in hub.cached_repositories()]
    return [_describe(*entry) for entry in folders]


def _describe(name: str, folder: Path, revision: str) -> LocalModel:
    size = 0
    try:
        with _readable(folder):
            files = hub.weight_files(folder)
            size = sum(file.stat().st_size for file in files)
        heads = None if _is_pickled(files) else _read(name, folder, revision).heads
        return LocalModel(name, folder, size, heads, None)
    except ModelError as error:
        return LocalModel(name, folder, size, None, str(error))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What the file system refuses in here is a `ModelError`."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror or error}); check its permissions") from error


def _read(name: str, folder: Path, revision: str) -> Checkpoint:
    with _readable(folder):
        return _read_folder(name, folder, revision)


def _read_folder(name: str, folder: Path, revision: str) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json here; point at the folder of a checkpoint, with its weights")
    config = ModelConfig.from_json(hub.read_json(folder / "config.json"), source=str(folder / "config.json"))
    sources = hub.weight_files(folder)
    if not sources:
        raise ModelError(f"{folder}: neither {SAFETENSORS} nor {hub.PICKLE} here; fetch the weights, too")
    weights = (_converted(sources),) if _is_pickled(sources) else sources
    tensors = open_tensors(weights, normalised_key)
    heads = frozenset(h for h, prefixes in HEAD_PREFIXES.items() if any(k.startswith(prefixes) for k in tensors))
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


def _is_pickled(files: tuple[Path, ...]) -> bool:
    return any(file.suffix != ".safetensors" for file in files)


def _read_preprocessing(folder: Path, config: ModelConfig) -> Preprocessing:
    for file in (folder / name for name in hub.PREPROCESSOR_FILES):
        if file.is_file():
            return Preprocessing.from_json(hub.read_json(file), config.vision.image_size, source=str(file))
    # Not every public checkpoint has the file; its defaults are those of the reference.
    return Preprocessing.from_json({}, config.vision.image_size)


# Loading


def load_model(checkpoint: Checkpoint, dtype: torch.dtype | None = torch.float32) -> BridgeTower:
    """The network with its weights in `dtype`, None for that of the file, on the CPU and in evaluation mode.

    Tensors that are neither fused nor converted stay memory-mapped. Raises `ModelError`.
    """
    with torch.device("meta"):  # shapes without memory: every parameter is replaced below
        model = BridgeTower(checkpoint.config, checkpoint.heads)
    tensors = open_tensors(checkpoint.weights, normalised_key)
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
    expected = _expected_shapes(config, heads)
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise ModelError(f"{folder}: the weights lack {_some(missing)}; fetch the whole checkpoint again")
    ignored = {TIED_KEY} if config.tie_word_embeddings else set()
    extra = sorted(k for k in tensors.keys() - expected.keys() - ignored if not IGNORED_KEYS.fullmatch(k))
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
    if not torch.equal(decoder, words):
        raise ModelError(
            f"{folder}: {TIED_KEY} differs from the word embeddings, though config.json ties them; "
            "set tie_word_embeddings to false there if the file is right"
        )


def _some(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more keys"


# Saving


def save(
    model: BridgeTower,
    folder: Path,
    *,
    preprocessing: Preprocessing | None = None,
    tokenizer_from: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint that `resolve` and `transformers` read: configuration, weights, and what else is given.

    `tokenizer_from` is a folder whose tokenizer files are copied; `dtype` None keeps that of the parameters. Each file
    is replaced as a whole, the configuration last, so a reader never meets half of one.
    """
    if any(isinstance(module, FeedForward) and module.folded for module in model.modules()):
        raise ValueError("this network was folded for inference: its weights are no longer those of a checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    tensors = to_hf({name: p.detach() for name, p in model.named_parameters()}, config)
    # The reference builds a pooler that it never runs, and reports a checkpoint without it as incomplete.
    word = tensors["bridgetower.text_model.embeddings.word_embeddings.weight"]
    width = config.text.hidden_size
    tensors["bridgetower.text_model.pooler.dense.weight"] = word.new_zeros(width, width)
    tensors["bridgetower.text_model.pooler.dense.bias"] = word.new_zeros(width)
    tensors = {key: tensor.to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
    write_tensors(folder / SAFETENSORS, tensors)

    if tokenizer_from is not None:
        for name in hub.TOKENIZER_FILES:
            if (tokenizer_from / name).is_file():
                replace_file(folder / name, partial(shutil.copyfile, tokenizer_from / name))
    if preprocessing is not None:
        _write_json(folder / hub.PREPROCESSOR_FILES[0], preprocessing.to_json())
    architecture = next((c for head, c in _ARCHITECTURES.items() if head in model.heads), "BridgeTowerModel")
    stored = {"architectures": [architecture], "dtype": str(dtype or word.dtype).removeprefix("torch.")}
    _write_json(folder / "config.json", stored | config.to_json())


def convert(name: str, destination: Path, *, progress: bool = False, say: Say = _keep_quiet) -> Checkpoint:
    """Write the checkpoint `name` as a new folder: one safetensors file and all that goes with it.

    Raises `ModelError`; `UsageError` where the folder is there already and not empty.
    """
    destination = Path(os.path.realpath(destination))
    with _writable(destination), suppress(FileNotFoundError):
        if os.listdir(destination):
            raise UsageError(f"{destination}: it is there already and not empty; give a new folder")
    checkpoint = resolve(name, progress=progress, say=say)
    model = load_model(checkpoint, dtype=None)
    # Beside the place first: what fails half-way leaves nothing in it, and nothing that others put there is removed.
    unfinished = destination.parent / f".{secrets.token_hex(8)}.partial"
    with _writable(destination):
        try:
            save(model, unfinished, preprocessing=checkpoint.preprocessing, tokenizer_from=checkpoint.folder)
            with suppress(FileNotFoundError):
                destination.rmdir()  # refused unless it is still empty
            unfinished.rename(destination)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return resolve(str(destination))


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """What the file system refuses in here is a `ModelError`."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or choose another place"
        ) from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))


# What we keep


def cache_folder() -> Path:
    """Where copies are kept that may be deleted at any time."""
    return Path(platformdirs.user_cache_dir("bridgetower"))


def _converted(pickles: tuple[Path, ...]) -> Path:
    """The safetensors file with the content of these pickles, written on the first call."""
    digest = _remembered(pickles, "files", lambda: _digest_of_files(pickles))
    target = cache_folder() / "converted" / digest / SAFETENSORS
    if not target.is_file():
        tensors: dict[str, Tensor] = {}
        for path in pickles:
            tensors |= _unpickled(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(target, tensors)
        except OSError as error:
            raise ModelError(
                f"{target}: cannot keep a converted copy of the weights ({error.strerror or error}); make room there"
            ) from error
    return target


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, memory-mapped where its format allows; refuses anything but tensors."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # the format since PyTorch 1.6
        with warnings.catch_warnings(action="ignore"):  # what it cannot read, it says in an exception, too
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: damaged, or it holds more than tensors, perhaps Python code, which was not run; "
            "get this checkpoint as safetensors, or from a source that you trust"
        ) from error
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ModelError(f"{path}: not a complete PyTorch file ({_first_line(error)}); fetch it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path}: it holds no plain mapping of tensors; get this checkpoint as safetensors")
    # Tied tensors share memory in a pickle; safetensors takes each byte once.
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in content.items():
        tensors[str(key)] = value.clone() if value.data_ptr() in seen else value.contiguous()
        seen.add(value.data_ptr())
    return tensors


def _digest_of_files(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def _remembered(files: tuple[Path, ...], what: str, compute: Callable[[], str]) -> str:
    """The digest of `what` is in `files`, kept until something touches them: gigabytes take seconds.

    Whoever writes to a file can set its modification time back, but not the time of its last change of any kind.
    """
    files = tuple(file.resolve() for file in files)  # the Hub's cache is made of links
    key = hashlib.sha256(what.encode() + b"\0".join(map(os.fsencode, files))).hexdigest()
    memory = cache_folder() / "digests" / f"{key}.json"
    stats = [(str(file), file.stat()) for file in files]
    valid_for = [[name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8"))
        if remembered["files"] == valid_for:
            return str(remembered["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # never hashed, or the note is damaged
    digest = compute()
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        _write_json(memory, {"files": valid_for, "sha256": digest})
    except OSError:
        pass  # a read-only or full disk costs time, not correctness
    return digest


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
