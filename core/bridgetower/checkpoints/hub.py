"""Find checkpoint folders of the Hugging Face Hub in its cache on this machine, or fetch them into it.

A complete checkpoint in the cache is used without asking the network. Otherwise it is fetched, unless `HF_HUB_OFFLINE`
forbids it. Only `huggingface_hub` itself writes to the cache.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.documents import read_document, read_json
from bridgetower.errors import ModelError
from bridgetower.files.os_errors import unreadable
from bridgetower.records import Say
from bridgetower.resources import causes, shortage

_OWNER_AND_NAME = re.compile(r"[\w.-]+/[\w.-]+")

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
# Only the first form that a repository has is fetched: many have both, and each is gigabytes.
_WEIGHTS = (
    re.compile(r"model(-.+)?\.safetensors|model\.safetensors\.index\.json"),
    re.compile(r"pytorch_model(-.+)?\.bin|pytorch_model\.bin\.index\.json"),
)
# The other files that are read, as alternatives: of each group, the first alternative that is present is used.
_REQUIRED_FILES = (
    (("config.json",),),
    (("tokenizer.json",), ("vocab.json", "merges.txt")),
    tuple((name,) for name in PREPROCESSOR_FILES),
)
_OPTIONAL_FILES = ((("tokenizer_config.json",),),)  # many repositories have none

_TIMEOUT_S = 5.0  # for the first answer of the Hub; `huggingface_hub` by default waits for minutes


def is_repository_id(name: str) -> bool:
    """Return whether `name` has the form owner/name, in characters that the Hub allows."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return _OWNER_AND_NAME.fullmatch(name) is not None


def cached_repositories() -> list[tuple[str, Path]]:
    """Return id and newest snapshot folder of each complete BridgeTower in the cache, sorted by id."""
    from huggingface_hub import constants

    found = []
    for storage in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        repository = storage.name.removeprefix("models--").replace("--", "/", 1)
        if is_repository_id(repository):  # other folders may be there
            folder, missing = _find_snapshot(repository)
            if folder is not None and not missing and _is_bridgetower(folder):
                found.append((repository, folder))
    return found


def cached_names() -> list[str]:
    """Return the id of each repository in the cache that may be a BridgeTower, also of those that lack some files."""
    from huggingface_hub import constants

    found = []
    for place in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        name = place.name.removeprefix("models--").replace("--", "/", 1)
        if is_repository_id(name) and any(map(_is_bridgetower, place.glob("snapshots/*"))):
            found.append(name)
    return found


def snapshots(repository: str) -> list[Path]:
    """Return every snapshot folder of a repository in the cache. Raises ModelError if it is no BridgeTower."""
    found = [folder for folder in storage(repository).glob("snapshots/*") if folder.is_dir()]
    kinds = {_model_type(folder) for folder in found} - {None}
    if kinds and "bridgetower" not in kinds:
        raise ModelError(
            f"{repository}: this is no BridgeTower, but of type {kinds.pop()}: remove it with `hf cache rm`"
        )
    return found


def remove(repository: str, *, dry_run: bool) -> int:
    """Remove all revisions of a repository from the cache; return how many bytes that frees. Raises ModelError."""
    from huggingface_hub import constants, scan_cache_dir

    place = storage(repository)
    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except OSError as error:
        raise unreadable(constants.HF_HUB_CACHE, error, ModelError, advice="check its permissions") from error
    found = frozenset(repo for repo in cache.repos if (repo.repo_type, repo.repo_id) == ("model", repository))
    if not found:
        raise ModelError(f"{place}: `huggingface_hub` does not understand the folder: remove it by hand")
    # Of this repository alone: of a commit that two repositories have, that of either would be deleted, by chance.
    commits = (revision.commit_hash for repo in found for revision in repo.revisions)
    strategy = replace(cache, repos=found).delete_revisions(*commits)
    if not dry_run:
        strategy.execute()
        if place.exists():  # it only logs what it could not remove
            raise ModelError(f"{place}: not all could be removed: check the permissions, and run it again")
    return strategy.expected_freed_size


def licence(folder: Path) -> str | None:
    """Return the licence that the model card says, if there is a card, and it says one."""
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(read_document(folder / "README.md").decode("utf-8"), ignore_metadata_errors=True)
    except Exception:  # noqa: BLE001 - of the parser of YAML; a card is written by anyone
        return None
    said = card.data.get("license_name") or card.data.get("license")
    return said if isinstance(said, str) else None


