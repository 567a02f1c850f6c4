"""The network as it runs: what is kept of it, and what it has to prove."""

import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

from bridgetower.checkpoints.cache import cache_folder
from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.save import save
from bridgetower.encoders import weight_cache
from bridgetower.encoders.runtime import Runtime, choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.errors import ModelError, UsageError
from bridgetower.network import int8
from bridgetower.network.layers import Linear
from bridgetower.records import Head
from tests.tiny import tiny_checkpoint, tiny_config

PRECISIONS = ("fp32", "bf16", *(["int8"] if int8.is_possible() else []))
needs_int8 = pytest.mark.skipif(not int8.is_possible(), reason="no int8 on this processor")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return resolve(str(tiny_checkpoint(tmp_path / "model")))


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def vectors(checkpoint: Checkpoint, precision: str) -> npt.NDArray[np.float32]:
    return TorchEncoder(checkpoint, Runtime("cpu", precision, "")).embed_images(pixels().numpy())


def kept() -> list[Path]:
    return sorted((cache_folder() / "prepared").glob("*"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_says_what_the_checkpoint_says_at_first_and_from_what_was_kept(
    checkpoint: Checkpoint, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        expected = load_model(checkpoint).embed_image(pixels()).numpy()
    first = vectors(checkpoint, precision)
    cosines = (first * expected).sum(axis=1)
    assert cosines.min() >= (1 - 1e-6 if precision == "fp32" else weight_cache.LEAST_COSINE[precision])
    monkeypatch.setattr(weight_cache, "load_model", lambda *_: pytest.fail("prepared again"))
    np.testing.assert_array_equal(vectors(checkpoint, precision), first)
    [file] = kept()
    assert precision in file.name


@needs_int8
def test_precisions_are_what_they_are_called(checkpoint: Checkpoint) -> None:
    for precision in PRECISIONS:
        weight_cache.load(checkpoint, precision)
    types = {next(p for p in PRECISIONS if f"-{p}-" in file.name): load_file(file) for file in kept()}
    name = "vision_tower.layers.0.mlp.up.weight"
    assert [types[precision][name].dtype for precision in PRECISIONS] == [torch.float32, torch.bfloat16, torch.int8]
    assert {tensor.dtype for tensor in types["bf16"].values()} == {torch.bfloat16}
    wide = {name for name, tensor in types["int8"].items() if tensor.dtype == torch.float32}
    assert {"itm_head.weight", "text_stream.0.norm_mlp.weight"} <= wide


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")
def test_what_is_kept_is_mapped_not_read(checkpoint: Checkpoint) -> None:
    weight_cache.load(checkpoint, "fp32")
    [file] = kept()
    network = weight_cache.load(checkpoint, "fp32").network
    mapped = [line.split() for line in Path("/proc/self/maps").read_text("utf-8").splitlines() if str(file) in line]
    ranges = [[int(end, 16) for end in fields[0].split("-")] for fields in mapped]
    for parameter in network.parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in ranges)


@pytest.mark.parametrize("harm", ["truncated", "emptied", "another type", "another shape", "a tensor less"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_damaged_is_made_again(checkpoint: Checkpoint, precision: str, harm: str) -> None:
    expected = vectors(checkpoint, precision)
    [file] = kept()
    tensors = load_file(file)
    name = "vision_tower.layers.0.mlp.up.weight"
    if harm == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif harm == "emptied":
        file.write_bytes(b"")
    else:
        if harm == "another type":
            tensors[name] = tensors[name].to(torch.float16)
        elif harm == "another shape":
            tensors[name] = tensors[name][1:].contiguous()
        else:
            del tensors[name]
        save_file(tensors, file)
    np.testing.assert_array_equal(vectors(checkpoint, precision), expected)
    assert load_file(file)[name].shape == (256, 64)  # and kept again


def test_a_disk_that_takes_nothing_costs_time_only(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_cache, "write_tensors", full)
    said: list[str] = []
    weight_cache.load(checkpoint, "fp32", say=said.append)
    assert said == []  # where it costs next to none, nobody needs to know
    monkeypatch.setattr(weight_cache, "_TAKES_SECONDS", 0)
    weight_cache.load(checkpoint, "fp32", say=said.append)
    assert len(said) == 2
    assert "No space left on device" in said[1] and str(cache_folder() / "prepared") in said[1]
    assert kept() == []


def test_other_weights_or_settings_are_kept_apart(checkpoint: Checkpoint, tmp_path: Path) -> None:
    other = resolve(str(tiny_checkpoint(tmp_path / "other", seed=1)))
    config = tiny_config(vision={"layer_norm_eps": 1e-2})
    elsewhere = resolve(str(tiny_checkpoint(tmp_path / "elsewhere", config)))
    assert not np.allclose(vectors(checkpoint, "fp32"), vectors(other, "fp32"), atol=1e-2)
    assert not np.allclose(vectors(checkpoint, "fp32"), vectors(elsewhere, "fp32"), atol=1e-5)
    assert len(kept()) == 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_preparing_leaves_the_checkpoint_as_it_is(checkpoint: Checkpoint, precision: str) -> None:
    before = [file.read_bytes() for file in checkpoint.weights]
    weight_cache.load(checkpoint, precision)
    assert [file.read_bytes() for file in checkpoint.weights] == before


def test_weights_that_are_replaced_meanwhile_are_not_kept_under_the_name_of_others(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    assert checkpoint.weights_sha256  # as the index asked for it
    tiny_checkpoint(checkpoint.folder, seed=1)
    with pytest.raises(ModelError, match="replaced while they were read; run it again"):
        weight_cache.load(checkpoint, "fp32")
    assert kept() == []


def test_what_makes_no_sense_is_prepared_again(checkpoint: Checkpoint) -> None:
    expected = vectors(checkpoint, "fp32")
    [file] = kept()
    tensors = load_file(file)
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}, file)
    with pytest.raises(ModelError, match="damaged weights"):
        vectors(checkpoint, "fp32")
    np.testing.assert_array_equal(vectors(checkpoint, "fp32"), expected)


def test_only_what_was_used_last_is_kept(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "_MOST_FILES", 2)
    for age, precision in ((3, "fp32"), (2, "bf16")):
        weight_cache.load(checkpoint, precision)
        [file] = [file for file in kept() if precision in file.name]
        os.utime(file, (time.time() - age,) * 2)
    weight_cache.load(checkpoint, "fp32")  # used again, so the other one is older now
    weight_cache.load(checkpoint, "int8")
    assert sorted("fp32" in file.name or "int8" in file.name for file in kept()) == [True, True]


def test_only_files_of_its_own_are_removed(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "_MOST_FILES", 1)
    weight_cache.load(checkpoint, "fp32")
    [file] = kept()
    names = ["my model.safetensors", f"x{file.name}", ".note.partial"]
    mine = [file.with_name(name) for name in names]
    for path in mine:
        path.touch()
        os.utime(path, (1, 1))
    link = file.with_name("0" * 16 + file.name[16:])
    link.symlink_to(mine[0])
    weight_cache.load(checkpoint, "bf16")
    assert all(path.exists() for path in (*mine, link)) and not file.exists()


def test_int8_operators_that_changed_are_named(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object) -> None:
        raise RuntimeError("expected at most 3 arguments")

    monkeypatch.setattr(int8.QuantizedLinear, "part", changed)
    with pytest.raises(ModelError, match=r"int8: this version of PyTorch refuses it .*--precision auto"):
        weight_cache.load(checkpoint, "int8")


def test_a_folded_network_is_no_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folded"):
        save(weight_cache.load(checkpoint, "fp32").network, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("heads", [frozenset(Head), frozenset({Head.ITM, Head.MLM})])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_that_says_something_else_is_refused(
    tmp_path: Path, heads: frozenset[Head], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = resolve(str(tiny_checkpoint(tmp_path / "model", heads=heads)))
    weight_cache.load(checkpoint, precision)  # this one passes
    [file] = kept()
    file.unlink()
    monkeypatch.setitem(weight_cache.LEAST_COSINE, precision, 1.0)
    with pytest.raises(ModelError, match=rf"in {precision} this model makes other vectors .*--precision fp32"):
        weight_cache.load(checkpoint, precision)
    assert kept() == []


def test_reading_ahead_asks_for_what_is_kept_and_needs_none(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *rest: asked.append(rest), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    weight_cache.read_ahead(checkpoint, "fp32")
    assert asked == []
    weight_cache.load(checkpoint, "fp32")
    encoder = TorchEncoder(checkpoint, Runtime("cpu", "fp32", ""))
    encoder.embed_texts(["a cat"])  # recall wants the text tower alone
    assert asked == []
    encoder.encode_texts(["a cat"])
    assert asked == [(0, 0, 3)]


@needs_int8
def test_tied_words_are_those_of_the_text_tower(tmp_path: Path) -> None:
    checkpoint = resolve(str(tiny_checkpoint(tmp_path / "model", tiny_config(tie_word_embeddings=True))))
    words = load_model(checkpoint).text_tower.word.weight
    for _ in range(2):
        network = weight_cache.load(checkpoint, "int8").network
        assert network.mlm_head is not None
        assert torch.equal(network.mlm_head.decoder.weight, words)


def test_what_takes_seconds_is_announced_once(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(weight_cache, "_TAKES_SECONDS", 0)
    for _ in range(2):
        weight_cache.load(checkpoint, "bf16", say=said.append)
    assert len(said) == 1
    assert checkpoint.name in said[0]


def test_what_a_killed_process_left_is_removed(checkpoint: Checkpoint) -> None:
    folder = cache_folder() / "prepared"
    folder.mkdir(parents=True)
    old, young = (folder / f".{'0' * 16}-{'1' * 16}-fp32-cpu-2-1.safetensors.{name * 8}.partial" for name in "ab")
    for file in (old, young):
        file.touch()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    weight_cache.load(checkpoint, "fp32")
    assert not old.exists()
    assert young.exists()


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_folder_that_is_a_link_is_not_used(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight_cache.load(checkpoint, "fp32")
    folder = cache_folder() / "prepared"
    folder.rename(tmp_path / "mine")
    folder.symlink_to(tmp_path / "mine")
    (file,) = kept()
    left = file.with_name(f".{file.name}.0000ffff.partial")
    left.touch()
    for path in (file, left):
        os.utime(path, (1, 1))
    monkeypatch.setattr(weight_cache, "_MOST_FILES", 0)
    monkeypatch.setattr(weight_cache, "_TAKES_SECONDS", 0)
    said: list[str] = []
    weight_cache.load(checkpoint, "fp32", say=said.append)
    weight_cache.load(checkpoint, "bf16")
    weight_cache.forget(checkpoint, "fp32", "cpu")
    assert kept() == [left, file] and file.stat().st_mtime == left.stat().st_mtime == 1
    assert len(said) == 2 and "cannot be kept (its folder is a link)" in said[1]


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_file_that_is_a_link_is_neither_read_nor_forgotten(checkpoint: Checkpoint, tmp_path: Path) -> None:
    expected = {
        name: tensor.clone() for name, tensor in weight_cache.load(checkpoint, "fp32").network.state_dict().items()
    }
    (file,) = kept()
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, tmp_path / "mine")
    file.unlink()
    file.symlink_to(tmp_path / "mine")
    weight_cache.forget(checkpoint, "fp32", "cpu")
    assert file.is_symlink()
    found = weight_cache.load(checkpoint, "fp32").network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def linear(inner: int, outer: int) -> Linear:
    """With weights, which depend on nothing."""
    layer, generator = Linear(inner, outer), torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
        layer.bias.normal_(generator=generator)
    return layer


@needs_int8
@pytest.mark.parametrize("narrow", [True, False])
def test_a_layer_in_int8_gives_nearly_the_same(narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if narrow:
        monkeypatch.setattr(int8, "processor_is_wide", lambda: False)
    layer, x = linear(96, 64), torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = layer(x)
        ours = int8.QuantizedLinear.of(layer)
        assert torch.nn.functional.cosine_similarity(ours(x), expected, dim=-1).min() > 0.999
        assert (ours(x) - expected).abs().max() > 0  # it is another computation
        torch.testing.assert_close(ours.part(x, 16, 48), ours(x)[..., 16:48], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            ours.part(x[:, :1], 0, 16), expected[:, :1, :16], atol=0.5, rtol=0
        )  # of outputs of about 10


def test_int8_is_refused_where_it_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(int8, "is_possible", lambda: True)
    assert choose_runtime("auto", "int8").device == "cpu"  # beside a GPU, too
    with pytest.raises(UsageError, match="not possible on cuda; use --device cpu"):
        choose_runtime("cuda", "int8")
    monkeypatch.setattr(int8, "is_possible", lambda: False)
    with pytest.raises(UsageError, match="not possible on this processor; use --precision auto"):
        choose_runtime("auto", "int8")


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 3.0], [-3.0, -1.0], [-1e-30, 1e-30], [-7.3, 2.9], [-1e30, 1e30]])
@pytest.mark.parametrize("wide", [True, False])
def test_inputs_are_rounded_to_the_nearest_step_and_never_wrap(
    values: list[float], wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "processor_is_wide", lambda: wide)
    x = torch.tensor(values)
    x = torch.cat([x, torch.linspace(values[0], values[1], 1001)])
    scale, zero_point, integers = int8._quantized(x, float(x.min()), float(x.max()))
    assert integers.max() <= (255 if wide else 127)
    torch.testing.assert_close((integers.double() - zero_point) * scale, x.double(), atol=0.51 * scale, rtol=0)


@needs_int8
def test_what_is_no_number_stays_none() -> None:
    layer = int8.QuantizedLinear.of(linear(8, 4))
    for value in (torch.nan, torch.inf, -torch.inf):
        x = torch.ones(2, 8)
        x[0, 0] = value
        assert not layer(x).isfinite().any()
