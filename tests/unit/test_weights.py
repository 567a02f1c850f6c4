"""Checkpoints: found by name, read strictly, every damage named in one line, nothing written where it is not ours."""

import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bridgetower.hub
from bridgetower import tensors, weights
from bridgetower.errors import ModelError
from bridgetower.preprocess import Preprocessing
from bridgetower.records import Head
from bridgetower.weights import LocalModel, available, convert, load_model, pull, resolve, save
from tests.tiny import ALL_HEADS, tiny_checkpoint, tiny_config, tiny_model

WORDS = "bridgetower.text_model.embeddings.word_embeddings.weight"
QUERY = "bridgetower.text_model.encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def as_pickle(folder: Path) -> Path:
    """Replace the safetensors of a folder by the pickle that the public checkpoints have."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def refusal(name: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(str(name))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 4
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# Names


def test_a_folder_by_any_of_its_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    names = (str(folder), "checkpoint", "./checkpoint", f"../{folder.parent.name}/checkpoint")
    for checkpoint in map(resolve, names):
        assert checkpoint.name == str(folder)
        assert checkpoint.revision == "local"
        assert checkpoint.heads == ALL_HEADS
        assert checkpoint.config == tiny_config()
        assert checkpoint.preprocessing == Preprocessing(96, 96)
        assert checkpoint.tokenizer().encode("two cats").ids[0] == 0


@pytest.mark.usefixtures("cache")
def test_the_demo_model_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "DEMO_FOLDER", folder)
    checkpoint = resolve("demo")
    assert (checkpoint.name, checkpoint.folder, checkpoint.revision) == ("demo", folder, "bundled")
    assert [(model.name, model.heads) for model in available()] == [("demo", ALL_HEADS)]
    monkeypatch.setattr(weights, "DEMO_FOLDER", tmp_path / "gone")
    assert "install it anew" in refusal("demo")
    assert available() == []


def test_wrong_names(folder: Path, tmp_path: Path) -> None:
    assert "no such folder" in (message := refusal("no-such-thing")) and "demo" in message
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "this is a file" in refusal(folder / "config.json")
    assert "no such folder" in refusal("~nobody-of-that-name/model/x")
    assert "no such folder" in refusal("x" * 300)
    assert "no such folder" in refusal(f"owner/{'x' * 300}")


@pytest.mark.parametrize(
    "name", ["foo/bar--baz", "foo/bar.git", "foo/a..b", f"foo/{'x' * 97}", "-foo/bar", "foo/bar-", "foo/", "/", "a/b/c"]
)
def test_names_that_the_hub_does_not_allow(name: str) -> None:
    assert "no such folder, and no repository id either" in refusal(name) or name == "/"


FORBIDDEN = """
import os, sys
from bridgetower.weights import resolve
if os.geteuid() == 0:
    os.setuid(65534)  # root may read anything
for name in sys.argv[1:]:
    try:
        resolve(name)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_folder_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as place:  # those of pytest are closed to others
        os.chmod(place, 0o755)
        below = Path(place) / "closed" / "model"
        tiny_checkpoint(below)
        for closed in (below, below.parent):
            closed.chmod(0)
            try:
                [message] = run(FORBIDDEN, below).splitlines()
            finally:
                closed.chmod(0o755)
            assert message.startswith(f"ModelError {below}: cannot be read (Permission denied)")


# Folders


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: no config.json here")


