"""Pickles are converted once, and no code in them is run."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bridgetower.checkpoints import pickles
from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from tests.tiny import ALL_HEADS, tiny_checkpoint, tiny_config
from tests.unit.checkpoints.conftest import (
    QUERY,
    WORDS,
    as_pickle,
    contents,
    refusal,
)


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


def test_what_killed_conversions_left_is_removed_with_the_next_one(folder: Path) -> None:
    converted = cache_folder() / "converted"
    names = (f"{'0' * 64}/.model.safetensors.0123abcd.partial", "mine/.model.safetensors.0123abcd.partial")
    old, other = (converted / name for name in names)
    for file in (old, other):
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1, 1))
    as_pickle(folder)
    resolve(str(folder))
    assert not old.exists() and other.exists()


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


# What it claims


@pytest.fixture
def nothing_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a copy of a tensor in memory, once there is a checkpoint."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("materialised")

    monkeypatch.setattr(pickles, "write_tensors", fail)
    monkeypatch.setattr(Tensor, "contiguous", fail)
    monkeypatch.setattr(Tensor, "clone", fail)


def change_pickle(folder: Path, change: Callable[[dict[str, Tensor]], object], *, zipped: bool = True) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return folder / "pytorch_model.bin"


EXPANDED = {
    "one number": torch.ones(1).expand(400, 64),
    "one row": torch.ones(64).expand(400, 64),
    "one column": torch.ones(400, 1).expand(400, 64),
    "overlapping rows": torch.arange(463.0).as_strided((400, 64), (1, 1)),
    "half overlapping": torch.arange(32 * 401.0).as_strided((400, 64), (32, 1)),
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("kind", EXPANDED)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_is_larger_than_its_bytes_is_not_written_out(folder: Path, kind: str, zipped: bool) -> None:
    file = change_pickle(folder, lambda tensors: tensors.update({WORDS: EXPANDED[kind]}), zipped=zipped)
    assert refusal(folder).startswith(f"{file}: {WORDS} is larger than the numbers that the file holds of it; get")
    assert not list((cache_folder() / "converted").rglob("*.safetensors"))


class Claim:
    """A tensor in a pickle with a shape for which its storage is too small."""

    def __init__(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        self.tensor, self.shape = tensor, shape

    def __reduce_ex__(self, protocol: Any) -> Any:
        rebuild, (storage, offset, _, _, *rest) = self.tensor.__reduce_ex__(protocol)
        return rebuild, (storage, offset, self.shape, (self.shape[1], 1), *rest)


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_shape_for_which_there_are_too_few_bytes(folder: Path, zipped: bool) -> None:
    claim: Any = Claim(torch.zeros(4, 64), (400, 64))
    file = change_pickle(folder, lambda tensors: tensors.update({WORDS: claim}), zipped=zipped)
    assert refusal(folder).startswith(f"{file}: not a complete PyTorch file")


@pytest.mark.usefixtures("nothing_written")
def test_many_tensors_that_are_one(folder: Path) -> None:
    """Each has bytes of its own, but all of them the same: ever more layers need no more file."""
    one = torch.randn(64 * 3 * 16 * 16)
    file = change_pickle(folder, lambda ts: ts.update({k: one[: t.numel()].view(t.shape) for k, t in ts.items()}))
    assert refusal(folder).startswith(f"{file}: its tensors claim ")


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({WORDS: torch.ones(1).expand(2**30, 2**20)}, f"{WORDS} has shape [1073741824, 1048576] in the weights but"),
        (
            {"vqa_head": torch.ones(1).expand(2**30, 2**20)},
            "the weights hold bridgetower.vqa_head, unknown to the network",
        ),
        ({WORDS: torch.zeros(400, 64, dtype=torch.int64)}, f"{WORDS} is of type torch.int64, none of F16"),
        ({WORDS: torch.zeros(400, 64, dtype=torch.complex64)}, f"{WORDS} is of type torch.complex64, none of F16"),
        ({WORDS.removeprefix("bridgetower."): torch.zeros(400, 64)}, f"holds {WORDS} a second time"),
        ({7: torch.zeros(1)}, "it holds no plain mapping of tensors"),
    ],
    ids=["shape", "key", "whole numbers", "complex", "both names", "number as a name"],
)
def test_what_does_not_fit_the_configuration_is_not_written_out(
    folder: Path, change: dict[str, Tensor], message: str
) -> None:
    change_pickle(folder, lambda tensors: tensors.update(change))
    assert message in refusal(folder)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(400, 64).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(400, 64), 0.1, 0, torch.qint8),
        lambda: torch.empty(400, 64, device="meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.ones(400, 64).to(torch.float8_e4m3fn),
        lambda: bytearray(8),
        lambda: {1, 2},
    ],
    ids=["sparse", "quantized", "meta", "nested", "float8", "bytearray", "set"],
)
@pytest.mark.filterwarnings("ignore")
def test_anything_but_plain_tensors_is_refused_before_it_is_made(
    folder: Path, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = change_pickle(folder, lambda tensors: tensors.update({WORDS: make()}))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("made"))
    assert refusal(folder).startswith(f"{file}: damaged, or it holds more than plain tensors: sparse or quantised ones")


def test_compressed_records_are_refused_before_they_are_unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = as_pickle(folder)
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    assert "not a complete PyTorch file (its records are compressed, which PyTorch never does)" in refusal(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_proper_that_is_too_long_is_not_read_on(
    folder: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "_MOST_BYTES", 1000)
    change_pickle(folder, lambda _: None, zipped=zipped)
    assert "not a complete PyTorch file" in refusal(folder)


# Tied tensors and views


def loads_as_before(folder: Path, change: Callable[[dict[str, Tensor]], object], *, zipped: bool = True) -> None:
    """The network out of a changed pickle is the one out of the same numbers, each tensor by itself."""
    apart = load_file(folder / "model.safetensors")
    change(apart)
    change_pickle(folder, change, zipped=zipped)
    stored = load_file(resolve(str(folder)).weights[0])
    assert all(torch.equal(stored[key], apart[key]) for key in stored)
    assert set(apart) - set(stored) == {key for key in apart if "text_model.pooler" in key or "position_ids" in key}
    assert load_model(resolve(str(folder))).heads == ALL_HEADS


def tie(tensors: dict[str, Tensor]) -> None:
    tensors["mlm_score.decoder.weight"] = tensors[WORDS]


def tie_in_part(tensors: dict[str, Tensor]) -> None:
    """The same memory, but not the same beginning."""
    longer = torch.cat([torch.zeros(1, 64), tensors[WORDS]])
    tensors[WORDS], tensors["mlm_score.decoder.weight"] = longer[1:], longer[:-1]


def transpose(tensors: dict[str, Tensor]) -> None:
    tensors[QUERY] = tensors[QUERY].T.contiguous().T
    tensors[QUERY.replace("query", "key")] = tensors[QUERY].T


def flatten(tensors: dict[str, Tensor]) -> None:
    """All of them pieces of one vector, as some trainers hold them."""
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    start = 0
    for key, tensor in tensors.items():
        tensors[key] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()


def as_parameters(tensors: dict[str, Tensor]) -> None:
    tensors |= {key: torch.nn.Parameter(tensor) for key, tensor in tensors.items()}


def negate(tensors: dict[str, Tensor]) -> None:
    """As PyTorch holds the imaginary part of what it conjugated: the sign is a note beside the numbers."""
    tensors[QUERY] = torch._neg_view(tensors[QUERY])


def expand_what_nothing_reads(tensors: dict[str, Tensor]) -> None:
    tensors["bridgetower.text_model.embeddings.position_ids"] = torch.arange(34).expand(5, 34)


@pytest.mark.parametrize(
    "change", [tie, tie_in_part, transpose, flatten, as_parameters, negate, expand_what_nothing_reads]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_views_load_as_the_numbers_that_they_show(
    folder: Path, change: Callable[[dict[str, Tensor]], object], zipped: bool
) -> None:
    loads_as_before(folder, change, zipped=zipped)


def test_words_that_the_configuration_ties_may_be_one_tensor_in_a_pickle(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, tiny_config(tie_word_embeddings=True))
    change_pickle(folder, tie)
    model = load_model(resolve(str(folder)))
    assert model.mlm_head is not None
    assert model.mlm_head.decoder.weight is model.text_tower.word.weight


def test_a_pickle_that_is_replaced_while_it_is_read_is_not_kept_as_the_one_from_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = as_pickle(folder)
    write = pickles.write

    def replaced(*arguments: Any) -> None:
        write(*arguments)
        torch.save({**torch.load(file), "logit_scale": torch.tensor(0.25)}, file)

    monkeypatch.setattr(pickles, "write", replaced)
    assert refusal(folder) == f"{folder}: the weights were replaced while they were read; run it again"
    assert not list((cache_folder() / "converted").rglob("*.safetensors"))