def is_cached(name: str) -> bool:
    """Return whether a repository of this name is in the cache, whole or in part."""
    return is_repository_id(name) and storage(name).is_dir()


def storage(repository: str) -> Path:
    """Return the folder of a repository in the cache, which may be absent."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def find(repository: str) -> tuple[Path | None, str]:
    """Return the snapshot folder of a repository in the cache, or None and why: it is absent, or lacks some files."""
    folder, missing = _find_snapshot(repository)
    if folder is None:
        return None, "is not on this machine"
    return (None, f"is on this machine without {', '.join(missing)}") if missing else (folder, "")


def find_or_fetch(repository: str, *, refresh: bool, progress: bool, say: Say) -> Path:
    """Return the snapshot folder of a repository, with all needed files that it has; its name is the commit.

    With `refresh` the Hub is asked for a newer commit even if the cache has one; if the Hub cannot be reached, the
    cached commit is used. `progress` lets `huggingface_hub` show bars on stderr. Raises `ModelError`.
    """
    cached, missing = _find_snapshot(repository)
    if cached is not None and not missing and not refresh:
        return cached
    say(f"asking the Hub for {repository} ...")
    try:
        there = _files_on_the_hub(repository)
    except _UnreachableError as error:
        whole, here = find(repository)
        if whole is not None:
            say(f"the Hub cannot be reached ({error}): what is on this machine, revision {whole.name}, is not updated")
            return whole
        raise ModelError(
            f"{repository} {here} and the Hub cannot be reached ({error}): "
            f"run `bt model pull {repository}` where there is a network and copy its folder here, "
            'name a folder that holds it, or try the model "demo"'
        ) from error
    weights = next((found for form in _WEIGHTS if (found := list(filter(form.fullmatch, there.sizes)))), None)
    if weights is None:
        raise ModelError(
            f"{repository}: the repository holds neither {SAFETENSORS} nor {PICKLE}; choose another checkpoint"
        )
    wanted = [*_SMALL_FILES, *weights]
    _announce(repository, there, wanted, weights, say)
    return _download(repository, wanted, progress=progress)


def _announce(repository: str, there: "_OnTheHub", wanted: list[str], weights: list[str], say: Say) -> None:
    """Say how much is to be fetched, and how much disk copies of the weights take as the model runs."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    snapshot = storage(repository) / "snapshots" / there.commit
    size = sum(there.sizes.get(name, 0) for name in wanted if not (snapshot / name).exists())
    if size:
        # Pickles are converted, and weights are kept in the precision in which they run, at most as large as they are.
        copies = sum(there.sizes[name] for name in weights) * (2 if weights[0].startswith("pytorch") else 1)
        say(
            f"fetching {repository}: {_size(size)} into {cache}; as it runs, copies of its weights take up to "
            f"{_size(copies)} in {cache_folder()}"
        )


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e8 else f"{bytes_ / 1e6:.1f} MB"


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights of `folder`: safetensors, else pickles, else none.

    Raises `ModelError` if an index file names an absent file.
    """
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise ModelError(f"{index}: it names no weights; fetch it again")
            plain = re.compile(rf"\w[^/\\:]*{re.escape(Path(name).suffix)}")  # never a path outside the folder
            strange = next((shard for shard in shards.values() if not plain.fullmatch(shard)), None)
            if strange is not None:
                raise ModelError(
                    f"{index}: {strange!r:.100} is no name of a {Path(name).suffix} file beside it; fetch it again"
                )
            files = tuple(folder / shard for shard in sorted(set(shards.values())))
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise ModelError(
                    f"{folder}: {missing[0]} is missing ({len(missing)} of {len(files)} weight files are): "
                    "the download is incomplete, start it again"
                )
            return files
    return ()


def _find_snapshot(repository: str) -> tuple[Path | None, list[str]]:
    """Return the snapshot in the cache, or None, and the files that it lacks; never uses the network.

    It is that of the main branch. Where that is not known, as files were fetched by commit, it is the newest whole
    snapshot, else the newest.
    """
    found = [(folder, _lacks(repository, folder)) for folder in _snapshots(repository)]
    return next((entry for entry in found if not entry[1]), found[0] if found else (None, []))


def _snapshots(repository: str) -> list[Path]:
    """Return the snapshot folder of the main branch; where that is unknown, all snapshot folders, newest first."""
    place = storage(repository)
    try:
        commit = (place / "refs" / "main").read_text().strip()
    except (OSError, ValueError):  # files were fetched by commit, or the cache is damaged
        commit = ""
    main = place / "snapshots" / commit
    try:
        if re.fullmatch(r"\w+", commit) and main.is_dir():
            return [main]
        others = [folder for folder in place.glob("snapshots/*") if folder.is_dir()]
        return sorted(others, key=lambda folder: -folder.stat().st_mtime_ns)
    except OSError:
        return []


def _lacks(repository: str, folder: Path) -> list[str]:
    """Return the files that a snapshot lacks; "its weights" stands for these."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        listed = {file.path for file in get_cached_repo_tree(repository, revision=folder.name)}
    except (CachedRepoTreeNotFoundError, OSError, ValueError):  # absent if a program has fetched single files
        listed = None
    there = set[str]()
    try:
        there = {file.name for file in folder.iterdir() if file.is_file()}
        whole = bool(weight_files(folder))
    except (ModelError, OSError):
        whole = False
    missing = _missing_files(there, listed)
    return missing if whole else [*missing, "its weights"]


