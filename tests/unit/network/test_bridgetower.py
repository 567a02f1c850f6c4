"""The network by its own properties; that it computes what the reference computes is shown in tests/parity."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bridgetower.errors import ModelError
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.config import ModelConfig, TextConfig, VisionConfig
from bridgetower.network.features import Fused
from bridgetower.records import Head, require_heads
from bridgetower.training.losses import itc_loss, itm_loss, mlm_loss
from tests.tiny import ALL_HEADS, tiny_config, tiny_model

SHORT = [0, 7, 8, 2]
LONG = [0, 9, 10, 11, 12, 13, 14, 2]


def pad(*texts: list[int]) -> tuple[Tensor, Tensor]:
    width = max(map(len, texts))
    ids = torch.tensor([text + [1] * (width - len(text)) for text in texts])
    return ids, ids != 1


def pictures(count: int, size: int = 96) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def fuse(model: BridgeTower, ids: Tensor, mask: Tensor, pixels: Tensor, **keep: Any) -> Fused:
    return model.fuse(model.encode_text(ids, mask), model.encode_image(pixels), **keep)


@pytest.fixture(scope="module")
def model() -> BridgeTower:
    return tiny_model().requires_grad_(False)


def test_padding_changes_nothing(model: BridgeTower) -> None:
    pixels = pictures(2)
    alone = pad(SHORT)
    padded = pad(SHORT, LONG)
    assert not padded[1].all()
    text_alone, text_padded = model.encode_text(*alone), model.encode_text(*padded)
    assert text_alone.itc is not None and text_padded.itc is not None
    torch.testing.assert_close(text_padded.itc[:1], text_alone.itc)
    one, two = fuse(model, *alone, pixels[:1]), fuse(model, *padded, pixels)
    torch.testing.assert_close(model.itm(two)[:1], model.itm(one), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.mlm(two)[:1, : len(SHORT)], model.mlm(one), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(model.itc_cross(two)[:1], model.itc_cross(one))


def test_a_mask_hides_tokens_also_where_they_are_no_padding(model: BridgeTower) -> None:
    ids, _ = pad(LONG)
    mask = torch.arange(len(LONG))[None] < 5
    other = ids.clone()
    other[0, 6] = 99
    itc, changed = model.embed_text(ids, mask), model.embed_text(other, mask)
    torch.testing.assert_close(itc, changed)
    assert not torch.allclose(itc, model.embed_text(other, torch.ones_like(mask)), atol=1e-3)


def test_order_of_words_and_place_of_patches_matter(model: BridgeTower) -> None:
    ids, mask = pad(LONG)
    swapped = ids[:, [0, 2, 1, *range(3, len(LONG))]]
    assert not torch.allclose(model.embed_text(ids, mask), model.embed_text(swapped, mask), atol=1e-3)
    pixels = pictures(1)
    assert not torch.allclose(model.embed_image(pixels), model.embed_image(pixels.flip(3)), atol=1e-3)


def test_vectors_are_unit_length_and_the_same_with_and_without_features(model: BridgeTower) -> None:
    ids, mask = pad(SHORT, LONG)
    pixels = pictures(2)
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    assert text.itc is not None and image.itc is not None
    cross = model.itc_cross(model.fuse(text, image))
    for vectors in (text.itc, image.itc, cross):
        assert vectors.shape == (2, 32)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(model.embed_text(ids, mask), text.itc)
    torch.testing.assert_close(model.embed_image(pixels), image.itc)


def test_selected_rows_pair_any_text_with_any_picture(model: BridgeTower) -> None:
    ids, mask = pad(SHORT, LONG)
    pixels = pictures(3)
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    rows, columns = torch.tensor([1, 0, 1, 1]), torch.tensor([2, 0, 0, 2])
    logits = model.itm(model.fuse(text.select(rows), image.select(columns)))
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        expected = model.itm(fuse(model, ids[row, None], mask[row, None], pixels[column, None]))
        torch.testing.assert_close(logits[i : i + 1], expected, rtol=1e-5, atol=1e-5)
    selected = text.select(rows)
    assert selected.itc is not None and text.itc is not None
    assert torch.equal(selected.itc, text.itc[rows])
    assert torch.equal(selected.mask, mask[rows])


@pytest.mark.parametrize(("keep_text", "keep_image"), [(1, 1), (None, 1), (1, None), (3, 2)])
def test_keeping_less_of_the_last_layer(model: BridgeTower, keep_text: int | None, keep_image: int | None) -> None:
    ids, mask = pad(SHORT, LONG)
    text, image = model.encode_text(ids, mask), model.encode_image(pictures(2))
    full = model.fuse(text, image)
    part = model.fuse(text, image, keep_text=keep_text, keep_image=keep_image)
    torch.testing.assert_close(part.text, full.text[:, :keep_text], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.image, full.image[:, :keep_image], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.pooled, full.pooled, rtol=1e-5, atol=1e-5)


# Heads


@pytest.mark.parametrize(
    ("head", "use", "checkpoint"),
    [
        (Head.ITC, lambda m, ids, mask: m.embed_text(ids, mask), "BridgeTower/bridgetower-large-itm-mlm-itc"),
        (Head.ITC, lambda m, ids, mask: m.embed_image(pictures(1)), "BridgeTower/bridgetower-large-itm-mlm-itc"),
        (Head.ITC, lambda m, ids, mask: m.logit_scale, "BridgeTower/bridgetower-large-itm-mlm-itc"),
        (Head.ITC, lambda m, ids, mask: m.itc_cross(fuse(m, ids, mask, pictures(1))), "-itc"),
        (Head.ITM, lambda m, ids, mask: m.itm(fuse(m, ids, mask, pictures(1))), "BridgeTower/bridgetower-base-itm-mlm"),
        (Head.MLM, lambda m, ids, mask: m.mlm(fuse(m, ids, mask, pictures(1))), "BridgeTower/bridgetower-base-itm-mlm"),
    ],
)
def test_an_absent_head_names_a_checkpoint_that_has_it(head: Head, use: Callable[..., Any], checkpoint: str) -> None:
    model = tiny_model(heads=ALL_HEADS - {head})
    with pytest.raises(ModelError, match=f"no {head.name} head") as caught:
        use(model, *pad(SHORT))
    assert checkpoint in str(caught.value)


@pytest.mark.parametrize(
    ("needed", "checkpoint"),
    [
        ((Head.ITC, Head.ITM), "BridgeTower/bridgetower-large-itm-mlm-itc"),  # an index is of no use without ITC
        ((Head.ITC, Head.ITM, Head.MLM), "BridgeTower/bridgetower-large-itm-mlm-itc"),
        ((Head.MLM, Head.ITM), "BridgeTower/bridgetower-base-itm-mlm"),
    ],
)
def test_the_checkpoint_that_is_named_has_all_heads_that_are_needed(needed: tuple[Head, ...], checkpoint: str) -> None:
    with pytest.raises(ModelError, match=f"no ITM head: use one that has, such as {checkpoint}$"):
        require_heads(ALL_HEADS - {Head.ITM}, *needed)


def test_a_head_that_is_absent_costs_nothing() -> None:
    model = tiny_model(heads=frozenset())
    assert model.encode_text(*pad(SHORT)).itc is None
    assert model.encode_image(pictures(1)).itc is None
    assert not [name for name, _ in model.named_parameters() if "head" in name]


def test_a_contrastive_head_needs_the_length_of_its_vectors() -> None:
    config = tiny_config(contrastive_hidden_size=None)
    tiny_model(config, frozenset({Head.ITM}))
    with pytest.raises(ModelError, match="contrastive_hidden_size"):
        BridgeTower(config, frozenset({Head.ITC}))


def test_tied_words_are_one_parameter() -> None:
    tied, untied = tiny_model(tiny_config(tie_word_embeddings=True)), tiny_model()
    assert tied.mlm_head is not None and untied.mlm_head is not None
    assert tied.mlm_head.decoder.weight is tied.text_tower.word.weight
    assert untied.mlm_head.decoder.weight is not untied.text_tower.word.weight
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == 400 * 64


@pytest.mark.parametrize(
    ("config", "heads", "millions"),
    [
        (ModelConfig(hidden_size=768, num_hidden_layers=6), frozenset[Head](), 328),
        (
            ModelConfig(
                hidden_size=1024,
                num_hidden_layers=6,
                contrastive_hidden_size=512,
                text=TextConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
                vision=VisionConfig(hidden_size=1024, num_hidden_layers=24, patch_size=14, image_size=294),
            ),
            frozenset({Head.ITC}),
            867,
        ),
    ],
    ids=["base", "large"],
)
def test_the_published_networks_have_their_size(config: ModelConfig, heads: frozenset[Head], millions: int) -> None:
    with torch.device("meta"):
        model = BridgeTower(config, heads)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == pytest.approx(millions, abs=2)


# Training


def losses(model: BridgeTower, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
    """All three, matching pairs against pairs shifted by one."""
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    assert text.itc is not None and image.itc is not None
    own = torch.arange(len(ids))
    fused = model.fuse(text, image, keep_image=1)
    wrong = model.fuse(text, image.select(own.roll(1)), keep_text=1, keep_image=1)
    itc = itc_loss(text.itc, image.itc, model.itc_cross(fused), model.logit_scale)
    itm = itm_loss(torch.cat([model.itm(fused), model.itm(wrong)]), torch.cat([own * 0 + 1, own * 0]))
    return itc + itm + mlm_loss(model.mlm(fused), ids.masked_fill(~mask, -100))


@pytest.mark.parametrize("link", ["add", "scaled_add", "interpolate"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_every_parameter_learns(link: str, shared: bool) -> None:
    config = tiny_config(link_tower_type=link, share_cross_modal_transformer_layers=shared)
    model = tiny_model(config).train()
    losses(model, *pad(SHORT, LONG), pictures(2)).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "autocast"])
def test_a_new_network_learns_a_batch_by_heart(bf16: bool) -> None:
    config = tiny_config(text={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    model = BridgeTower(config).initialise(torch.Generator().manual_seed(0)).train()
    batch = (*pad(SHORT, LONG, [0, 30, 31, 2], [0, 40, 41, 42, 2]), pictures(4))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = losses(model, *batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    at_chance = math.log(4) + math.log(2) + math.log(400)
    assert history[0] == pytest.approx(at_chance, rel=0.1)
    assert history[-1] < 0.3 * at_chance


def test_initialisation_depends_on_the_generator_alone() -> None:
    def fresh(seed: int) -> dict[str, Tensor]:
        return BridgeTower(tiny_config()).initialise(torch.Generator().manual_seed(seed)).state_dict()

    first, again, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if not torch.equal(first[name], other[name])]
    assert all(first[name].ndim > 1 or "class_token" in name for name in drawn)
    assert {name for name in first if first[name].ndim > 1} <= set(drawn)


def test_initialisation_draws_everything_again() -> None:
    model = tiny_model(tiny_config(link_tower_type="scaled_add"), seed=3)
    assert model.itc_head is not None
    model.initialise(torch.Generator().manual_seed(0))
    assert model.logit_scale.item() == pytest.approx(math.exp(2.6592))
    for name, parameter in model.named_parameters():
        if ("norm" in name and name.endswith("weight")) or name.endswith("bridges.0.scale"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.ndim > 1:
            assert 0.01 < parameter.std() < 0.2, name


def test_dropout_acts_in_training_only() -> None:
    model = tiny_model(tiny_config(text={"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.0}))
    batch = (*pad(SHORT, LONG), pictures(2))
    with torch.no_grad():
        assert torch.equal(fuse(model, *batch).pooled, fuse(model, *batch).pooled)
        model.train()
        assert not torch.allclose(fuse(model, *batch).pooled, fuse(model, *batch).pooled)
        assert torch.equal(model.encode_image(batch[2]).layers[0], model.eval().encode_image(batch[2]).layers[0])


def test_attention_dropout_acts_in_training_only() -> None:
    model = tiny_model(tiny_config(text={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.3}))
    batch = pad(SHORT, LONG)
    with torch.no_grad():
        assert torch.equal(model.embed_text(*batch), model.embed_text(*batch))
        model.train()
        assert not torch.allclose(model.embed_text(*batch), model.embed_text(*batch))


# Precision


def test_bfloat16_weights_keep_their_type_throughout(model: BridgeTower) -> None:
    half = tiny_model().to(torch.bfloat16)
    ids, mask = pad(SHORT, LONG)
    with torch.no_grad():
        text, image = half.encode_text(ids, mask), half.encode_image(pictures(2))  # pixels are fp32
        fused = half.fuse(text, image)
        for tensor in (*text.layers, *image.layers, half.itm(fused), half.mlm(fused), half.itc_cross(fused)):
            assert tensor.dtype == torch.bfloat16
    assert text.itc is not None
    cosine = (text.itc.float() * model.embed_text(ids, mask)).sum(dim=1)
    assert (cosine > 0.99).all()


# Losses


def test_contrastive_loss_by_hand() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    image = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    cross = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scale = torch.tensor(2.0)

    def entropy(right: float, wrong: float) -> float:
        return math.log(1 + math.exp(wrong - right))

    text_image = (entropy(0, 0) + entropy(2, 2)) / 2
    text_cross = (entropy(2, 2) + entropy(0, 0)) / 2
    image_cross = entropy(0, 0)
    expected = (text_image + text_cross + image_cross) / 3
    assert itc_loss(text, image, cross, scale).item() == pytest.approx(expected)
    # Rows are texts, columns pictures: the other way round it would be another figure.
    skewed = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    rows = (entropy(2 * 1, 2 * 0.6) + entropy(2 * 0.8, 0)) / 2
    assert itc_loss(text, skewed, text, scale).item() == pytest.approx(
        (rows + entropy(2, 0) + (entropy(2, 0) + entropy(1.6, 1.2)) / 2) / 3
    )


def test_matching_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert itm_loss(logits, torch.tensor([1, 1])).item() == pytest.approx(expected)


def test_word_loss_asks_only_for_what_is_labelled() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[0, 1, 2] = 5.0
    labels = torch.full((2, 3), -100)
    labels[0, 1] = 2
    assert mlm_loss(logits, labels).item() == pytest.approx(math.log(1 + 3 * math.exp(-5)), rel=1e-4)
    labels[1, 2] = 0
    assert mlm_loss(logits, labels).item() == pytest.approx(
        (math.log(1 + 3 * math.exp(-5)) + math.log(4)) / 2, rel=1e-4
    )
