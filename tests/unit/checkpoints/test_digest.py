"""The digest of weights is that of what they hold, and follows every change."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bridgetower.checkpoints import checkpoint
from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.save import convert
from bridgetower.errors import ModelError
from tests.unit.checkpoints.conftest import (
    as_pickle,
    change_weights,
    shard,
)


def test_the_digest_is_that_of_the_tensors_by_the_documented_rule(folder: Path) -> None:
    expected = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        if "text_model.pooler" not in name:  # on the list of what nothing reads
            expected.update(json.dumps([name, "F32", list(tensor.shape)]).encode() + b"\n" + tensor.numpy().tobytes())
    assert resolve(str(folder)).weights_sha256 == expected.hexdigest()


def test_notes_that_a_killed_process_left_unfinished_are_removed(folder: Path) -> None:
    notes = cache_folder() / "digests"
    notes.mkdir(parents=True, exist_ok=True)
    old, other = (notes / f".{name}.0123abcd.partial" for name in (f"{'0' * 64}.json", "note.json"))
    for file in (old, other):
        file.touch()
        os.utime(file, (1, 1))
    assert resolve(str(folder)).weights_sha256
    assert not old.exists() and other.exists()


def test_copies_of_the_same_weights_have_the_same_digest(folder: Path, tmp_path: Path) -> None:
    digest = resolve(str(folder)).weights_sha256
    assert convert(str(folder), tmp_path / "converted").weights_sha256 == digest
    extra = {"bridgetower.text_model.embeddings.position_ids": torch.arange(34)[None]}
    change_weights(folder, lambda tensors: tensors.update(extra))
    assert resolve(str(folder)).weights_sha256 == digest
    shutil.copytree(folder, tmp_path / "pickled")
    as_pickle(tmp_path / "pickled")
    assert resolve(str(tmp_path / "pickled")).weights_sha256 == digest
    assert convert(str(tmp_path / "pickled"), tmp_path / "from pickle").weights_sha256 == digest
    shard(folder)
    assert resolve(str(folder)).weights_sha256 == digest
    assert convert(str(folder), tmp_path / "from shards").weights_sha256 == digest


def test_conversion_keeps_the_type_of_each_tensor(folder: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, Any]) -> None:
        tensors |= {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items() if key != "logit_scale"}
        tensors["logit_scale"].fill_(2.6592)  # no number of bfloat16

    whole = resolve(str(folder)).weights_sha256
    change_weights(folder, halve)
    digest = resolve(str(folder)).weights_sha256
    assert digest != whole
    assert convert(str(folder), tmp_path / "converted").weights_sha256 == digest


def test_the_digest_follows_the_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    first = resolve(str(folder)).weights_sha256
    change_weights(folder, lambda tensors: tensors["logit_scale"].add_(1))
    second = resolve(str(folder)).weights_sha256
    assert second != first
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the size stays, the time does not
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))
    assert resolve(str(folder)).weights_sha256 not in (first, second)


def test_bytes_changed_in_place_are_noticed_though_size_and_time_are_set_back(folder: Path) -> None:
    file = folder / "model.safetensors"
    before, digest = file.stat(), resolve(str(folder)).weights_sha256
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert resolve(str(folder)).weights_sha256 != digest


def test_a_pickle_changed_in_place_is_converted_again(folder: Path) -> None:
    file = as_pickle(folder)
    before, digest = file.stat(), resolve(str(folder)).weights_sha256
    other = folder.parent / file.name  # the name stands in the bytes
    torch.save({**torch.load(file), "logit_scale": torch.tensor(0.25)}, other)
    changed = other.read_bytes()
    assert len(changed) == before.st_size
    file.write_bytes(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resolve(str(folder)).weights_sha256 != digest


def test_the_digest_of_a_tokenizer_is_that_of_what_it_learned(folder: Path, tmp_path: Path) -> None:
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    digest = resolve(str(folder)).tokenizer_sha256
    learned = {key: value for key, value in whole.items() if key not in ("truncation", "padding")}
    expected = hashlib.sha256(b"32\n" + json.dumps(learned, sort_keys=True).encode() + b"\n").hexdigest()
    assert digest == expected
    assert convert(str(folder), tmp_path / "converted").tokenizer_sha256 == digest
    # Another layout, cutting and padding, which are not done by it, and a limit beyond that of the network.
    cut = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps(whole | {"truncation": cut}, indent=3))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512, "tokenizer_class": "RobertaTokenizer"}')
    assert resolve(str(folder)).tokenizer_sha256 == digest
    digests = {digest}
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    digests.add(resolve(str(folder)).tokenizer_sha256)
    (folder / "tokenizer_config.json").unlink()
    whole["model"]["vocab"]["zebra"] = 399
    file.write_text(json.dumps(whole))
    digests.add(resolve(str(folder)).tokenizer_sha256)
    file.unlink()
    digests.add(resolve(str(folder)).tokenizer_sha256)
    (folder / "merges.txt").write_text((folder / "merges.txt").read_text().rpartition("\n")[0].rpartition("\n")[0])
    digests.add(resolve(str(folder)).tokenizer_sha256)
    assert len(digests) == 5
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        resolve(str(folder)).tokenizer_sha256  # noqa: B018


def test_a_tokenizer_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = resolve(str(folder)).tokenizer_sha256
    monkeypatch.setattr(checkpoint, "digest_of_tokenizer", None)
    assert resolve(str(folder)).tokenizer_sha256 == digest


def test_a_file_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = resolve(str(folder)).weights_sha256
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_digest_of_tensors", None)
        assert resolve(str(folder)).weights_sha256 == digest
    [note] = (Path(os.environ["XDG_CACHE_HOME"]) / "bridgetower" / "digests").iterdir()
    for damaged in ("{}", "[]", "", '{"files": null}'):
        note.write_text(damaged)
        assert resolve(str(folder)).weights_sha256 == digest


def test_a_cache_that_cannot_be_written_does_no_harm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "occupied").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "occupied"))
    assert len(resolve(str(folder)).weights_sha256) == 64
