"""Checkpoint folders of the Hugging Face Hub: in its cache on this machine, or fetched into it.

What is in the cache is used as it stands, without a word over the network; only what is not is fetched, and only where
`HF_HUB_OFFLINE` does not forbid it. Nothing is ever written into the cache but by `huggingface_hub` itself.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bridgetower.errors import ModelError

_REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")  # old name first, new name second
_SMALL_FILES = ["config.json", "README.md", *PREPROCESSOR_FILES, *TOKENIZER_FILES]
# Asked for in this order: a repository often holds both, and each is gigabytes.
_WEIGHTS = (
    ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"],
)


def is_repository_id(name: str) -> bool:
    """Whether `name` has the form owner/name."""
    return _REPOSITORY_ID.fullmatch(name) is not None


def cached_repositories() -> list[tuple[str, Path]]:
    """Id and newest snapshot folder of each model repository in the cache that holds a BridgeTower, by id."""
    from huggingface_hub import constants

    found = []
    for storage in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        repository = storage.name.removeprefix("models--").replace("--", "/", 1)
        folder = _cached_folder(repository)
        if folder is not None and _model_type(folder) == "bridgetower":
            found.append((repository, folder))
    return found


def find_or_fetch(repository: str, *, refresh: bool = False, progress: bool = True) -> Path:
    """The snapshot folder of a repository, complete with weights; its name is the commit.

    With `refresh` the Hub is asked for a newer commit even where the cache has one. `progress` lets `huggingface_hub`
    show bars on stderr. Raises `ModelError`.
    """
    if not refresh and (cached := _cached_folder(repository)) is not None:
        return cached
    for weights in _WEIGHTS:
        folder = _snapshot(repository, weights, progress=progress)
        if weight_files(folder):
            return folder
    raise ModelError(
        f"{repository}: the repository holds neither {SAFETENSORS} nor {PICKLE}; choose another checkpoint"
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights of `folder`, safetensors before pickles; empty where there are none.

    Raises `ModelError` where an index names a file that is not there.
    """
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise ModelError(f"{index}: it names no weights; fetch it again")
            files = tuple(folder / shard for shard in sorted(set(shards.values())))
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise ModelError(
                    f"{folder}: {missing[0]} is missing ({len(missing)} of {len(files)} weight files are): "
                    "the download is incomplete, start it again"
                )
            return files
    return ()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises `ModelError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: it holds no JSON object; fetch it again")
    return content


def _cached_folder(repository: str) -> Path | None:
    """The snapshot in the cache if it is complete, else None; never uses the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in _WEIGHTS:
        try:
            folder = Path(
                snapshot_download(repository, allow_patterns=[*_SMALL_FILES, *weights], local_files_only=True)
            )
            if weight_files(folder) and (folder / "config.json").is_file():
                return folder
        except (LocalEntryNotFoundError, ModelError):
            continue  # not there, or half of it: fetching goes on where it stopped
    return None


def _snapshot(repository: str, weights: list[str], *, progress: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        with nullcontext() if progress else _no_bars():
            return Path(snapshot_download(repository, allow_patterns=[*_SMALL_FILES, *weights]))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"{repository}: no such repository on the Hub, or it is private or gated; check the name, "
            "or log in with `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repository} is not on this machine and the Hub cannot be reached ({_reason(error)}): "
            f"run `bt model pull {repository}` where there is a network and copy its folder here, "
            "point --model at a folder that holds it, or try --model demo"
        ) from error
    except Exception as error:  # whatever the HTTP library of the day raises: here it all means the same
        raise ModelError(
            f"{repository}: the download failed ({_reason(error)}); start it again, it goes on where it stopped"
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():  # somebody else's decision, to be left as it is
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _reason(error: BaseException) -> str:
    """One line on the root of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = str(error).strip().partition("\n")[0]
    return line or type(error).__name__


def _model_type(folder: Path) -> object:
    try:
        return read_json(folder / "config.json").get("model_type")
    except ModelError:
        return None
