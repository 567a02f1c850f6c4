"""Checkpoints travel both ways: every form in which `transformers` saves one is read, and what we save it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BridgeTowerModel

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.save import convert, save
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.records import Head
from tests.parity.conftest import CLASSES, Reference, inputs, make_reference, reference_config
from tests.tiny import ALL_HEADS, tiny_checkpoint, tiny_config, tiny_model

TOLERANCE = 1e-5  # fp32, relative to the largest value


def config(**changes: Any) -> Any:
    return reference_config(patch=16, image=96, **changes)


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> bool:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item() <= tolerance


def logits(model: BridgeTower, head: Head, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
    """What the class of the reference for this head calls its logits."""
    with torch.no_grad():
        text, image = model.encode_text(ids, mask), model.encode_image(pixels)
        fused = model.fuse(text, image)
        if head is Head.ITM:
            return model.itm(fused)
        if head is Head.MLM:
            return model.mlm(fused)
        assert text.itc is not None and image.itc is not None
        return torch.stack([text.itc, image.itc, model.itc_cross(fused)], dim=-2)


def their_logits(model: Any, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels).logits
    return output


# From transformers to us


@pytest.mark.parametrize("head", list(Head))
def test_each_class_of_the_reference(head: Head, tmp_path: Path) -> None:
    reference = make_reference(config(), (head,))
    reference.models[head].save_pretrained(tmp_path)
    checkpoint = resolve(str(tmp_path))
    assert checkpoint.heads == {head}
    batch = inputs(96)
    assert close(logits(load_model(checkpoint), head, *batch), their_logits(reference.models[head], *batch))


def test_the_class_without_a_head(tmp_path: Path) -> None:
    """Its keys lack the prefix that those of the other classes have."""
    backbone = make_reference(config(), (Head.ITM,)).models[Head.ITM].bridgetower
    backbone.save_pretrained(tmp_path)
    checkpoint = resolve(str(tmp_path))
    assert checkpoint.heads == set()
    ids, mask, pixels = inputs(96)
    model = load_model(checkpoint)
    with torch.no_grad():
        theirs = backbone(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels)
        ours = model.fuse(model.encode_text(ids, mask), model.encode_image(pixels))
    assert close(ours.text, theirs.text_features)
    assert close(ours.image, theirs.image_features)
    assert close(ours.pooled, theirs.pooler_output)


def in_shards(reference: Reference, folder: Path) -> None:
    reference.save(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 5


def as_pickle(reference: Reference, folder: Path) -> None:
    reference.save(folder)
    state = {**reference.models[Head.MLM].state_dict()}
    # What old versions saved besides: constants, and tied tensors under both names.
    state["bridgetower.text_model.embeddings.position_ids"] = torch.arange(34)[None]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_old_pickle(reference: Reference, folder: Path) -> None:
    """The format before PyTorch 1.6 cannot be memory-mapped."""
    reference.save(folder)
    state = reference.models[Head.MLM].state_dict()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


def as_pickle_of_views(reference: Reference, folder: Path) -> None:
    """Tensors that share memory, and of which the columns lie together: `torch.save` keeps them so."""
    reference.save(folder)
    state = {**reference.models[Head.MLM].state_dict()}
    flat, start = torch.cat([tensor.flatten() for tensor in state.values()]), 0
    for key, tensor in state.items():
        state[key] = flat[start : start + tensor.numel()].view(tensor.shape)
        if "attention.self.query.weight" in key:
            state[key] = tensor.T.contiguous().T
        start += tensor.numel()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_pickles_in_shards(reference: Reference, folder: Path) -> None:
    import json

    reference.save(folder)
    items = list(reference.models[Head.MLM].state_dict().items())
    shards = {"pytorch_model-00001-of-00002.bin": items[::2], "pytorch_model-00002-of-00002.bin": items[1::2]}
    for name, part in shards.items():
        torch.save(dict(part), folder / name)
    weight_map = {key: name for name, part in shards.items() for key, _ in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("form", [in_shards, as_pickle, as_old_pickle, as_pickle_of_views, as_pickles_in_shards])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_each_form_of_the_weights(form: Callable[[Reference, Path], None], tied: bool, tmp_path: Path) -> None:
    reference = make_reference(config(tie_word_embeddings=tied), tuple(Head))
    form(reference, tmp_path)
    checkpoint = resolve(str(tmp_path))
    assert checkpoint.heads == ALL_HEADS
    model, batch = load_model(checkpoint), inputs(96)
    for head in Head:
        assert close(logits(model, head, *batch), their_logits(reference.models[head], *batch))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files(dtype: torch.dtype, tmp_path: Path) -> None:
    """Read as fp32 they give exactly what the rounded weights give."""
    reference = make_reference(config(), (Head.ITM,)).models[Head.ITM].to(dtype)
    reference.save_pretrained(tmp_path)
    checkpoint = resolve(str(tmp_path))
    assert {p.dtype for p in load_model(checkpoint, dtype=None).parameters()} == {dtype}
    batch = inputs(96)
    assert close(logits(load_model(checkpoint), Head.ITM, *batch), their_logits(reference.float(), *batch))


def test_bfloat16_stays_near_fp32(tmp_path: Path) -> None:
    reference = make_reference(config(), (Head.ITM,)).models[Head.ITM]
    reference.save_pretrained(tmp_path)
    ids, mask, pixels = inputs(96)
    theirs = their_logits(reference, ids, mask, pixels)
    ours = logits(load_model(resolve(str(tmp_path)), torch.bfloat16), Head.ITM, ids, mask, pixels)
    assert ours.dtype == torch.bfloat16
    assert close(ours.float(), theirs, tolerance=0.1)  # 8 bits of mantissa through 8 layers


# From us to transformers


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"link_tower_type": "scaled_add", "tie_word_embeddings": True},
        {"link_tower_type": "interpolate", "vision": {"patch_size": 14, "image_size": 98}},
    ],
    ids=lambda changes: changes.get("link_tower_type", "add"),
)
def test_the_reference_reads_what_we_save(head: Head, changes: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(tiny_config(**changes), frozenset({head}))
    save(model, tmp_path)
    theirs, report = CLASSES[head].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    batch = inputs(model.config.vision.image_size)
    assert close(logits(model, head, *batch), their_logits(theirs.eval(), *batch))


def test_the_reference_reads_what_we_save_without_a_head(tmp_path: Path) -> None:
    save(tiny_model(heads=frozenset()), tmp_path)
    _, report = BridgeTowerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report


def test_the_reference_takes_its_part_of_a_checkpoint_with_all_heads(tmp_path: Path) -> None:
    model = tiny_model(tiny_config(share_cross_modal_transformer_layers=False))
    save(model, tmp_path)
    batch = inputs(96)
    for head in (Head.ITM, Head.MLM):
        theirs, report = CLASSES[head].from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"] and not report["mismatched_keys"]
        assert {key.split(".")[0].split("_")[0] for key in report["unexpected_keys"]} <= {"itc", "itm", "mlm", "logit"}
        assert close(logits(model, head, *batch), their_logits(theirs.eval(), *batch))


def test_the_reference_reads_what_we_convert(tmp_path: Path) -> None:
    reference = make_reference(config(vision={"share_layernorm": False}), (Head.ITM,))
    as_pickle(Reference({Head.MLM: reference.models[Head.ITM]}), tmp_path / "pickled")
    converted = convert(str(tmp_path / "pickled"), tmp_path / "converted")
    theirs, report = CLASSES[Head.ITM].from_pretrained(converted.folder, output_loading_info=True)
    assert not any(report.values()), report
    batch = inputs(96)
    assert close(their_logits(theirs.eval(), *batch), their_logits(reference.models[Head.ITM], *batch))


def test_a_saved_checkpoint_is_bit_equal_when_loaded_again(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    again = load_model(resolve(str(tmp_path)))
    before = tiny_model().state_dict()
    assert before.keys() == again.state_dict().keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, before[name]), name
