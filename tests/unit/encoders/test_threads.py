"""Narrow networks compute with one thread, wide ones with all; whoever uses PyTorch beside them notices nothing."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.checkpoints import SIZES
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.threads import compute_with_one, one_thread
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.library import Library, Model
from bridgetower.retrieval.matching import every_pair
from tests.tiny import tiny_checkpoint, tiny_config

FP32 = Runtime("cpu", "fp32", "")
TEXTS = ["a dog", "two cats on a couch", "an image of a red ball under a tree"]
GALLERY = Path(__file__).parents[3] / "examples" / "gallery"


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def narrow(folder: Path) -> TorchEncoder:
    return TorchEncoder(resolve(str(tiny_checkpoint(folder))), FP32)


def wide(folder: Path) -> TorchEncoder:
    config = tiny_config(hidden_size=256, text={"hidden_size": 256}, vision={"hidden_size": 256})
    return TorchEncoder(resolve(str(tiny_checkpoint(folder, config))), FP32)


def test_the_shape_decides() -> None:
    assert compute_with_one(resolve("demo").config) and compute_with_one(resolve("demo").config, pictures=7)
    assert not compute_with_one(resolve("demo").config, pictures=8)
    assert not compute_with_one(SIZES["base"]) and not compute_with_one(SIZES["large"])


@pytest.mark.parametrize(("made", "threads"), [(narrow, 1), (wide, 2)])
def test_a_network_computes_with_its_number_of_threads_and_leaves_that_of_others(
    made: Callable[[Path], TorchEncoder], threads: int, tmp_path: Path
) -> None:
    encoder = made(tmp_path)
    seen = []
    model = encoder.load()._model
    model.vision_tower.register_forward_pre_hook(lambda *given: seen.append(torch.get_num_threads()))
    model.text_norm.register_forward_pre_hook(lambda *given: seen.append(torch.get_num_threads()))
    encoder.encode_texts(TEXTS[:1])
    assert torch.get_num_threads() == 2
    encoder.embed_images(np.zeros((1, 3, 96, 96), np.float32))
    assert torch.get_num_threads() == 2
    assert seen == [threads, threads]
    encoder.embed_images(np.zeros((8, 3, 96, 96), np.float32))
    assert seen[2:] and set(seen[2:]) == {2}


def test_the_number_comes_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="size"):
        narrow(tmp_path).embed_images(np.zeros((1, 3, 32, 32), np.float32))
    assert torch.get_num_threads() == 2


def test_a_block_within_a_block_changes_nothing() -> None:
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_other_threads_of_python_keep_their_number() -> None:
    with ThreadPoolExecutor(1) as known, ThreadPoolExecutor(1) as new:
        assert known.submit(torch.get_num_threads).result() == 2

        def inside() -> int:
            with one_thread():
                return torch.get_num_threads()

        with one_thread():
            assert known.submit(torch.get_num_threads).result() == 2
            assert new.submit(inside).result() == 1  # it uses PyTorch for the first time
            assert torch.get_num_threads() == 1
        assert [pool.submit(torch.get_num_threads).result() for pool in (known, new)] == [2, 2]
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


def test_a_narrow_network_gives_the_same_bits_however_many_threads_there_are(tmp_path: Path) -> None:
    encoder = narrow(tmp_path)
    words = [" ".join(["cats"] * count) for count in range(1, 12)]  # so few rows that two threads sum in another order

    def computed() -> bytes:
        return b"".join(encoder.embed_texts([text]).tobytes() for text in words)

    with_two = computed()
    torch.set_num_threads(1)
    assert computed() == with_two


def test_one_thread_finds_what_all_find(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TorchEncoder(resolve("demo"), FP32)
    pixels = np.random.default_rng(0).standard_normal((3, 3, 96, 96)).astype(np.float32)

    def computed() -> list[np.ndarray]:
        texts, images = encoder.encode_texts(TEXTS), encoder.encode_images(pixels)
        assert texts.vectors is not None and images.vectors is not None
        return [texts.vectors, images.vectors, encoder.match(texts, images, every_pair(3, 3))]

    with_one = computed()
    monkeypatch.setattr(encoder.load(), "_thread_limit", nullcontext)
    for one, all in zip(with_one, computed(), strict=True):
        np.testing.assert_allclose(one, all, rtol=0, atol=1e-5)


def test_a_library_leaves_the_environment_and_the_threads_of_its_user(tmp_path: Path) -> None:
    environment = dict(os.environ)
    with Library(tmp_path / "index", Model("demo")) as library:
        library.index([GALLERY / "two-cats-on-a-couch-in-the-desert.jpg"])
        assert library.search("two cats").hits[0].verified
    assert dict(os.environ) == environment
    assert torch.get_num_threads() == 2
