"""Pickles are converted once, and no code in them is run."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bridgetower.weights import load_model, resolve
from tests.tiny import ALL_HEADS
from tests.unit.weights.conftest import (
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
