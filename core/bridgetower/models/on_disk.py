"""The models on this machine: their names, what one of them is made of, and its removal."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bridgetower.errors import ModelError, UsageError
from bridgetower.files.os_errors import unwritable
from bridgetower.inputs import AnyPath, model_name
from bridgetower.records import DEMO, Head

if TYPE_CHECKING:
    from bridgetower.checkpoints.checkpoint import Checkpoint


class SizedFile(NamedTuple):
    """A file, and its bytes on the disk."""

    path: Path
    bytes: int


class Tower(NamedTuple):
    """A stack of layers."""

    layers: int
    width: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model on this machine; its weights have not been read."""

    name: str
    folder: Path
    revision: str  # commit of the repository; "local" for a folder, "bundled" for "demo"
    licence: str | None  # as the model card says
    files: tuple[SizedFile, ...]  # of its folder
    copies: tuple[SizedFile, ...]  # of its weights, converted or prepared, in the cache folder of `bridgetower`
    run_bytes: int  # of the run that trained it, in the folder `run` of its own; 0 without one
    heads: frozenset[Head] | None  # None for pickles that were never used
    parameters: int | None  # None for these, too
    dim: int | None  # length of its vectors; None without an ITC head
    text: Tower
    vision: Tower
    cross_modal: Tower
    vocabulary: int  # tokens that it knows
    max_tokens: int  # of the longest text
    image_size: int  # pixels of a side, as the vision tower reads them
    patch_size: int  # pixels of a side of a visual token
    preprocessing: dict[str, Any]  # name, lengths in pixels, mean and deviation of RGB in [0, 1]


@dataclass(frozen=True, slots=True)
class RemovedModel:
    """A model that was removed, or would be."""

    name: str
    revisions: int
    repository_bytes: int  # freed in the cache of the Hub
    copies: tuple[SizedFile, ...]  # removed from the cache folder of `bridgetower`

    @property
    def bytes(self) -> int:
        """How many bytes that frees."""
        return self.repository_bytes + sum(copy.bytes for copy in self.copies)


def model_names() -> list[str]:
    """List the repositories in the Hub's cache that are BridgeTowers, whole or in part. Reads next to nothing."""
    from bridgetower.checkpoints.hub import cached_names

    return cached_names()


def model_info(name: AnyPath) -> ModelInfo:
    """Describe a model on this machine: a repository in the Hub's cache, a folder, or "demo". Raises ModelError."""
    from bridgetower.checkpoints import hub
    from bridgetower.checkpoints.checkpoint import readable
    from bridgetower.checkpoints.find import locate, read_settings, read_unconverted

    place = locate(model_name(name))
    full_name, folder, revision = place
    config, preprocessing = read_settings(folder)
    checkpoint = read_unconverted(*place)
    with readable(folder):
        return ModelInfo(
            name=full_name,
            folder=folder,
            revision=revision,
            licence=hub.licence(folder),
            files=_sized(sorted(file for file in folder.iterdir() if file.is_file())),
            copies=_sized(_copies(checkpoint)),
            run_bytes=_run_bytes(folder),
            heads=None if checkpoint is None else checkpoint.heads,
            parameters=None if checkpoint is None else checkpoint.parameters,
            dim=config.contrastive_hidden_size,
            text=Tower(config.text.num_hidden_layers, config.text.hidden_size),
            vision=Tower(config.vision.num_hidden_layers, config.vision.hidden_size),
            cross_modal=Tower(config.num_hidden_layers, config.hidden_size),
            vocabulary=config.text.vocab_size,
            max_tokens=config.text.max_tokens,
            image_size=config.vision.image_size,
            patch_size=config.vision.patch_size,
            preprocessing=asdict(preprocessing),
        )


def _run_bytes(folder: Path) -> int:
    """Return the bytes that a training run keeps beside its model."""
    run = folder / "run"
    if not (run / "settings.json").is_file():
        return 0
    return sum(file.stat().st_size for file in run.rglob("*") if file.is_file())


def remove_model(name: str, *, dry_run: bool = False) -> RemovedModel:
    """Remove a repository from the Hub's cache, and the copies of weights that no other model there has.

    Raises UsageError for the demo model and for a folder of the user, which are never removed; ModelError.
    """
    from bridgetower.checkpoints import hub
    from bridgetower.checkpoints.cache import forget_digests
    from bridgetower.checkpoints.find import DEMO_FOLDER, own_place

    if name == DEMO:
        raise UsageError("demo: this model comes with the program and is never removed: uninstall the program for that")
    if not hub.is_cached(name):
        own = own_place(name)
        if own is None:
            raise ModelError(f"{name} is not on this machine: `bt model list` shows the models that are")
        raise UsageError(f"{own[0]}: this folder is your own and is never removed here: remove it yourself")
    snapshots = hub.snapshots(name)
    others = [other for other in hub.cached_names() if other != name]
    kept = {copy for other in others for snapshot in hub.snapshots(other) for copy in _copies_of(other, snapshot)}
    kept |= set(_copies_of(DEMO, DEMO_FOLDER))
    copies = {copy for snapshot in snapshots for copy in _copies_of(name, snapshot)} - kept
    sized = _sized(sorted(copies))
    freed = hub.remove(name, dry_run=dry_run)
    if not dry_run:
        for copy in sized:
            _remove(copy.path)
        for folder in (hub.storage(name), *{copy.path.parent for copy in sized if not copy.path.parent.exists()}):
            forget_digests(folder)
    return RemovedModel(name, len(snapshots), freed, sized)


def _copies_of(name: str, folder: Path) -> list[Path]:
    """Return the copies of the weights of a snapshot; none if it cannot be used."""
    from bridgetower.checkpoints.find import read_unconverted

    with suppress(ModelError):
        return _copies(read_unconverted(name, folder, folder.name))
    return []


def _copies(checkpoint: "Checkpoint | None") -> list[Path]:
    """Return the copies of weights in the cache, converted or prepared. Without a known digest there are none."""
    from bridgetower.checkpoints.cache import is_converted, prepared_copies

    if checkpoint is None:
        return []
    converted = [file for file in checkpoint.weights if is_converted(file)]
    digest = checkpoint.known_weights_sha256
    return [*converted, *([] if digest is None else prepared_copies(digest, checkpoint.config_sha256))]


def _sized(files: Iterable[Path]) -> tuple[SizedFile, ...]:
    return tuple(SizedFile(file, file.stat().st_size) for file in files)


def _remove(copy: Path) -> None:
    """Remove a copy, and its folder if that is empty then. Raises ModelError."""
    try:
        copy.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(copy, error, ModelError) from error
    with suppress(OSError):  # other files are there
        copy.parent.rmdir()
