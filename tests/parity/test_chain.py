"""The whole chain from a picture and a sentence: a folder that `transformers` saved, read and run by either side."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BridgeTowerProcessor, RobertaTokenizer
from transformers.models.bridgetower.image_processing_pil_bridgetower import BridgeTowerImageProcessorPil

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.pictures.preprocess import preprocess
from bridgetower.records import Head
from tests.parity.conftest import make_reference, reference_config
from tests.tiny import tiny_tokenizer

TEXTS = ["two cats on a couch", "a <mask> looking out of the window", "twelve birds"]
SIZES = [(170, 120), (98, 98), (90, 210)]


@pytest.mark.parametrize(("patch", "size"), [(16, 96), (14, 98)], ids=["base", "large"])
def test_the_whole_chain(patch: int, size: int, tmp_path: Path) -> None:
    reference = make_reference(reference_config(patch=patch, image=size), tuple(Head))
    reference.save(tmp_path)
    tiny_tokenizer(tmp_path / "words")
    processor = BridgeTowerProcessor(
        BridgeTowerImageProcessorPil(size={"shortest_edge": size}, crop_size={"shortest_edge": size}),
        RobertaTokenizer.from_pretrained(tmp_path / "words"),
    )
    processor.save_pretrained(tmp_path)
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]
    encoded = processor(pictures, TEXTS, padding=True, return_tensors="pt")

    checkpoint = resolve(str(tmp_path))
    model, tokenizer = load_model(checkpoint), checkpoint.tokenizer()
    ids, mask = map(torch.from_numpy, tokenizer.encode_batch(TEXTS))
    pixels = torch.from_numpy(np.stack([preprocess(picture, checkpoint.preprocessing) for picture in pictures]))
    assert torch.equal(ids, encoded["input_ids"])
    assert torch.equal(mask, encoded["attention_mask"].bool())
    torch.testing.assert_close(pixels, encoded["pixel_values"], rtol=0, atol=1e-5)

    with torch.no_grad():
        text, image = model.encode_text(ids, mask), model.encode_image(pixels)
        fused = model.fuse(text, image)
        theirs = {head: network(**encoded) for head, network in reference.models.items()}
        assert text.itc is not None and image.itc is not None
        torch.testing.assert_close(text.itc, theirs[Head.ITC].text_embeds, rtol=0, atol=1e-5)
        torch.testing.assert_close(image.itc, theirs[Head.ITC].image_embeds, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.itm(fused), theirs[Head.ITM].logits, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(model.mlm(fused), theirs[Head.MLM].logits, rtol=1e-5, atol=1e-4)