def test_a_folder_of_another_kind_of_model(folder: Path) -> None:
    change_config(folder, model_type="clip")
    message = refusal(folder)
    assert str(folder / "config.json") in message and "'clip'" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_configuration_that_is_no_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    assert refusal(folder).startswith(str(folder / "config.json"))


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_a_truncated_file(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert refusal(folder).startswith(f"{file}: not a complete safetensors file")


def test_a_missing_key(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop(WORDS))
    assert f"the weights lack {WORDS};" in refusal(folder)
    change_weights(folder, lambda tensors: [tensors.pop(QUERY), tensors.pop(QUERY.replace("query", "key"))])
    assert f"the weights lack {WORDS} and 2 more keys;" in refusal(folder)


def test_half_of_a_head(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop("itc_image_head.fc.bias"))
    assert "itc_image_head.fc.bias" in refusal(folder)


def test_an_unknown_key(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update(vqa_head=torch.zeros(2)))
    assert "vqa_head, unknown to the network" in refusal(folder)


def test_more_layers_than_the_configuration_says(folder: Path) -> None:
    vision = tiny_config().to_json()["vision_config"]
    change_config(folder, text_config={**tiny_config().to_json()["text_config"], "num_hidden_layers": 2})
    assert "bridgetower.text_model.encoder.layer.2." in refusal(folder)
    change_config(folder, vision_config={**vision, "num_hidden_layers": 4})
    assert "bridgetower.vision_model.visual.transformer.resblocks.3." in refusal(folder)


@pytest.mark.parametrize("key", [WORDS, QUERY, "logit_scale"])
def test_a_wrong_shape(folder: Path, key: str) -> None:
    change_weights(folder, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))
    assert f"{key} has shape [3, 5] in the weights but " in refusal(folder)


def test_weights_that_are_no_floats(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({QUERY: torch.zeros(64, 64, dtype=torch.int8)}))
    assert f"{QUERY} is of type I8, none of F16, BF16, F32, F64" in refusal(folder)
    tiny = torch.zeros(64, 64).to(torch.float8_e4m3fn)
    change_weights(folder, lambda tensors: tensors.update({QUERY: tiny}))
    assert f"{QUERY} is of type F8_E4M3, none of F16, BF16, F32, F64" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key", [WORDS, QUERY, "logit_scale"])
def test_numbers_that_are_not_finite(folder: Path, key: str, dtype: torch.dtype, value: float) -> None:
    def damage(tensors: dict[str, Any]) -> None:
        tensors[key] = tensors[key].to(dtype).clone()
        tensors[key].view(-1)[-1:] = value

    change_weights(folder, damage)
    for wanted in (torch.float32, torch.bfloat16):
        with pytest.raises(ModelError, match=f"{re.escape(key)} holds numbers that are not finite"):
            load_model(resolve(str(folder)), wanted)