def _missing_files(there: set[str], listed: set[str] | None) -> list[str]:
    """Return the files that a snapshot with `there` lacks; `listed` are those of its repository, None if unknown."""
    missing: list[str] = []
    if listed is None:
        for forms in _REQUIRED_FILES:
            if not any(there.issuperset(form) for form in forms):
                missing += forms[0]
    else:
        for forms in _REQUIRED_FILES + _OPTIONAL_FILES:
            first = next((form for form in forms if listed.issuperset(form)), ())
            missing += [name for name in first if name not in there]
    return missing


def _access_error(repository: str, error: BaseException) -> ModelError | None:
    """Return the error to raise if the Hub denied access to the repository, else None."""
    from huggingface_hub import constants
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    answer = next((cause for cause in causes(error) if isinstance(cause, HfHubHTTPError)), None)
    status = None if answer is None else answer.response.status_code
    if isinstance(answer, GatedRepoError):
        why = (
            f"the repository is gated: ask for access on its page {constants.ENDPOINT}/{repository}, then log in with "
            "`hf auth login`"
        )
    elif isinstance(answer, RepositoryNotFoundError):
        why = "no such repository on the Hub, or it is private; check the name, or log in with `hf auth login`"
    elif isinstance(answer, DisabledRepoError):
        why = "the Hub has disabled the repository; choose another checkpoint"
    elif status == 401:
        why = "the Hub does not know your token; log in again with `hf auth login`"
    elif status == 403:
        why = "your token may not read the repository; log in with one that may, with `hf auth login`"
    else:
        return None
    return ModelError(f"{repository}: {why}")


class _UnreachableError(Exception):
    """The Hub does not answer; the message says why."""


class _OnTheHub(NamedTuple):
    """A repository on the Hub."""

    commit: str  # of its main branch
    sizes: dict[str, int]  # bytes of each file; 0 if unknown


def _files_on_the_hub(repository: str) -> _OnTheHub:
    """List the files. Raises `ModelError` if the Hub denies access, `_UnreachableError` if it does not answer."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(repository, timeout=_TIMEOUT_S, files_metadata=True)
        return _OnTheHub(found.sha or "", {file.rfilename: file.size or 0 for file in found.siblings or ()})
    except Exception as error:  # errors of the HTTP library, which varies between versions
        raise _access_error(repository, error) or _UnreachableError(_reason(error)) from error


def _download(repository: str, files: list[str], *, progress: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with nullcontext() if progress else _no_bars():
            return Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # as above
        raise (
            shortage(error)
            or _access_error(repository, error)
            or ModelError(
                f"{repository}: the download failed ({_reason(error)}); start it again, it goes on where it stopped"
            )
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():  # the user has disabled them, and they must stay disabled
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _reason(error: BaseException) -> str:
    """Return the first line of the root cause of an error."""
    *_, root = causes(error)
    return str(root).strip().partition("\n")[0] or type(root).__name__


def _is_bridgetower(folder: Path) -> bool:
    return _model_type(folder) == "bridgetower"


def _model_type(folder: Path) -> object:
    try:
        return read_json(folder / "config.json").get("model_type")
    except ModelError:
        return None
