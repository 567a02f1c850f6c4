"""Find a checkpoint by its name, and check its configuration and the headers of its weights.

    name -> folder -> config.json         -> ModelConfig     (strict)
                   -> weights             -> key, shape, dtype of every tensor, memory-mapped (strict)
                   -> preprocessor config -> Preprocessing

A name is a repository of the Hub, a folder, or "demo". Weights are safetensors, in one file or several. Pickles are
read without running code, and converted once into our cache, see `bridgetower.checkpoints.cache`. We never write to the
folder of the user or the cache of the Hub.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bridgetower.checkpoints import hub
from bridgetower.checkpoints.cache import cache_folder, converted_copy, digest_of_files, remembered
from bridgetower.checkpoints.checkpoint import Checkpoint, check_layout, readable
from bridgetower.checkpoints.documents import read_json
from bridgetower.checkpoints.hub import SAFETENSORS
from bridgetower.checkpoints.safetensors_files import open_tensors
from bridgetower.checkpoints.tensor_names import HEAD_PREFIXES, IGNORED_KEYS, normalised_key
from bridgetower.errors import ModelError
from bridgetower.files.atomic import remove_abandoned
from bridgetower.files.os_errors import unreadable
from bridgetower.network.config import ModelConfig
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import DEMO, Head, Say, quiet

DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "demo"
_LONGEST_NAME = 300  # characters of a name from an index that a message shows
_BUNDLED = "bundled"  # not our version number, so that an index stays valid as long as the weights are the same


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine, as `available` lists it."""

    name: str
    folder: Path
    size: int  # bytes of its weights
    heads: frozenset[Head] | None  # None for pickles, which are read on first use, and for unusable weights
    problem: str | None  # why the model cannot be used; None if it can


def resolve(
    name: str, *, fetch: bool = True, refresh: bool = False, progress: bool = False, say: Say = quiet
) -> Checkpoint:
    """Find a checkpoint by the name that a person gave, and fetch it from the Hub if it is not on this machine.

    A folder of that name takes precedence over a repository. Without `fetch` the name comes from an index: it is looked
    up on this machine only, and never in the current folder. With `refresh` the Hub is asked for a newer commit.
    `progress` lets `huggingface_hub` show bars on stderr; `say` gets a line before the Hub is asked. Raises
    `ModelError`.
    """
    if name != DEMO and not fetch:
        return _resolve_recorded(name)
    place = own_place(name)
    if place is None:
        snapshot = hub.find_or_fetch(name, refresh=refresh, progress=progress, say=say)
        place = name, snapshot, snapshot.name
    return _read(*place)


def locate(name: str) -> tuple[str, Path, str]:
    """Return full name, folder and revision of a model on this machine, by a name that a person gave.

    Raises `ModelError` if it is not here, or lacks some files.
    """
    place = own_place(name)
    if place is None:
        snapshot, why = hub.find(name)
        if snapshot is None:
            raise ModelError(f"{name} {why}: fetch it with `bt model pull {name}`")
        place = name, snapshot, snapshot.name
    return place


def own_place(name: str) -> tuple[str, Path, str] | None:
    """Return full name, folder and revision of the demo model or a folder, None for a repository. Raises ModelError."""
    if name == DEMO:
        if not DEMO_FOLDER.is_dir():
            raise ModelError(f"{DEMO_FOLDER}: this installation lacks the demo model; install it again")
        return DEMO, DEMO_FOLDER, _BUNDLED
    folder = os.path.expanduser(name)  # unlike Path.expanduser, leaves unknown users unchanged
    try:
        mode = os.stat(folder).st_mode
    except PermissionError as error:
        raise unreadable(name, error, ModelError, advice="check the permissions of its folders") from error
    except (OSError, ValueError):  # absent, or not a possible file name
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        folder = os.path.realpath(folder)
        return folder, Path(folder), "local"
    if mode is not None:
        raise ModelError(f"{name}: this is a file; point at the folder that holds config.json and the weights")
    if not hub.is_repository_id(name):
        raise ModelError(
            f'{name}: no such folder, and no repository id either (owner/name); give one of them, or "demo"'
        )
    return None


def asks_the_hub(name: str) -> bool:
    """Return whether `resolve` would have to ask the Hub for a name that a person gave."""
    if name == DEMO or os.path.lexists(os.path.expanduser(name)) or not hub.is_repository_id(name):
        return False
    return hub.find(name)[0] is None


