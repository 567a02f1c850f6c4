"""Checkpoints are read strictly, and every damage is named in one line."""

import errno
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from bridgetower.checkpoints import checkpoint as checkpoint_module
from bridgetower.checkpoints import documents, load, safetensors_files, save
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.encoders import weight_cache
from bridgetower.errors import ModelError, ResourceError
from bridgetower.pictures.preprocess import Preprocessing
from tests.tiny import ALL_HEADS, tiny_checkpoint, tiny_config
from tests.unit.checkpoints.conftest import QUERY, WORDS, as_pickle, change_config, change_weights, refusal, shard

# Folders


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: no config.json here")


def test_a_folder_whose_run_has_kept_no_model_yet_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    assert "the run of `bt train` in it has kept no model yet" in refusal(tmp_path)


def test_a_folder_of_another_kind_of_model(folder: Path) -> None:
    change_config(folder, model_type="clip")
    message = refusal(folder)
    assert str(folder / "config.json") in message and "'clip'" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_configuration_that_is_no_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    assert refusal(folder).startswith(str(folder / "config.json"))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_no_utf8(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b'{"a": "\xe9"}')
    assert refusal(folder) == f"{folder / name}: not UTF-8 text; fetch it again"


def test_a_configuration_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(documents, "open_regular", refused)
    assert refusal(folder) == f"{folder / 'config.json'}: cannot be read: Permission denied; check its permissions"


@pytest.fixture
def soon() -> Iterator[None]:
    """Fail where a test waits, as for a pipe into which nobody writes."""

    def waited(*_: Any) -> None:
        raise AssertionError("it waits")

    signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with names in folders")


@needs_pipes
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json here"),
        ("preprocessor_config.json", "not a file but"),
        ("model.safetensors", "neither model.safetensors nor pytorch_model.bin here"),
    ],
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_opened(name: str, message: str, make: Any, folder: Path) -> None:
    (folder / name).unlink()
    make(folder / name)
    assert message in refusal(folder)


@needs_pipes
@pytest.mark.usefixtures("soon")
def test_neither_pickles_nor_shards_nor_their_index_are_opened_where_they_are_no_files(folder: Path) -> None:
    as_pickle(folder).unlink()
    os.mkfifo(folder / "pytorch_model.bin")
    assert "neither model.safetensors nor pytorch_model.bin here" in refusal(folder)
    os.mkfifo(folder / "model.safetensors.index.json")
    assert "neither model.safetensors nor pytorch_model.bin here" in refusal(folder)
    os.mkfifo(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert "model-1.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_small_file_that_is_large_is_not_read(folder: Path, name: str) -> None:
    os.truncate(folder / name, 10_000_001)
    assert refusal(folder) == f"{folder / name}: larger than 10 MB, which no such file is; fetch it again"


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_a_truncated_file(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert refusal(folder).startswith(f"{file}: not a complete safetensors file")


def with_header(file: Path, header: dict[str, Any], size: int = 64) -> None:
    """Write a safetensors file that says this of itself."""
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]},  # beyond the file
        {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 64]},  # more numbers than bytes
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]},
        {"dtype": "F9", "shape": [16], "data_offsets": [0, 64]},
    ],
    ids=["beyond", "larger", "overflow", "backwards", "type"],
)
def test_a_header_that_claims_what_is_not_there(folder: Path, tensor: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    with_header(file, {WORDS: tensor})
    assert refusal(folder).startswith(f"{file}: not a complete safetensors file (")


def test_more_tensors_than_any_network_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_files, "_MOST_TENSORS", 1000)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    with_header(folder / "model.safetensors", {f"x{i}": empty for i in range(1001)}, size=0)
    assert "model.safetensors: holds more tensors than any network has" in refusal(folder)


def test_a_tensor_under_both_of_its_names(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({WORDS.removeprefix("bridgetower."): torch.zeros(400, 64)}))
    assert f"model.safetensors: holds {WORDS} a second time" in refusal(folder)


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


# Memory and file handles

