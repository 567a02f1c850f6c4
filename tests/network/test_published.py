"""The published checkpoints give the published figures, with our loader, tokenizer, pixels and network. In fp32.

Run with `pytest -m network`: downloads 5 GB into the cache of the Hugging Face Hub and keeps as much again, converted.
The figures are those of the model documentation of `transformers`.
"""

from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.records import Candidate, Head
from bridgetower.retrieval.encode_pictures import load
from bridgetower.retrieval.fill import fill_images
from bridgetower.retrieval.matching import match
from bridgetower.training.losses import itc_loss

pytestmark = [pytest.mark.network, pytest.mark.slow]

BASE = "BridgeTower/bridgetower-base-itm-mlm"
LARGE = "BridgeTower/bridgetower-large-itm-mlm-itc"

CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"  # two, on a couch
WINDOW = "http://images.cocodataset.org/val2017/000000360943.jpg"  # a cat looks out
DOGS = "https://farm4.staticflickr.com/3395/3428278415_81c3e27f15_z.jpg"  # two, in a car


@pytest.fixture(scope="module")
def base() -> TorchEncoder:
    return TorchEncoder(resolve(BASE), Runtime("cpu", "fp32", ""))


def fetch(url: str, folder: Path) -> Path:
    path = folder / url.rpartition("/")[2]
    with urlopen(Request(url, headers={"User-Agent": "bt tests"}), timeout=60) as answer:
        path.write_bytes(answer.read())
    return path


def test_matching(base: TorchEncoder, tmp_path: Path) -> None:
    texts = ["An image of two cats chilling on a couch", "A football player scoring a goal"]
    pairs = {pair.text: pair for pair in match(base, [Candidate(fetch(CATS, tmp_path))], texts)}
    for text, published in zip(texts, (4.8437, -6.8970), strict=True):
        logits = pairs[text].itm_logits
        assert logits is not None
        assert logits[1] == pytest.approx(published, abs=5e-3)


def test_filling(base: TorchEncoder, tmp_path: Path) -> None:
    filled = fill_images(base, "a <mask> looking out of the window", [Candidate(fetch(WINDOW, tmp_path))], top=1)
    assert [word.token for word in filled.words] == ["cat"]


def test_contrast(tmp_path: Path) -> None:
    checkpoint = resolve(LARGE)
    assert checkpoint.heads == frozenset(Head)
    model, tokenizer = load_model(checkpoint), checkpoint.tokenizer()
    pictures = [load(Candidate(fetch(url, tmp_path)), checkpoint.preprocessing) for url in (DOGS, CATS)]
    texts = ["two dogs in a car", "two cats sleeping on a couch"]

    @torch.inference_mode()
    def loss(texts: list[str]) -> float:
        ids, mask = map(torch.from_numpy, tokenizer.encode_batch(texts))
        text, image = model.encode_text(ids, mask), model.encode_image(torch.from_numpy(np.stack(pictures)))
        assert text.itc is not None and image.itc is not None
        cross = model.itc_cross(model.fuse(text, image))
        return itc_loss(text.itc, image.itc, cross, model.logit_scale).item()

    assert loss(texts) == pytest.approx(0.0019, abs=1e-4)
    assert loss(texts[::-1]) == pytest.approx(2.126, abs=5e-3)
