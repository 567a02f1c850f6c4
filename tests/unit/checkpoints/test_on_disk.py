"""A model on this machine is described as it is, and removed with what only it has, and with nothing else."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bridgetower import model_info, model_names, remove_model
from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.find import DEMO_FOLDER, resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.encoders import weight_cache
from bridgetower.errors import ModelError, UsageError
from bridgetower.records import DEMO
from tests.tiny import ALL_HEADS, tiny_checkpoint
from tests.unit.checkpoints.conftest import as_pickle, change_config, contents
from tests.unit.checkpoints.hub import Hub


def copies() -> set[Path]:
    return {file for file in cache_folder().rglob("*.safetensors") if file.is_file()}


def digests() -> int:
    return len(list(cache_folder().glob("digests/*.json")))


def another(cache: Path, source: str, name: str, folder: Path | None = None) -> Path:
    """A repository in the cache that is a copy of another, or has the files of a folder; its snapshot."""
    storage = cache / f"models--{name.replace('/', '--')}"
    if folder is None:
        shutil.copytree(cache / f"models--{source.replace('/', '--')}", storage, symlinks=True)
    else:
        (storage / "blobs").mkdir(parents=True)
        shutil.copytree(folder, storage / "snapshots" / ("3" * 40))
        (storage / "refs").mkdir()
        (storage / "refs" / "main").write_text("3" * 40)
    [snapshot] = (storage / "snapshots").iterdir()
    return snapshot


def test_a_repository_is_described(hub: Hub, cache: Path) -> None:
    (hub.folder / "README.md").write_text("---\nlicense: mit\n---\nA tiny one.\n")
    checkpoint = resolve(hub.repository, progress=False)
    model = model_info(hub.repository)
    assert (model.name, model.folder, model.revision) == (hub.repository, checkpoint.folder, hub.commit)
    assert (model.licence, model.heads) == ("mit", ALL_HEADS)
    assert model.parameters == sum(parameter.numel() for parameter in load_model(checkpoint).parameters())
    assert (model.dim, model.text.layers) == (
        checkpoint.config.contrastive_hidden_size,
        checkpoint.config.text.num_hidden_layers,
    )
    assert {file.path.name: file.bytes for file in model.files} == {
        file.name: file.stat().st_size for file in hub.folder.iterdir()
    }
    assert model.copies == ()
    weight_cache.load(checkpoint, "fp32")
    assert {(file.path, file.bytes) for file in model_info(hub.repository).copies} == {
        (file, file.stat().st_size) for file in copies()
    }


def test_pickles_are_described_without_a_conversion_and_fully_after_it(hub: Hub, cache: Path) -> None:
    as_pickle(hub.folder)
    snapshot = another(cache, "", "some/pickles", hub.folder)
    model = model_info("some/pickles")
    assert (model.heads, model.parameters, model.copies) == (None, None, ())
    assert model.dim is not None and copies() == set()
    resolve("some/pickles")
    model = model_info("some/pickles")
    assert model.heads == ALL_HEADS and model.parameters
    assert {file.path for file in model.copies} == copies() != set()
    assert remove_model("some/pickles").copies == model.copies
    assert copies() == set() and digests() == 0 and not snapshot.exists()


@pytest.mark.parametrize(
    "card", [None, b"", b"---\nlicense: [\n---\n", b"---\nlicense: {a: b}\n---\n", b"\xff", b"no front matter"]
)
def test_a_card_without_a_licence_says_none(card: bytes | None, folder: Path) -> None:
    if card is not None:
        (folder / "README.md").write_bytes(card)
    assert model_info(folder).licence is None


def test_a_folder_and_the_demo_model_are_described(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (model_info(folder).name, model_info(folder).revision) == (str(folder), "local")
    model = model_info(DEMO)
    assert (model.folder, model.revision, model.heads) == (DEMO_FOLDER, "bundled", ALL_HEADS)
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelError, match="some/model is not on this machine: fetch it with `bt model pull some/model`"):
        model_info("some/model")


def test_a_model_is_removed_with_its_copies_and_nothing_else(hub: Hub, cache: Path) -> None:
    checkpoint = resolve(hub.repository, progress=False)
    weight_cache.load(checkpoint, "fp32")
    weight_cache.load(checkpoint, "bf16")
    other = another(cache, "", "some/other", tiny_checkpoint(hub.folder.parent / "other", seed=7))
    weight_cache.load(resolve("some/other"), "fp32")
    theirs = {copy.path for copy in model_info("some/other").copies}
    others = contents(other)
    assert model_names() == ["some/other", hub.repository]
    before = contents(cache)
    planned = remove_model(hub.repository, dry_run=True)
    assert contents(cache) == before and len(copies()) == 3
    removed = remove_model(hub.repository)
    assert removed == planned
    sizes = [file.stat().st_size for file in hub.folder.iterdir()]
    assert removed.repository_bytes == sum(sizes) and removed.bytes > sum(sizes) and len(removed.copies) == 2
    assert model_names() == ["some/other"]
    assert copies() == theirs and contents(other) == others
    assert not list(cache.glob("models--someone*"))
    assert {
        name for name in map(str, cache_folder().glob("digests/*.json")) if "someone" in Path(name).read_text()
    } == set()
    with pytest.raises(ModelError, match=r"is not on this machine: `bt model list`"):
        remove_model(hub.repository)


def test_copies_that_another_model_has_too_stay(hub: Hub, cache: Path) -> None:
    weight_cache.load(resolve(hub.repository, progress=False), "fp32")
    another(cache, hub.repository, "some/fork")
    weight_cache.load(resolve("some/fork"), "fp32")
    [shared] = copies()
    assert remove_model("some/fork").copies == ()
    assert copies() == {shared}
    assert [copy.path for copy in remove_model(hub.repository).copies] == [shared]
    assert copies() == set()


def test_all_revisions_are_removed(hub: Hub, cache: Path) -> None:
    weight_cache.load(resolve(hub.repository, progress=False), "fp32")
    tiny_checkpoint(hub.folder, seed=5)
    hub.commit = "2" * 40
    weight_cache.load(resolve(hub.repository, refresh=True, progress=False), "fp32")
    assert len(copies()) == 2
    removed = remove_model(hub.repository)
    assert (removed.revisions, len(removed.copies), copies()) == (2, 2, set())


def test_a_download_that_broke_off_is_removed(hub: Hub, cache: Path) -> None:
    snapshot = resolve(hub.repository, progress=False).folder
    (snapshot / "model.safetensors").resolve().unlink()
    (snapshot / "model.safetensors").unlink()
    assert model_names() == [hub.repository]
    remove_model(hub.repository)
    assert not list(cache.glob("models--*"))


def test_what_is_not_ours_to_remove_stays(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)
    monkeypatch.chdir(folder.parent)
    for name in (str(folder), folder.name):
        with pytest.raises(UsageError, match=f"{folder}: this folder is your own and is never removed"):
            remove_model(name)
    with pytest.raises(UsageError, match="never removed"):
        remove_model(DEMO)
    assert contents(folder) == before
    snapshot = another(cache, "", "some/bert", folder)
    change_config(snapshot, model_type="bert")
    with pytest.raises(ModelError, match="some/bert: this is no BridgeTower, but of type bert"):
        remove_model("some/bert")
    assert snapshot.is_dir() and model_names() == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whose permissions count")
def test_what_cannot_be_removed_is_told(hub: Hub, cache: Path) -> None:
    resolve(hub.repository, progress=False)
    [storage] = cache.glob("models--*")
    storage.chmod(0o500)
    try:
        with pytest.raises(ModelError, match="not all could be removed: check the permissions"):
            remove_model(hub.repository)
    finally:
        storage.chmod(0o700)


def test_what_the_library_of_the_hub_leaves_is_told(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave: Callable[..., None] = lambda *_, **__: None  # noqa: E731 - as it does where it may not remove something
    resolve(hub.repository, progress=False)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager._try_delete_path", leave)
    with pytest.raises(ModelError, match="not all could be removed: check the permissions"):
        remove_model(hub.repository)
