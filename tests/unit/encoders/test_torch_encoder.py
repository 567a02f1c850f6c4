import json
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import bridgetower.encoders.torch_network
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.safetensors_files import StoredTensor, open_tensors, write_tensors
from bridgetower.encoders import text_tower, weight_cache
from bridgetower.encoders.protocol import Pixels
from bridgetower.encoders.runtime import Runtime, choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder, fingerprint_of
from bridgetower.encoders.torch_network import TorchNetwork
from bridgetower.errors import ModelError, UsageError
from bridgetower.network import int8
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.features import Fused, ImageFeatures, TextFeatures
from bridgetower.network.towers import VisionTower
from bridgetower.records import TEXTS_AHEAD, Head
from tests.tiny import tiny_checkpoint

FP32 = Runtime("cpu", "fp32", "")
TEXTS = ["two cats on a couch", "a dog", "an image of a red ball under a tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def encoder(folder: Path) -> TorchEncoder:
    return TorchEncoder(resolve(str(folder)), FP32)


def pictures(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).standard_normal((count, 3, 96, 96)).astype(np.float32)


def test_vectors_are_unit_float32_and_do_not_depend_on_the_batch(encoder: TorchEncoder) -> None:
    pixels = pictures(5)
    for vectors, alone in (
        (encoder.embed_images(pixels), encoder.embed_images(pixels[3:4])[0]),
        (np.repeat(encoder.embed_texts(TEXTS), 2, axis=0), encoder.embed_texts([TEXTS[1]])[0]),
    ):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == encoder.fingerprint.dim == 32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert np.array_equal(vectors[3], alone)
    for encoded, alone in (
        (encoder.encode_images(pictures(4)).vectors, encoder.embed_images(pictures(4))),
        (encoder.encode_texts(TEXTS).vectors, encoder.embed_texts(TEXTS)),
    ):
        assert encoded is not None
        assert np.array_equal(encoded, alone)


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_vectors_without_a_direction_name_the_model(encoder: TorchEncoder, folder: Path, value: float) -> None:
    with torch.no_grad():
        for name, parameter in encoder.load()._model.named_parameters():
            if name.startswith("itc_head"):
                parameter.fill_(value)
    for name in ("weight", "bias"):
        encoder._text_tower._weight(f"itc_head.text.{name}")[...] = value  # a private copy of the page
    for embed in (lambda: encoder.embed_images(pictures(2)), lambda: encoder.embed_texts(TEXTS)):
        with pytest.raises(ModelError, match=re.escape(str(folder))):
            embed()


@pytest.mark.parametrize("value", [float("nan"), 3e38])
@pytest.mark.parametrize("head", ["itm_head", "mlm_head"])
def test_scores_that_order_nothing_name_the_model(encoder: TorchEncoder, folder: Path, head: str, value: float) -> None:
    with torch.no_grad():
        for name, parameter in encoder.load()._model.named_parameters():
            if name.startswith(head):
                parameter.fill_(value)
    text, images = encoder.encode_texts(["a <mask>"]), encoder.encode_images(pictures(1))
    with pytest.raises(ModelError, match=re.escape(str(folder)) + ": .* scores"):
        encoder.predict_masked(text, images)
    if head == "itm_head":
        with pytest.raises(ModelError, match=re.escape(str(folder)) + ": .* scores"):
            encoder.match(text, images, np.array([[0, 0]]))


def test_indexing_never_runs_the_cross_modal_encoder(encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BridgeTower, "fuse", lambda *_: pytest.fail("fused"))
    encoder.embed_images(pictures(2))
    encoder.embed_texts(TEXTS)


def test_match_gives_each_pair_what_it_gets_alone_across_chunks(
    encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pictures(5)
    pairs = np.array([[text, picture] for picture in range(len(pixels)) for text in (2, 0, 1)])
    a_pair = 37 * 96 * 4  # bytes of the widest tensor: tokens of a picture x the feed-forward of a cross-modal layer
    monkeypatch.setattr(bridgetower.encoders.torch_network, "_WIDEST_BYTES", 4 * a_pair)
    sizes, fuse = [], BridgeTower.fuse

    def counted(self: BridgeTower, text: TextFeatures, image: ImageFeatures, **keep: Any) -> Fused:
        sizes.append(len(text.mask))
        return fuse(self, text, image, **keep)

    monkeypatch.setattr(BridgeTower, "fuse", counted)
    texts, images = encoder.encode_texts(TEXTS), encoder.encode_images(pixels)
    logits = encoder.match(texts, images, pairs)
    assert logits.shape == (len(pairs), 2)
    assert logits.dtype == np.float32
    assert max(sizes) == 4 and sum(sizes) == len(pairs)  # texts of different lengths apart
    for row in (0, 1, 4, len(pairs) - 1):
        text, picture = pairs[row]
        one = encoder.encode_texts([TEXTS[text]]), encoder.encode_images(pixels[picture : picture + 1])
        alone = encoder.match(*one, np.array([[0, 0]]))
        assert np.array_equal(logits[row], alone[0])
    assert encoder.match(texts, images, np.zeros((0, 2), np.int64)).shape == (0, 2)


def test_pictures_are_the_same_however_many_run_at_once(encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, sizes, tower = pictures(5), [], VisionTower.forward
    vectors, together = encoder.embed_images(pixels), encoder.encode_images(pixels)

    def counted(self: VisionTower, pixels: torch.Tensor, depth: int, n_last: int) -> list[torch.Tensor]:
        sizes.append(len(pixels))
        return tower(self, pixels, depth, n_last)

    monkeypatch.setattr(VisionTower, "forward", counted)
    a_picture = 37 * 256 * 4  # bytes of the widest tensor: its tokens x the feed-forward of the vision tower
    monkeypatch.setattr(bridgetower.encoders.torch_network, "_WIDEST_BYTES", 2 * a_picture)
    assert np.array_equal(encoder.embed_images(pixels), vectors)
    apart = encoder.encode_images(pixels)
    assert sizes == [2, 2, 1] * 2
    assert apart.vectors is not None
    assert np.array_equal(apart.vectors, vectors)
    for one, other in zip(
        (apart.features.alone, *apart.features.layers),
        (together.features.alone, *together.features.layers),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_read_gives_log_probabilities_at_each_mask_and_the_match_of_the_masked_text(encoder: TorchEncoder) -> None:
    pixels = pictures(3)
    text = "a <mask> on a <mask>"
    one, images = encoder.encode_texts([text]), encoder.encode_images(pixels)
    reading = encoder.predict_masked(one, images)
    assert reading.log_probabilities.shape == (3, 2, 400)
    np.testing.assert_allclose(np.exp(reading.log_probabilities).sum(axis=-1), 1, atol=1e-4)
    assert not np.allclose(reading.log_probabilities[:, 0], reading.log_probabilities[:, 1])
    pairs = np.array([[0, row] for row in range(3)])
    assert reading.itm is not None
    np.testing.assert_allclose(reading.itm, encoder.match(one, images, pairs), atol=1e-4)


def test_texts_that_cannot_be_read_are_refused(encoder: TorchEncoder) -> None:
    images = encoder.encode_images(pictures(1))
    with pytest.raises(UsageError, match="no <mask>"):
        encoder.predict_masked(encoder.encode_texts(["a cat"]), images)
    with pytest.raises(UsageError, match="no <mask> in what the network reads"):
        encoder.predict_masked(encoder.encode_texts(["a cat " * 40 + "<mask>"]), images)
    with pytest.raises(UsageError, match="empty"):
        encoder.embed_texts([" "])
    assert encoder.truncates("a cat " * 40)
    assert not encoder.truncates("a cat")


def test_special_tokens_are_no_words(encoder: TorchEncoder) -> None:
    words = [encoder.word(token) for token in range(400)]
    assert words[:5] == [""] * 5
    assert {"cat", "couch"} <= set(words)


def test_masked_words_need_no_matching_head(tmp_path: Path) -> None:
    only = TorchEncoder(resolve(str(tiny_checkpoint(tmp_path, heads=frozenset({Head.MLM})))), FP32)
    reading = only.predict_masked(only.encode_texts(["a <mask>"]), only.encode_images(pictures(1)))
    assert reading.itm is None
    assert reading.log_probabilities.shape == (1, 1, 400)


def test_a_head_that_is_not_there_is_named_with_a_checkpoint_that_has_it(tmp_path: Path) -> None:
    checkpoint = resolve(str(tiny_checkpoint(tmp_path, heads=frozenset({Head.MLM}))))
    with pytest.raises(ModelError, match=r"no ITC head.*bridgetower-large-itm-mlm-itc"):
        fingerprint_of(checkpoint, "fp32")
    without = TorchEncoder(checkpoint, FP32)
    with pytest.raises(ModelError, match="no ITC head"):
        without.embed_images(pictures(1))
    with pytest.raises(ModelError, match="no ITM head"):
        without.match(without.encode_texts(["a"]), without.encode_images(pictures(1)), np.array([[0, 0]]))


def test_bf16_agrees_with_fp32(folder: Path, encoder: TorchEncoder) -> None:
    half = TorchEncoder(resolve(str(folder)), Runtime("cpu", "bf16", ""))
    pixels = pictures(8)
    for ours, reference in (
        (half.embed_images(pixels), encoder.embed_images(pixels)),
        (half.embed_texts(TEXTS), encoder.embed_texts(TEXTS)),
    ):
        assert (ours * reference).sum(axis=1).min() >= 0.999
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert half.fingerprint == encoder.fingerprint  # one index holds both


def test_the_fingerprint_says_what_made_the_vectors(folder: Path, tmp_path: Path) -> None:
    ours = fingerprint_of(resolve(str(folder)), "fp32")
    assert ours.model == str(folder)
    assert (ours.revision, ours.preprocessing, ours.precision_family, ours.dim) == ("local", "hf", "float", 32)
    assert len(ours.weights_sha256) == 64
    other = fingerprint_of(resolve(str(tiny_checkpoint(tmp_path, seed=1))), "fp32")
    assert other.weights_sha256 != ours.weights_sha256
    assert other.config_sha256 == ours.config_sha256


@pytest.mark.parametrize(
    ("file", "section", "change"),
    [
        ("preprocessor_config.json", None, {"image_mean": [0.5, 0.5, 0.5]}),
        ("preprocessor_config.json", None, {"image_std": [0.5, 0.5, 0.5]}),
        ("preprocessor_config.json", None, {"size": {"shortest_edge": 128}}),
        ("preprocessor_config.json", None, {"size_divisor": 16}),
        ("config.json", None, {"layer_norm_eps": 0.1}),
        ("config.json", "text_config", {"num_attention_heads": 8}),
        ("config.json", "text_config", {"layer_norm_eps": 0.1}),
        ("config.json", "vision_config", {"layer_norm_eps": 0.1}),
    ],
)
def test_the_fingerprint_covers_what_computes_beside_the_weights(
    folder: Path, encoder: TorchEncoder, tmp_path: Path, file: str, section: str | None, change: dict[str, object]
) -> None:
    copy = tiny_checkpoint(tmp_path)
    content = json.loads((copy / file).read_text())
    (content[section] if section else content).update(change)
    (copy / file).write_text(json.dumps(content))
    ours, theirs = fingerprint_of(resolve(str(folder)), "fp32"), fingerprint_of(resolve(str(copy)), "fp32")
    assert theirs.weights_sha256 == ours.weights_sha256
    assert len(theirs.config_sha256) == 64
    assert theirs.config_sha256 != ours.config_sha256
    assert TorchEncoder(resolve(str(copy)), FP32).features_id != encoder.features_id


def test_what_only_training_reads_is_not_in_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    copy = tiny_checkpoint(tmp_path)
    content = json.loads((copy / "config.json").read_text())
    content |= {"num_attention_heads": 2, "logit_scale_init_value": 1.0}
    content["text_config"] |= {"hidden_dropout_prob": 0.5, "bos_token_id": 7}
    del content["text_config"]["layer_norm_eps"]  # its default
    (copy / "config.json").write_text(json.dumps(content))
    ours, theirs = fingerprint_of(resolve(str(folder)), "fp32"), fingerprint_of(resolve(str(copy)), "fp32")
    assert theirs.config_sha256 == ours.config_sha256
    assert fingerprint_of(resolve(str(copy)).with_preprocessing("plain"), "fp32").config_sha256 == ours.config_sha256


def test_auto_takes_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": True})
    assert choose_runtime() == Runtime("cpu", "bf16", "bf16: the processor has avx512_bf16")
    assert choose_runtime(precision="fp32").precision == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    assert choose_runtime().precision == "fp32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_runtime().device, choose_runtime().precision) == ("cuda", "bf16")
    assert choose_runtime("cpu").device == "cpu"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="cuda"):
        choose_runtime("cuda")
    with pytest.raises(UsageError, match="auto, cpu, cuda, mps"):
        choose_runtime("tpu")
    with pytest.raises(UsageError, match="auto, fp32, bf16"):
        choose_runtime("cpu", "fp8")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_kept_features_match_as_fresh_ones_do(folder: Path, precision: str) -> None:
    if precision == "int8" and not int8.is_possible():
        pytest.skip("this processor has no int8")
    encoder = TorchEncoder(resolve(str(folder)), Runtime("cpu", precision, ""))
    text, images = encoder.encode_texts(TEXTS[:1]), encoder.encode_images(pictures(3))
    packed = encoder.pack(images)
    pairs = np.array([[0, 2], [0, 0], [0, 1]])
    fresh = encoder.match(text, images, pairs)
    again = encoder.match(text, encoder.join([encoder.unpack(one) for one in packed]), pairs)
    np.testing.assert_array_equal(again, fresh)
    mixed = [encoder.encode_images(pictures(3)[:1]), *(encoder.unpack(one) for one in packed[1:])]
    np.testing.assert_array_equal(encoder.match(text, encoder.join(mixed), pairs), fresh)
    assert np.abs(fresh - fresh.mean(axis=0)).max() > 0.02  # or anything would agree


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_vector_does_not_depend_on_whether_features_are_wanted(folder: Path, precision: str) -> None:
    if precision == "int8" and not int8.is_possible():
        pytest.skip("this processor has no int8")
    encoder = TorchEncoder(resolve(str(folder)), Runtime("cpu", precision, ""))
    np.testing.assert_array_equal(encoder.embed_images(pictures(5)), encoder.encode_images(pictures(5)).vectors)


def test_features_of_another_shape_are_refused(encoder: TorchEncoder) -> None:
    [packed] = encoder.pack(encoder.encode_images(pictures(1)))
    for wrong in (b"", packed[:10], packed[:-1], packed + b"x", b"x" + packed[1:], packed[:-9] + bytes(9)):
        with pytest.raises(ValueError, match="features"):
            encoder.unpack(wrong)
    half = TorchEncoder(encoder._checkpoint, Runtime("cpu", "bf16", ""))
    with pytest.raises(ValueError, match="features"):
        half.unpack(packed)


def test_what_changes_features_changes_their_name(encoder: TorchEncoder, folder: Path) -> None:
    checkpoint = resolve(str(folder))
    names = {
        encoder.features_id,
        TorchEncoder(checkpoint, Runtime("cpu", "bf16", "")).features_id,
        TorchEncoder(checkpoint.with_preprocessing("plain"), FP32).features_id,
    }
    assert len(names) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", name) for name in names)


def test_many_texts_are_embedded_part_by_part(encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number} cats" for number in range(5)]
    expected, hidden = encoder.embed_texts(texts), encoder._hidden
    held: list[int] = []

    def counted(some: Sequence[str]) -> list[list[np.ndarray]]:
        held.append(len(some))
        return hidden(some)

    monkeypatch.setattr("bridgetower.encoders.torch_encoder._TEXTS_AT_ONCE", 2)
    monkeypatch.setattr(encoder, "_hidden", counted)
    assert np.array_equal(encoder.embed_texts(texts), expected)
    assert held == [2, 2, 1]


def test_parts_of_the_weights_are_let_go_when_the_next_part_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_cache, "_TAKES_SECONDS", 0)
    monkeypatch.setattr(text_tower, "_LET_GO_BYTES", 0)
    weight_cache.load(resolve(str(folder)), "fp32")  # later starts map the file
    encoder = TorchEncoder(resolve(str(folder)), FP32)
    gone: list[str] = []

    def let_go(stored: StoredTensor) -> None:
        names = {name for name, one in encoder.load()._weights.stored.items() if one is stored}
        gone.append(next(iter(names), "text").partition(".")[0])

    monkeypatch.setattr(StoredTensor, "let_go", let_go)
    encoder.embed_texts(TEXTS)
    assert gone == []  # further texts may follow
    texts, images = encoder.encode_texts(TEXTS), encoder.encode_images(pictures(2))
    assert set(gone) == {"text"}
    encoder.encode_images(pictures(1))
    assert set(gone) == {"text"}
    first = encoder.match(texts, images, np.array([[0, 0]]))
    assert set(gone) == {"text", "vision_tower", "image_transforms"}
    gone.clear()
    encoder.encode_images(pictures(1))
    assert set(gone) == {"text_stream", "image_stream"}
    monkeypatch.undo()
    for stored in encoder.load()._weights.stored.values():
        stored.let_go()
    assert np.array_equal(encoder.match(texts, images, np.array([[0, 0]])), first)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what is resident")
def test_what_is_let_go_leaves_the_memory(tmp_path: Path) -> None:
    path, size = tmp_path / "tensors.safetensors", 64 * 1024**2
    write_tensors(path, {"much": torch.ones(size // 4)})
    [stored] = open_tensors([path]).values()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * mmap.PAGESIZE

    before = resident()
    array = stored.array()
    assert array.sum() == size // 4
    assert resident() - before > 0.9 * size
    stored.let_go()
    assert resident() - before < 0.1 * size
    assert array[:10].tolist() == [1.0] * 10


def test_texts_that_are_ahead_are_encoded_once_whatever_is_asked_beside_them(
    encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    rested: list[TorchNetwork] = []

    class Counting(text_tower.TextTower):
        def hidden(self, ids: npt.NDArray[np.int64]) -> list[text_tower.Array]:
            encoded.append(len(ids))
            return super().hidden(ids)

    monkeypatch.setattr(encoder, "_text_tower", Counting(encoder._checkpoint))
    monkeypatch.setattr(TorchNetwork, "rest", lambda network: rested.append(network))
    for block in range(2):
        texts = [f"{block} red balls and {number}" for number in range(TEXTS_AHEAD)]
        encoder.embed_texts(texts)
        for text in texts:
            encoder.encode_texts([text, "a tree"])
    assert len(encoded) == 2 * TEXTS_AHEAD + 1
    assert len(rested) == 1  # for the other text: the weights of pairs stay in memory from one query to the next