def _resolve_recorded(name: str) -> Checkpoint:
    """Find the model that an index records: an absolute folder, or a repository in the cache of the Hub."""
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
    snapshot, why = hub.find(name)
    if snapshot is None:
        raise ModelError(
            f"{name}: the index was made with this model, which {why}: fetch it with "
            f"`bt model pull {name}`, or say where it is with --model"
        )
    return _read(name, snapshot, snapshot.name)


def pull(name: str, *, progress: bool = False, say: Say = quiet) -> Checkpoint:
    """Fetch the newest commit of a repository, or its missing files. Raises `ModelError`."""
    return resolve(name, refresh=True, progress=progress, say=say)


def available() -> list[LocalModel]:
    """List the models on this machine: the demo model, and the complete ones in the cache of the Hub."""
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


def read_unconverted(name: str, folder: Path, revision: str) -> Checkpoint | None:
    """Read a checkpoint as far as no pickle must be converted; None if one must. Raises ModelError."""
    with readable(folder):
        files = hub.weight_files(folder)
        return None if _is_pickled(files) and not converted_copy(files) else _read_folder(name, folder, revision)


def read_settings(folder: Path) -> tuple[ModelConfig, Preprocessing]:
    """Read the configuration and the preprocessing of a checkpoint. Raises ModelError."""
    with readable(folder):
        if not (folder / "config.json").is_file():
            if (folder / "run" / "settings.json").is_file():
                raise ModelError(
                    f"{folder}: the run of `bt train` in it has kept no model yet; it does so after its first "
                    "validation, or at its end"
                )
            raise ModelError(f"{folder}: no config.json here; point at the folder of a checkpoint, with its weights")
        config = ModelConfig.from_json(read_json(folder / "config.json"), source=str(folder / "config.json"))
        return config, _read_preprocessing(folder, config)


def _read(name: str, folder: Path, revision: str) -> Checkpoint:
    with readable(folder):
        return _read_folder(name, folder, revision)


def _read_folder(name: str, folder: Path, revision: str) -> Checkpoint:
    config, preprocessing = read_settings(folder)
    sources = hub.weight_files(folder)
    if not sources:
        raise ModelError(f"{folder}: neither {SAFETENSORS} nor {hub.PICKLE} here; fetch the weights, too")
    weights = (_convert_pickles(sources, config, folder),) if _is_pickled(sources) else sources
    tensors = open_tensors(weights, normalised_key)
    heads = _heads_of(tensors)
    check_layout(tensors, config, heads, folder)
    return Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        config=config,
        preprocessing=preprocessing,
        heads=heads,
        weights=weights,
    )


def _heads_of(tensors: Iterable[str]) -> frozenset[Head]:
    return frozenset(h for h, prefixes in HEAD_PREFIXES.items() if any(key.startswith(prefixes) for key in tensors))


def _convert_pickles(files: tuple[Path, ...], config: ModelConfig, folder: Path) -> Path:
    """Return a safetensors file with the tensors of these pickles that the network reads; the first call writes it."""

    def digest() -> str:
        return remembered(files, "files", lambda: digest_of_files(files))

    before = digest()
    target = cache_folder() / "converted" / before / SAFETENSORS
    if target.is_file():
        return target
    from bridgetower.checkpoints import pickles  # needs PyTorch

    tensors = pickles.open_pickles(files, normalised_key)
    check_layout(pickles.stored(tensors), config, _heads_of(tensors), folder)
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
    """Remove partial conversions of all weights, because nothing else may ever remove those of a killed process."""
    for folder in () if converted.is_symlink() else converted.iterdir():
        if re.fullmatch("[0-9a-f]{64}", folder.name):
            remove_abandoned(folder, re.escape(SAFETENSORS))


def _is_pickled(files: tuple[Path, ...]) -> bool:
    return any(file.suffix != ".safetensors" for file in files)


def _read_preprocessing(folder: Path, config: ModelConfig) -> Preprocessing:
    for file in (folder / name for name in hub.PREPROCESSOR_FILES):
        if file.exists():
            return Preprocessing.from_json(read_json(file), config.vision.image_size, source=str(file))
    # Some public checkpoints lack the file; the reference then uses these defaults, too.
    return Preprocessing.from_json({}, config.vision.image_size)