def test_keys_that_nothing_reads_are_passed_over(folder: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["bridgetower.text_model.pooler.dense.bias"]
        tensors["bridgetower.text_model.embeddings.position_ids"] = torch.arange(34)[None]
        tensors["bridgetower.text_model.embeddings.token_type_ids"] = torch.zeros(1, 34, dtype=torch.long)
        tensors["bridgetower.vision_model.visual.embeddings.position_ids"] = torch.arange(37)[None]
        tensors["bridgetower.vision_model.visual.ln_separate.0.weight"] = torch.ones(64)

    change_weights(folder, add)
    assert load_model(resolve(str(folder))).heads == ALL_HEADS


def test_tied_words_may_stand_twice_but_must_be_equal(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, tiny_config(tie_word_embeddings=True))
    change_weights(folder, lambda tensors: tensors.update({"mlm_score.decoder.weight": tensors[WORDS].clone()}))
    model = load_model(resolve(str(folder)))
    assert model.mlm_head is not None
    assert model.mlm_head.decoder.weight is model.text_tower.word.weight
    change_weights(folder, lambda tensors: tensors["mlm_score.decoder.weight"].add_(1))
    with pytest.raises(ModelError, match=r"mlm_score\.decoder\.weight differs from the word embeddings"):
        load_model(resolve(str(folder)))


def test_a_tokenizer_with_more_words_than_the_network(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, tiny_config(text={"vocab_size": 300}))
    with pytest.raises(ModelError, match="the network only 300"):
        resolve(str(folder)).tokenizer()


def test_a_tokenizer_with_few_words_of_which_one_is_beyond_the_network(folder: Path) -> None:
    assert resolve(str(folder)).tokenizer().highest_id == 349
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["zebra"] = 400  # the network has 0 to 399
    file.write_text(json.dumps(content))
    with pytest.raises(
        ModelError, match=f"{re.escape(str(folder))}: the tokenizer has ids up to 400, the network only 400"
    ):
        resolve(str(folder)).tokenizer()


def test_preprocessing_under_its_old_and_its_new_name(folder: Path) -> None:
    written = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    assert resolve(str(folder)).preprocessing == Preprocessing(96, 96)  # the defaults of the reference
    new = {"image_processor": {**written, "size": {"shortest_edge": 128}}, "processor_class": "BridgeTowerProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(new))
    assert resolve(str(folder)).preprocessing == Preprocessing(128, 96)
    (folder / "processor_config.json").write_text("{")
    assert "processor_config.json" in refusal(folder)


def test_another_preprocessing_for_the_same_weights(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    plain = checkpoint.with_preprocessing("plain")
    assert plain.preprocessing == Preprocessing(96, 96, name="plain")
    assert plain.weights_sha256 == checkpoint.weights_sha256
    assert plain.with_preprocessing("hf") == checkpoint
    with pytest.raises(ModelError, match='"square" is unknown'):
        checkpoint.with_preprocessing("square")


# Shards


def shard(folder: Path, count: int = 3) -> list[Path]:
    items = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for i, name in enumerate(names):
        save_file(dict(items[i::count]), folder / name)
    weight_map = {key: names[i % count] for i, (key, _) in enumerate(items)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return [folder / name for name in names]


def test_weights_in_several_files(folder: Path) -> None:
    before = load_model(resolve(str(folder))).state_dict()
    shards = shard(folder)
    checkpoint = resolve(str(folder))
    after = load_model(checkpoint).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.weights == tuple(shards)


def test_half_a_download(folder: Path) -> None:
    shards = shard(folder)
    shards[1].unlink()
    message = refusal(folder)
    assert shards[1].name in message and "1 of 3" in message and "incomplete" in message


def test_an_index_that_names_nothing(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert "model.safetensors.index.json: it names no weights" in refusal(folder)


# Pickles


class Payload:
    """What a hostile pickle holds: a call, made while it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def test_a_pickle_is_converted_once_and_kept_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_model(resolve(str(folder))).state_dict()
    pickled = as_pickle(folder)
    untouched = contents(folder)
    checkpoint = resolve(str(folder))
    digest = hashlib.sha256(pickled.read_bytes()).hexdigest()
    [converted] = checkpoint.weights
    assert converted.parts[-3:] == ("converted", digest, "model.safetensors")
    assert contents(folder) == untouched
    after = load_model(checkpoint).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("read a second time")

    monkeypatch.setattr(torch, "load", fail)
    assert load_model(resolve(str(folder))).heads == ALL_HEADS


def test_safetensors_go_before_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert resolve(str(folder)).weights == (folder / "model.safetensors",)


@pytest.mark.parametrize("write", [torch.save, lambda o, file: file.write_bytes(pickle.dumps(o))], ids=["zip", "raw"])
def test_a_pickle_with_code_is_not_run(folder: Path, write: Callable[[Any, Path], object], tmp_path: Path) -> None:
    file = as_pickle(folder)
    write({WORDS: Payload(tmp_path / "executed")}, file)
    message = refusal(folder)
    assert message.startswith(str(file)) and "perhaps Python code, which was not run" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_truncated_pickle(folder: Path, keep: int) -> None:
    file = as_pickle(folder)
    file.write_bytes(file.read_bytes()[:keep])
    assert refusal(folder).startswith(f"{file}: not a complete PyTorch file")


def test_a_pickle_of_something_else(folder: Path) -> None:
    file = as_pickle(folder)
    torch.save({"state_dict": {WORDS: torch.zeros(2)}, "epoch": 3}, file)
    assert refusal(folder).startswith(f"{file}: it holds no plain mapping of tensors")


FULL = """
import resource, sys
from pathlib import Path
from bridgetower.weights import convert, resolve
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # fails in the same calls as a full disk
try:
    convert(sys.argv[1], Path(sys.argv[2])) if len(sys.argv) > 2 else resolve(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


def run(program: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit on Windows")
def test_a_full_disk_leaves_no_half_of_a_conversion(folder: Path, tmp_path: Path) -> None:
    message = run(FULL, folder, tmp_path / "converted")
    assert message.startswith(f"ModelError {tmp_path / 'converted'}: cannot be written (") and "too large" in message
    assert not (tmp_path / "converted").exists()
    as_pickle(folder)
    message = run(FULL, folder)
    assert message.startswith("ModelError ") and "cannot keep a converted copy" in message and "too large" in message
    assert not [file for file in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.safetensors*") if file.is_file()]
    assert convert(str(folder), tmp_path / "converted").heads == ALL_HEADS


# Fingerprint


def test_the_digest_is_that_of_the_tensors_by_the_documented_rule(folder: Path) -> None:
    expected = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        if "text_model.pooler" not in name:  # on the list of what nothing reads
            expected.update(json.dumps([name, "F32", list(tensor.shape)]).encode() + b"\n" + tensor.numpy().tobytes())
    assert resolve(str(folder)).weights_sha256 == expected.hexdigest()


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


def test_a_pickle_changed_in_place_is_converted_anew(folder: Path) -> None:
    file = as_pickle(folder)
    before, digest = file.stat(), resolve(str(folder)).weights_sha256
    other = folder.parent / file.name  # the name stands in the bytes
    torch.save({**torch.load(file), "logit_scale": torch.tensor(0.25)}, other)
    changed = other.read_bytes()
    assert len(changed) == before.st_size
    file.write_bytes(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resolve(str(folder)).weights_sha256 != digest


def test_a_file_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = resolve(str(folder)).weights_sha256
    with monkeypatch.context() as patched:
        patched.setattr(weights, "_digest_of_tensors", None)
        assert resolve(str(folder)).weights_sha256 == digest
    [note] = (Path(os.environ["XDG_CACHE_HOME"]) / "bridgetower" / "digests").iterdir()
    for damaged in ("{}", "[]", "", '{"files": null}'):
        note.write_text(damaged)
        assert resolve(str(folder)).weights_sha256 == digest


def test_a_cache_that_cannot_be_written_does_no_harm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "occupied").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "occupied"))
    assert len(resolve(str(folder)).weights_sha256) == 64


# Loading and saving


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saved_in_a_type_and_loaded_in_another(dtype: torch.dtype, tmp_path: Path) -> None:
    save(tiny_model(), tmp_path, dtype=dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    as_stored = load_model(resolve(str(tmp_path)), dtype=None)
    assert {p.dtype for p in as_stored.parameters()} == {dtype}
    model = load_model(resolve(str(tmp_path)))
    assert not model.training
    for (name, ours), expected in zip(model.named_parameters(), tiny_model().parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected.to(dtype).float()), name


@pytest.mark.parametrize("heads", [frozenset(), {Head.ITC}, {Head.ITM, Head.MLM}, ALL_HEADS], ids=len)
def test_heads_are_known_by_their_keys(heads: frozenset[Head], tmp_path: Path) -> None:
    save(tiny_model(heads=frozenset(heads)), tmp_path)
    assert resolve(str(tmp_path)).heads == heads


def test_a_loaded_model_can_be_trained_and_saved_over_itself(folder: Path) -> None:
    model = load_model(resolve(str(folder)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(model, folder)  # while its tensors may still be mapped from the file that is replaced
    again = load_model(resolve(str(folder))).state_dict()
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert not [file for file in folder.iterdir() if "partial" in file.name]


def test_an_interrupted_save_leaves_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def interrupted(_tensors: Any, file: Path, **_: Any) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tensors, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tiny_model(seed=1), folder)
    assert contents(folder) == before


def test_convert_takes_everything_along(folder: Path, tmp_path: Path) -> None:
    as_pickle(folder)
    checkpoint = convert(str(folder), tmp_path / "new" / "place")
    assert checkpoint.folder == tmp_path / "new" / "place"
    assert {file.name for file in checkpoint.folder.iterdir()} == {
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "vocab.json",
    }
    assert checkpoint.preprocessing == resolve(str(folder)).preprocessing
    assert checkpoint.tokenizer().encode("a dog").ids == resolve(str(folder)).tokenizer().encode("a dog").ids
    with pytest.raises(ModelError, match="not empty"):
        convert(str(folder), checkpoint.folder)
    with pytest.raises(ModelError, match="cannot be written"):
        convert(str(folder), folder / "config.json" / "below")
    with pytest.raises(ModelError, match=r"cannot be written \(Not a directory\)"):
        convert(str(folder), folder / "config.json")


def test_convert_into_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert convert(str(folder), tmp_path / "link").folder == tmp_path / "empty"
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "empty").stat().st_mode == folder.stat().st_mode  # as the umask has it


def test_a_failed_conversion_removes_nothing_but_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def interrupted(_model: Any, unfinished: Path, **_: Any) -> None:
        unfinished.mkdir()
        (unfinished / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(str(folder), place)
    assert place.is_dir()

    def overtaken(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        (place / "theirs").touch()

    monkeypatch.setattr(weights, "save", overtaken)
    with pytest.raises(ModelError, match=r"cannot be written \(Directory not empty\)"):
        convert(str(folder), place)
    assert list(contents(place)) == ["theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "place"]


def test_places_that_the_file_system_refuses_are_told_in_one_plain_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"cannot be written \(File name too long\)") as caught:
        convert(str(folder), folder.parent / ("x" * 300))
    assert "Errno" not in str(caught.value) and "\n" not in str(caught.value)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ModelError, match=r"new: cannot be written \(Permission denied\)"):
        convert(str(folder), folder.parent / "locked" / "new")
    as_pickle(folder)
    assert "cannot keep a converted copy of the weights (Permission denied); make room" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_no_utf8(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b'{"a": "\xe9"}')
    assert refusal(folder) == f"{folder / name}: not UTF-8 text; fetch it again"


def test_a_configuration_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    assert refusal(folder) == f"{folder / 'config.json'}: cannot be read (Permission denied); check its permissions"


# The Hub


class Hub:
    """A Hub of one repository, as `huggingface_hub` sees it over HTTP; counts what is asked of it."""

    repository = "someone/bridgetower-tiny"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = "1" * 40
        self.requests: list[str] = []
        self.cut: str | None = None  # a file of which only half is sent
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        files = {file.name: file for file in self.folder.iterdir()}
        api = f"/api/models/{self.repository}"
        path = path.replace(f"/{self.repository}/resolve/main/", f"/{self.repository}/resolve/{self.commit}/")
        resolve_prefix = f"/{self.repository}/resolve/{self.commit}/"
        if path in (f"{api}/revision/main", api):
            siblings = [{"rfilename": name} for name in files]
            self.send_json(request, {"id": self.repository, "sha": self.commit, "siblings": siblings, "tags": []})
        elif path.startswith(f"{api}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": self.tag(file)}
                for name, file in files.items()
            ]
            self.send_json(request, tree)
        elif path.startswith(resolve_prefix) and (name := path.removeprefix(resolve_prefix)) in files:
            self.send_file(request, files[name])
        else:
            request.send_response(404 if self.repository in path else 401)
            request.send_header("X-Error-Code", "EntryNotFound" if self.repository in path else "RepoNotFound")
            request.send_header("Content-Length", "0")
            request.end_headers()

    def tag(self, file: Path) -> str:
        return hashlib.sha1(file.read_bytes()).hexdigest()

    def send_json(self, request: BaseHTTPRequestHandler, content: Any) -> None:
        body = json.dumps(content).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def send_file(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        body = file.read_bytes()
        request.send_response(200)
        request.send_header("X-Repo-Commit", self.commit)
        request.send_header("ETag", f'"{self.tag(file)}"')
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: len(body) // 2] if file.name == self.cut else body)
            request.close_connection = True


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache in a folder of this test, and no demo model beside it in the list."""
    from huggingface_hub import constants

    monkeypatch.setattr(weights, "DEMO_FOLDER", tmp_path / "no demo")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def hub(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    hub = Hub(folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    yield hub
    hub.close()


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


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


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


def test_the_hub_is_announced_before_it_is_asked(hub: Hub) -> None:
    said: list[str] = []
    resolve(hub.repository, progress=False, say=said.append)
    assert said == [f"asking the Hub for {hub.repository} ..."]
    resolve(hub.repository, say=said.append)
    assert len(said) == 1  # it is in the cache


def test_pull_without_a_network_says_that_nothing_was_updated(hub: Hub, offline: Callable[[], None]) -> None:
    first = resolve(hub.repository, progress=False)
    offline()
    said: list[str] = []
    assert pull(hub.repository, say=said.append).folder == first.folder
    assert "cannot be reached" in said[1] and f"revision {hub.commit}, is not updated" in said[1]


@pytest.mark.usefixtures("cache")
def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(bridgetower.hub, "_PATIENCE_S", 0.3)
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
    assert "--model at a folder" in message
    assert "--model demo" in message
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