ENDS = {
    "memory": (MemoryError(), "not enough memory: close other programs, or raise the limit (`ulimit -v`)"),
    "allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory: close"),
    "map": (
        RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"),
        "not enough memory: close",
    ),
    "system": (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory: close"),
    "handles": (OSError(errno.EMFILE, "Too many open files"), "too many open files: close"),
    "map handles": (RuntimeError("unable to open file <x>: Too many open files (24)"), "too many open files: close"),
}
PLACES = {
    "open": (safetensors_files, "safe_open"),
    "read a file": (documents, "open_regular"),
    "digest": (checkpoint_module, "_digest_of_tensors"),
    "fuse": (load, "from_hf"),
    "quantise or fold": (weight_cache, "_probe_vectors"),
    "tokenizer": (checkpoint_module, "Tokenizer"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", PLACES)
def test_want_of_memory_and_of_handles_is_told_as_that(
    place: str, end: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, message = ENDS[end]

    class Wanting:
        def __getattr__(self, name: str) -> Any:  # of a class
            raise error

        def __call__(self, *_: Any, **__: Any) -> Any:
            raise error

    def load() -> None:
        checkpoint = resolve(str(folder))
        checkpoint.tokenizer()
        weight_cache.load(checkpoint, "fp32")

    monkeypatch.setattr(*PLACES[place], Wanting())
    with pytest.raises(ResourceError) as caught:
        load()
    assert str(caught.value).startswith(f"{folder}: {message}")


@pytest.mark.parametrize("end", ENDS)
def test_and_so_it_is_while_pickles_are_read_and_converted(
    end: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, message = ENDS[end]

    def wanting(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(save, "save", wanting)
        with pytest.raises(ResourceError, match=re.escape(message)):
            save.convert(str(folder), tmp_path / "converted")
    as_pickle(folder)
    for place in ((torch, "load"), (safetensors.torch, "save_file")):
        with monkeypatch.context() as patched:
            patched.setattr(*place, wanting)
            with pytest.raises(ResourceError, match=re.escape(message)):
                load_model(resolve(str(folder)))


# Shards


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


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "a\\b.safetensors", "C:x.safetensors", "..",
     "", "model.bin", "model.safetensors.txt", ".safetensors", "a\nb/.safetensors", "model.safetensors\n"],
)  # fmt: skip
def test_a_shard_is_a_file_beside_its_index(folder: Path, name: str) -> None:
    shards = shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {WORDS: shards[0].name, QUERY: name}}))
    message = refusal(folder)
    assert message == f"{index}: {name!r} is no name of a .safetensors file beside it; fetch it again"


def test_a_shard_of_pickles_is_no_safetensors_file(folder: Path) -> None:
    as_pickle(folder)
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-1.bin")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "x.safetensors"}}')
    assert refusal(folder) == f"{index}: 'x.safetensors' is no name of a .bin file beside it; fetch it again"
    index.write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    assert resolve(str(folder)).heads == ALL_HEADS


def test_a_tensor_that_stands_in_two_shards(folder: Path) -> None:
    first, second, _ = shard(folder)
    tensors = load_file(second)
    save_file({**tensors, WORDS: torch.zeros(400, 64)}, second)
    save_file({**load_file(first), WORDS: torch.zeros(400, 64)}, first)
    assert f"{second}: holds {WORDS} a second time; fetch the whole checkpoint again" in refusal(folder)


def test_weights_that_were_replaced_after_they_were_found(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    change_weights(folder, lambda tensors: tensors.pop(WORDS))
    for use in (load_model, lambda checkpoint: checkpoint.weights_sha256):
        with pytest.raises(ModelError, match=f"the weights lack {re.escape(WORDS)}"):
            use(checkpoint)
    (folder / "model.safetensors").unlink()
    for use in (load_model, lambda checkpoint: checkpoint.weights_sha256):
        with pytest.raises(ModelError, match="No such file or directory"):
            use(checkpoint)


@pytest.mark.parametrize(
    ("file", "changes", "way_out"),
    [
        ("config.json", {"hidden_size": 5}, "choose another checkpoint, or fetch this one again"),
        ("config.json", {"unheard_of": 5}, "choose another checkpoint, or fetch this one again"),
        ("config.json", {"text_config": 5}, "fetch the file again"),
        ("preprocessor_config.json", {"rescale_factor": 0.5}, "use the file that belongs to this checkpoint"),
        ("preprocessor_config.json", {"size": "large"}, "use the file that belongs to this checkpoint"),
        ("preprocessor_config.json", {"image_mean": [1]}, "use the file that belongs to this checkpoint"),
    ],
    ids=str,
)
def test_wrong_settings_are_told_with_a_way_out(
    file: str, changes: dict[str, object], way_out: str, folder: Path
) -> None:
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))
    message = refusal(folder)
    assert message.startswith(f"{folder / file}: ") and message.endswith(f"; {way_out}")
