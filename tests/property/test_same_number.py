"""A number depends on the text and the picture alone: not on the batch, the order, the position or the threads."""

from collections.abc import Iterator
from functools import cache
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.protocol import Pictures, Pixels, Texts
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.network import int8
from tests.tiny import tiny_checkpoint, tiny_config

PRECISIONS = ["fp32", "bf16", pytest.param("int8", marks=pytest.mark.skipif(not int8.is_possible(), reason="no int8"))]
PICTURES = 12
# Of 3 tokens and more: the kernels for products of few rows are those that differ.
TEXTS = [
    "cat",
    "a cat",
    "two cats on a couch",
    "a <mask> looking out",
    "one red ball left of a dog in a car",
    "cat " * 30,
]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["demo", "wide"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model, and a shallow network as wide as `base`, as kernels differ by the width."""
    if request.param == "demo":
        return "demo"
    wide = {"hidden_size": 768, "num_attention_heads": 12}
    config = tiny_config(
        **wide, text={**wide, "num_hidden_layers": 2, "intermediate_size": 3072}, vision={"hidden_size": 768}
    )
    return str(tiny_checkpoint(tmp_path_factory.mktemp("wide"), config))


@cache
def loaded(model: str, precision: str) -> TorchEncoder:
    return TorchEncoder(resolve(model), Runtime("cpu", precision, "a test"))


@cache
def pixels(model: str) -> Pixels:
    side = resolve(model).config.vision.image_size
    return np.random.default_rng(0).standard_normal((PICTURES, 3, side, side)).astype(np.float32)


@cache
def picture_alone(model: str, precision: str, picture: int) -> Pictures:
    torch.set_num_threads(2)
    return loaded(model, precision).encode_images(pixels(model)[picture : picture + 1])


@cache
def text_alone(model: str, precision: str, text: int) -> Texts:
    torch.set_num_threads(2)
    return loaded(model, precision).encode_texts([TEXTS[text]])


@cache
def alone(model: str, precision: str, picture: int, text: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logits [2] of a pair, and the vectors of its picture and its text, each computed alone on two threads."""
    images, texts = picture_alone(model, precision, picture), text_alone(model, precision, text)
    assert images.vectors is not None and texts.vectors is not None
    torch.set_num_threads(2)
    return loaded(model, precision).match(texts, images, np.array([[0, 0]]))[0], images.vectors[0], texts.vectors[0]


numbers = st.integers(0, PICTURES - 1), st.integers(0, len(TEXTS) - 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chosen=st.lists(numbers[0], min_size=1, max_size=PICTURES),
    asked=st.lists(numbers[1], min_size=1, max_size=len(TEXTS), unique=True),
    order=st.randoms(use_true_random=False),
    thread_count=st.sampled_from([1, 2, 3, 5]),
)
def test_a_number_depends_on_its_text_and_its_picture_alone(
    model: str, precision: str, chosen: list[int], asked: list[int], order: Random, thread_count: int
) -> None:
    encoder = loaded(model, precision)
    pairs = np.array([(text, picture) for text in range(len(asked)) for picture in range(len(chosen))], np.int64)
    pairs = pairs[order.sample(range(len(pairs)), len(pairs))]
    expected = [alone(model, precision, chosen[picture], asked[text]) for text, picture in pairs]

    torch.set_num_threads(thread_count)
    batch = pixels(model)[chosen]
    images, texts = encoder.encode_images(batch), encoder.encode_texts([TEXTS[text] for text in asked])
    logits = encoder.match(texts, images, pairs)
    assert images.vectors is not None and texts.vectors is not None
    assert np.array_equal(logits, np.stack([pair for pair, _, _ in expected]))
    kept = [encoder.unpack(packed) for packed in encoder.pack(images)]
    if len(kept) > 1:  # kept ones beside one that is read
        kept[0] = encoder.encode_images(batch[:1])
    assert np.array_equal(encoder.match(texts, encoder.join(kept), pairs), logits)
    assert np.array_equal(images.vectors[pairs[:, 1]], np.stack([image for _, image, _ in expected]))
    assert np.array_equal(texts.vectors[pairs[:, 0]], np.stack([text for _, _, text in expected]))
    assert np.array_equal(encoder.embed_images(batch), images.vectors)
    assert np.array_equal(encoder.embed_texts([TEXTS[text] for text in asked]), texts.vectors)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_words_depend_on_their_picture_alone(model: str, precision: str) -> None:
    encoder = loaded(model, precision)
    text, masked = encoder.encode_texts(["a <mask> on a <mask>"]), encoder.encode_images(pixels(model))
    together = encoder.predict_masked(text, masked)
    for picture in (0, 5, PICTURES - 1):
        images = encoder.encode_images(pixels(model)[picture : picture + 1])
        by_itself = encoder.predict_masked(text, images)
        assert together.itm is not None and by_itself.itm is not None
        assert np.array_equal(together.log_probabilities[picture], by_itself.log_probabilities[0])
        assert np.array_equal(together.itm[picture], by_itself.itm[0])


def test_passes_of_a_fixed_size_give_the_same_rows(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other devices fill up every pass; here the same code runs on the CPU."""
    encoder = TorchEncoder(resolve(model), Runtime("cpu", "fp32", "a test"))
    network = encoder.load()
    monkeypatch.setattr(network, "_fixed_passes", True)
    images, texts = encoder.encode_images(pixels(model)[:3]), encoder.encode_texts(TEXTS[:2])
    logits = encoder.match(texts, images, np.array([(1, 0), (0, 2), (1, 2)]))
    kept = encoder.join([encoder.unpack(packed) for packed in encoder.pack(images)])
    assert np.array_equal(encoder.match(texts, kept, np.array([(1, 0), (0, 2), (1, 2)])), logits)
    assert images.vectors is not None and images.vectors.shape[0] == 3
    expected = [alone(model, "fp32", *pair)[0] for pair in ((0, 1), (2, 0), (2, 1))]
    assert np.array_equal(logits, np.stack(expected))
