"""The text tower in NumPy: every layer of every text, alone and unpadded, against the reference, padded in a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.text_tower import TextTower
from bridgetower.records import Head
from tests.parity.conftest import inputs, make_reference, record, reference_config

TOLERANCE = 1e-5  # fp32, relative to the largest value
LENGTHS = (3, 9, 4, 30)

WIDTHS: dict[str, dict[str, Any]] = {
    "64": {},
    "256, products in blocks": {
        "hidden_size": 256,
        "text": {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4},
        "vision": {"hidden_size": 256},
    },
    "another padding, epsilon and number of layers": {
        "num_hidden_layers": 4,
        "text": {"pad_token_id": 0, "layer_norm_eps": 1e-3, "num_hidden_layers": 4},
        "vision": {"num_hidden_layers": 4},
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["F32", "F16", "BF16"])
@pytest.mark.parametrize("width", WIDTHS)
def test_each_layer_and_the_vector(width: str, dtype: torch.dtype, tmp_path: Path) -> None:
    config = reference_config(patch=16, image=96, **WIDTHS[width])
    reference = make_reference(config, (Head.ITC,)).models[Head.ITC].to(dtype)
    reference.save_pretrained(tmp_path)
    reference.float()  # the rounded weights, computed in fp32
    ids, mask, pixels = inputs(96, LENGTHS)
    pad_id = config.text_config.pad_token_id
    ids = ids.masked_fill(ids == pad_id, 7).masked_fill(~mask, pad_id)
    layers = record({str(k): layer for k, layer in enumerate(reference.bridgetower.text_model.encoder.layer)})
    with torch.no_grad():
        vectors = reference(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels).text_embeds

    checkpoint = resolve(str(tmp_path))
    tower, n_cross = TextTower(checkpoint), checkpoint.config.n_cross
    depth = checkpoint.config.text.num_hidden_layers
    for row, length in enumerate(LENGTHS):
        hidden = tower.hidden(ids[row, :length].numpy())
        assert len(hidden) == n_cross
        for ours, k in zip(hidden, range(depth - n_cross, depth), strict=True):
            theirs = layers[str(k)][row, :length].numpy()
            assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()
        vector = tower.vector(hidden[-1])
        assert np.abs(vector / np.linalg.norm(vector) - vectors[row].numpy()).max() <= TOLERANCE


def test_letting_go_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower.encoders.text_tower._LET_GO_BYTES", 0)
    make_reference(reference_config(patch=16, image=96), (Head.ITC,)).models[Head.ITC].save_pretrained(tmp_path)
    tower, ids = TextTower(resolve(str(tmp_path))), np.array([0, 7, 9, 11, 2])
    before = tower.hidden(ids)
    tower.let_go()
    assert all(np.array_equal(one, other) for one, other in zip(tower.hidden(ids), before, strict=True))
