"""Checkpoints come from the Hub once, whole, and from then on without it."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import bridgetower.checkpoints.hub
from bridgetower import Library
from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.find import LocalModel, available, pull, resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.errors import ModelError
from bridgetower.index.writer import IndexWriter
from bridgetower.pictures.preprocess import Preprocessing
from tests.indexes import FINGERPRINT, add
from tests.tiny import ALL_HEADS, tiny_checkpoint
from tests.unit.checkpoints.conftest import as_pickle, change_config, contents, refusal
from tests.unit.checkpoints.hub import Hub


def test_a_repository_is_fetched_once_and_then_read_without_the_network(hub: Hub, cache: Path) -> None:
    checkpoint = resolve(hub.repository, progress=False)
    assert (checkpoint.name, checkpoint.revision) == (hub.repository, hub.commit)
    assert checkpoint.folder.is_relative_to(cache)
    assert load_model(checkpoint).heads == ALL_HEADS
    assert checkpoint.tokenizer().encode("two cats").ids
    asked = len(hub.requests)
    stored = contents(cache)
    again = resolve(hub.repository)
    assert again.weights_sha256 == resolve(str(hub.folder)).weights_sha256
    assert len(hub.requests) == asked
    assert contents(cache) == stored
    [model] = available()
    size = (hub.folder / "model.safetensors").stat().st_size
    assert model == LocalModel(hub.repository, checkpoint.folder, size, ALL_HEADS, None)


def test_only_one_form_of_the_weights_is_fetched(hub: Hub) -> None:
    (hub.folder / "pytorch_model.bin").write_bytes(b"gigabytes")
    (hub.folder / "flax_model.msgpack").write_bytes(b"gigabytes")
    resolve(hub.repository, progress=False)
    assert not [request for request in hub.requests if "pytorch_model" in request or "flax" in request]


def test_a_repository_of_pickles(hub: Hub, cache: Path) -> None:
    as_pickle(hub.folder)
    checkpoint = resolve(hub.repository, progress=False)
    assert load_model(checkpoint).heads == ALL_HEADS
    assert not list(cache.rglob("*.safetensors"))
    [model] = available()
    assert (model.heads, model.problem) == (None, None)
    asked = len(hub.requests)
    resolve(hub.repository)
    assert len(hub.requests) == asked


def test_pull_asks_for_a_newer_commit(hub: Hub) -> None:
    first = resolve(hub.repository, progress=False)
    tiny_checkpoint(hub.folder, seed=5)
    hub.commit = "2" * 40
    assert resolve(hub.repository).revision == first.revision
    second = pull(hub.repository, progress=False)
    assert second.revision == "2" * 40
    assert second.weights_sha256 != first.weights_sha256
    assert resolve(hub.repository).revision == second.revision


def test_a_repository_that_does_not_exist(hub: Hub) -> None:
    assert "no such repository on the Hub" in refusal("nobody/nothing")


GATED = (403, {"X-Error-Code": "GatedRepo"})


@pytest.mark.parametrize("part", ["listing", "files"])
def test_a_gated_repository_says_where_to_ask_for_access(part: str, hub: Hub) -> None:
    hub.refuses[part] = GATED
    assert refusal(hub.repository) == (
        f"{hub.repository}: the repository is gated: ask for access on its page {hub.url}/{hub.repository}, then log "
        "in with `hf auth login`"
    )


@pytest.mark.parametrize("part", ["listing", "files"])
@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (403, {"X-Error-Message": "Access to this resource is disabled."}, "the Hub has disabled the repository"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "the Hub does not know your token"),
        (403, {}, "your token may not read the repository"),
        (401, {"X-Error-Code": "RepoNotFound"}, "no such repository on the Hub, or it is private"),
    ],
    ids=["disabled", "unknown token", "weak token", "private"],
)
def test_a_repository_that_is_refused_says_why(
    part: str, status: int, headers: dict[str, str], why: str, hub: Hub
) -> None:
    hub.refuses[part] = (status, headers)
    assert refusal(hub.repository).startswith(f"{hub.repository}: {why}")


def test_a_hub_in_trouble_is_one_that_cannot_be_reached(hub: Hub) -> None:
    hub.refuses["listing"] = (501, {})
    assert "the Hub cannot be reached" in refusal(hub.repository)


def test_a_model_that_an_index_names_is_never_fetched(hub: Hub) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(hub.repository, fetch=False)
    assert str(caught.value) == (
        f"{hub.repository}: the index was made with this model, which is not on this machine: fetch it with `bt model "
        f"pull {hub.repository}`, or say where it is with --model"
    )
    assert hub.requests == []
    pulled = pull(hub.repository)
    asked = len(hub.requests)
    assert resolve(hub.repository, fetch=False) == pulled
    (pulled.folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"is on this machine without tokenizer\.json: fetch it"):
        resolve(hub.repository, fetch=False)
    assert len(hub.requests) == asked


def test_a_library_fetches_nothing_because_an_index_names_it(hub: Hub, tmp_path: Path) -> None:
    with IndexWriter.open(tmp_path / "index", replace(FINGERPRINT, model=hub.repository)) as writer:
        add(writer, 0)
    with pytest.raises(ModelError, match=f"fetch it with `bt model pull {hub.repository}`"):
        _ = Library(tmp_path / "index").model
    assert hub.requests == []


def test_a_repository_without_weights(hub: Hub) -> None:
    (hub.folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in refusal(hub.repository)


def test_an_interrupted_download_is_named_and_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.cut = "model.safetensors"
    message = refusal(hub.repository)
    assert message.startswith(hub.repository) and "start it again" in message
    assert available() == []
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "is on this machine without its weights" in refusal(hub.repository)
    hub.cut = None
    assert resolve(hub.repository, progress=False).heads == ALL_HEADS


def by_another_program(hub: Hub, *names: str) -> None:
    """Fetch single files into the cache: nothing there says which other ones the repository has."""
    from huggingface_hub import hf_hub_download

    for name in names:
        hf_hub_download(hub.repository, name)


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("config.json", "tokenizer.json, preprocessor_config.json, its weights"),
        ("config.json model.safetensors", "tokenizer.json, preprocessor_config.json"),
        ("config.json model.safetensors tokenizer.json", "preprocessor_config.json"),
        ("config.json model.safetensors preprocessor_config.json vocab.json", "tokenizer.json"),
    ],
)
def test_what_another_program_left_out_is_fetched(
    there: str, missing: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    by_another_program(hub, *there.split())
    assert available() == []
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        message = refusal(hub.repository)
    assert f"is on this machine without {missing} and the Hub cannot be reached" in message
    assert f"bt model pull {hub.repository}" in message
    change = {"size": {"shortest_edge": 128}, "crop_size": 96}
    (hub.folder / "preprocessor_config.json").write_text(json.dumps(change))
    if "preprocessor" in missing:
        assert resolve(hub.repository, progress=False).preprocessing == Preprocessing(128, 96)
    assert resolve(hub.repository, progress=False).tokenizer().encode("two cats").ids
    assert [model.name for model in available()] == [hub.repository]


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "vocab.json merges.txt"])
def test_what_another_program_fetched_serves_without_a_network(
    tokenizer: str, hub: Hub, offline: Callable[[], None]
) -> None:
    by_another_program(hub, "config.json", "model.safetensors", "preprocessor_config.json", *tokenizer.split())
    offline()
    assert resolve(hub.repository).tokenizer().encode("two cats").ids
    assert [model.name for model in available()] == [hub.repository]


def test_a_snapshot_is_whole_if_it_has_what_its_repository_has(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, offline: Callable[[], None]
) -> None:
    """Neither a preprocessor nor a tokenizer configuration, and no README: some repositories are like that."""
    (hub.folder / "preprocessor_config.json").unlink()
    (hub.folder / "tokenizer.json").unlink()
    resolve(hub.repository, progress=False)
    offline()
    assert resolve(hub.repository).preprocessing == Preprocessing(96, 96)  # the defaults of the reference
    assert resolve(hub.repository).tokenizer().encode("two cats").ids


@pytest.mark.parametrize(
    "lost", ["config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "model.safetensors"]
)
def test_what_is_gone_from_a_snapshot_is_missed(lost: str, hub: Hub, offline: Callable[[], None]) -> None:
    (hub.folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    (resolve(hub.repository, progress=False).folder / lost).unlink()
    assert available() == []
    restored = resolve(hub.repository, progress=False)
    assert restored.tokenizer().max_tokens == 8
    (restored.folder / lost).unlink()
    offline()
    assert "the Hub cannot be reached" in refusal(hub.repository)


def test_strays_in_the_cache_are_passed_over(hub: Hub, cache: Path) -> None:
    resolve(hub.repository, progress=False)
    (cache / "models--a--b--c").mkdir()
    (cache / "models--a--b.git" / "refs").mkdir(parents=True)
    (cache / "models----").mkdir()
    (cache / f"models--a--{'x' * 200}").mkdir()
    (cache / "models--some--file").write_text("a file")
    (cache / "models--odd--refs" / "refs" / "main").mkdir(parents=True)
    (cache / "models--odd--bytes" / "refs").mkdir(parents=True)
    (cache / "models--odd--bytes" / "snapshots").mkdir()
    (cache / "models--odd--bytes" / "refs" / "main").write_bytes(b"\xff\x00")
    (cache / "models--odd--snapshots" / "refs").mkdir(parents=True)
    (cache / "models--odd--snapshots" / "refs" / "main").write_text("abc")
    (cache / "models--odd--snapshots" / "snapshots").write_text("a file")
    assert [model.name for model in available()] == [hub.repository]


def test_the_hub_is_announced_before_it_is_asked_and_the_size_before_it_is_fetched(hub: Hub, cache: Path) -> None:
    said: list[str] = []
    size = sum(file.stat().st_size for file in hub.folder.iterdir()) / 1e6
    weights = (hub.folder / "model.safetensors").stat().st_size / 1e6
    resolve(hub.repository, progress=False, say=said.append)
    assert said == [
        f"asking the Hub for {hub.repository} ...",
        f"fetching {hub.repository}: {size:.1f} MB into {cache}; as it runs, copies of its weights take up to "
        f"{weights:.1f} MB in {cache_folder()}",
    ]
    resolve(hub.repository, say=said.append)
    assert len(said) == 2  # it is in the cache
    pull(hub.repository, say=said.append)
    assert said[2:] == said[:1]  # nothing is to be fetched


def test_copies_of_pickles_take_twice_the_disk(hub: Hub) -> None:
    as_pickle(hub.folder)
    weights = (hub.folder / "pytorch_model.bin").stat().st_size / 1e6
    said: list[str] = []
    resolve(hub.repository, progress=False, say=said.append)
    assert f"take up to {2 * weights:.1f} MB in " in said[1]


def test_a_model_that_was_fetched_by_commit_is_there(
    hub: Hub, cache: Path, tmp_path: Path, offline: Callable[[], None]
) -> None:
    whole = resolve(hub.repository, progress=False)
    (whole.folder.parents[1] / "refs" / "main").unlink()
    newer = whole.folder.with_name("2" * 40)
    newer.mkdir()
    (newer / "config.json").symlink_to((whole.folder / "config.json").resolve())
    os.utime(newer, (2**32, 2**32))
    offline()
    assert resolve(hub.repository).folder == whole.folder
    assert resolve(hub.repository, fetch=False).revision == hub.commit
    assert [model.name for model in available()] == [hub.repository]
    (whole.folder / "model.safetensors").unlink()
    missing = "tokenizer.json, preprocessor_config.json, its weights"
    assert f"is on this machine without {missing} and the Hub" in refusal(hub.repository)


def test_pull_without_a_network_says_that_nothing_was_updated(hub: Hub, offline: Callable[[], None]) -> None:
    first = resolve(hub.repository, progress=False)
    offline()
    said: list[str] = []
    assert pull(hub.repository, say=said.append).folder == first.folder
    assert "cannot be reached" in said[1] and f"revision {hub.commit}, is not updated" in said[1]


@pytest.mark.usefixtures("cache")
def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(bridgetower.checkpoints.hub, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert "the Hub cannot be reached" in refusal("someone/something")
        assert time.monotonic() - began < 5


def test_progress_is_shown_unless_it_is_switched_off(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    enable_progress_bars()  # other libraries switch them off for the whole process
    resolve(hub.repository, progress=False)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Fetching" not in captured.err
    assert not are_progress_bars_disabled()
    hub.commit = "2" * 40
    pull(hub.repository, progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Fetching" in captured.err


@pytest.mark.parametrize("offline", [True, False], ids=["offline switch", "unreachable"])
def test_without_a_network_the_three_ways_out_are_named(
    offline: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    message = refusal("BridgeTower/bridgetower-large-itm-mlm-itc")
    assert "bt model pull BridgeTower/bridgetower-large-itm-mlm-itc" in message
    assert "name a folder" in message
    assert 'the model "demo"' in message and "--model" not in message
    assert not cache.exists() or contents(cache) == {}


def test_a_damaged_model_in_the_cache_is_listed_with_its_problem(hub: Hub) -> None:
    checkpoint = resolve(hub.repository, progress=False)
    file = (checkpoint.folder / "model.safetensors").resolve()
    file.write_bytes(file.read_bytes()[:-1])
    [model] = available()
    assert model.heads is None
    assert model.problem is not None and "not a complete safetensors file" in model.problem


def test_other_models_in_the_cache_are_not_listed(hub: Hub) -> None:
    resolve(hub.repository, progress=False)
    change_config(hub.folder, model_type="clip")
    hub.commit = "2" * 40
    assert "'clip'" in refusal_of(partial(pull, hub.repository, progress=False))
    assert available() == []


def refusal_of(action: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    return str(caught.value)
