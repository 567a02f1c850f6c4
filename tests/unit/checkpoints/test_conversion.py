"""Checkpoints are saved and converted whole, or not at all, and nothing is written where it is not ours."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bridgetower.checkpoints import save as save_module
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.save import convert, save
from bridgetower.errors import ModelError, UsageError
from bridgetower.records import Head
from tests.tiny import ALL_HEADS, tiny_model
from tests.unit.checkpoints.conftest import as_pickle, contents, refusal, run

FULL = """
import resource, sys
from pathlib import Path
from bridgetower.checkpoints.save import convert
from bridgetower.checkpoints.find import resolve
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # fails in the same calls as a full disk
try:
    convert(sys.argv[1], Path(sys.argv[2])) if len(sys.argv) > 2 else resolve(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit on Windows")
def test_a_full_disk_leaves_no_half_of_a_conversion(folder: Path, tmp_path: Path) -> None:
    message = run(FULL, folder, tmp_path / "converted")
    assert message.startswith(f"ModelError {tmp_path / 'converted'}: cannot be written: ") and "too large" in message
    assert not (tmp_path / "converted").exists()
    as_pickle(folder)
    message = run(FULL, folder)
    assert message.startswith("ModelError ") and "cannot keep a converted copy" in message and "too large" in message
    assert not [file for file in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.safetensors*") if file.is_file()]
    assert convert(str(folder), tmp_path / "converted").heads == ALL_HEADS


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

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
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
    with pytest.raises(UsageError, match="not empty"):
        convert(str(folder), checkpoint.folder)
    with pytest.raises(ModelError, match="cannot be written"):
        convert(str(folder), folder / "config.json" / "below")
    with pytest.raises(ModelError, match="cannot be written: Not a directory"):
        convert(str(folder), folder / "config.json")


def test_convert_into_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert convert(str(folder), tmp_path / "link").folder == tmp_path / "empty"
    assert not list(tmp_path.glob(".*"))
    assert os.name == "nt" or (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    assert convert(str(folder), tmp_path / "new").folder.stat().st_mode == folder.stat().st_mode  # as the umask has it


def test_a_failed_conversion_removes_nothing_but_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def interrupted(_model: Any, unfinished: Path, **_: Any) -> None:
        (unfinished / "model.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(save_module, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(str(folder), place)
    assert place.is_dir()

    def overtaken(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        (place / "theirs").touch()

    monkeypatch.setattr(save_module, "save", overtaken)
    with pytest.raises(ModelError, match="cannot be written: Directory not empty"):
        convert(str(folder), place)
    assert list(contents(place)) == ["theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "place"]


def test_places_that_the_file_system_refuses_are_told_in_one_plain_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="cannot be written: File name too long") as caught:
        convert(str(folder), folder.parent / ("x" * 300))
    assert "Errno" not in str(caught.value) and "\n" not in str(caught.value)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ModelError, match=r"new: cannot be written: Permission denied"):
        convert(str(folder), folder.parent / "locked" / "new")
    as_pickle(folder)
    assert "cannot keep a converted copy of the weights (Permission denied); make room" in refusal(folder)
