"""From a folder that `transformers` saved and picture files to the JSON lines of `bt`: what `transformers` says itself.

The other side of each comparison is the reference alone: its processor, its tokenizer, its classes, one pair at a time.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, BridgeTowerProcessor, RobertaTokenizer
from transformers.models.bridgetower.image_processing_pil_bridgetower import BridgeTowerImageProcessorPil
from typer.testing import CliRunner

from bridgetower.checkpoints.find import DEMO_FOLDER
from bridgetower.records import Head
from bridgetower_cli.parser import app
from tests.parity.conftest import CLASSES, make_reference, reference_config
from tests.tiny import tiny_tokenizer

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"

SIMILARITY, LOGITS, PROBABILITY = 1e-4, 1e-3, 1e-4  # absolute, fp32

TEXTS = [
    "two cats on a couch",
    "Three umbrellas, left of a house!",
    "a dog",
    " ".join(["the sea"] * 18),
]  # the last is cut
MASKED = ["a <mask> looking out of the window", "<mask> cats on a <mask>, in a <mask>", "an image of two<mask>"]
SIZES = [(170, 120), (113, 113), (61, 333), (500, 97), (640, 480)]

BASE: dict[str, Any] = {
    "patch": 16,
    "image": 112,  # floored to 96: a frame of 8
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "contrastive_hidden_size": 48,
    "text": {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 256},
    "vision": {"hidden_size": 128, "num_hidden_layers": 4},
}
LARGE: dict[str, Any] = {
    "patch": 14,
    "image": 154,  # floored to 128: a frame of 13
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "contrastive_hidden_size": 24,
    "text": {"hidden_size": 128, "num_attention_heads": 8, "num_hidden_layers": 6, "intermediate_size": 320},
    "vision": {"hidden_size": 128, "num_hidden_layers": 6},
}
CASES = {
    "base, no ITC head": (BASE, (Head.ITM, Head.MLM)),
    "base": (BASE, tuple(Head)),
    "large": (LARGE, tuple(Head)),
    "large, no ITC head": (LARGE, (Head.ITM, Head.MLM)),
}


@dataclass(frozen=True)
class Oracle:
    """What `transformers` says, of one picture and one text at a time."""

    folder: Path  # for `--model`
    processor: Any  # of a text and a picture
    tokenizer: Any
    models: dict[Head, Any]

    @torch.no_grad()
    def run(self, head: Head, picture: Path, text: str) -> tuple[Any, Tensor]:
        """The output of the class with this head, and the ids that it read."""
        with Image.open(picture) as image:
            encoded = self.processor(image.convert("RGB"), text)
        return self.models[head](**encoded), encoded["input_ids"][0]

    def similarity(self, picture: Path, text: str) -> float:
        output, _ = self.run(Head.ITC, picture, text)
        return float(output.text_embeds[0] @ output.image_embeds[0])

    def itm(self, picture: Path, text: str) -> list[float]:
        logits: list[float] = self.run(Head.ITM, picture, text)[0].logits[0].tolist()
        return logits

    def words(self, picture: Path, text: str) -> list[dict[str, float]]:
        """The probability of every word at each mask; of the tokens that read alike, that of the likeliest."""
        output, ids = self.run(Head.MLM, picture, text)
        found = []
        for position in (ids == self.tokenizer.mask_token_id).nonzero()[:, 0].tolist():
            words: dict[str, float] = {}
            for token, probability in enumerate(output.logits[0, position].softmax(-1).tolist()):
                word = self.tokenizer.decode([token]).strip()
                if token not in self.tokenizer.all_special_ids and word:
                    words[word] = max(probability, words.get(word, 0.0))
            found.append(words)
        return found


@pytest.fixture(scope="module", params=CASES)
def random(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """A checkpoint with random weights, saved by `transformers` with its processor."""
    settings, heads = CASES[request.param]
    folder = tmp_path_factory.mktemp("checkpoint")
    reference = make_reference(reference_config(**settings), heads, seed=len(request.param))
    reference.save(folder)
    tiny_tokenizer(folder / "words")
    tokenizer = RobertaTokenizer.from_pretrained(folder / "words", model_max_length=32)  # as there are positions
    size = {"shortest_edge": settings["image"]}
    whole = BridgeTowerProcessor(BridgeTowerImageProcessorPil(size=size, crop_size=size), tokenizer)
    whole.save_pretrained(folder)

    def process(image: Image.Image, text: str) -> Any:
        return whole(image, text, truncation=True, return_tensors="pt")

    return Oracle(folder, process, tokenizer, dict(reference.models))


@pytest.fixture(scope="module")
def demo() -> Oracle:
    """The bundled checkpoint, loaded by `transformers`."""
    images, tokenizer = (
        BridgeTowerImageProcessorPil.from_pretrained(DEMO_FOLDER),
        AutoTokenizer.from_pretrained(DEMO_FOLDER),
    )
    models = {}
    for head, architecture in CLASSES.items():
        model, report = architecture.from_pretrained(DEMO_FOLDER, dtype=torch.float32, output_loading_info=True)
        assert not report["missing_keys"] and not report["mismatched_keys"]
        models[head] = model.eval()

    def process(image: Image.Image, text: str) -> Any:
        tokens = tokenizer(text, return_tensors="pt")
        pixels = images(image, return_tensors="pt")["pixel_values"]
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "pixel_values": pixels}

    return Oracle(DEMO_FOLDER, process, tokenizer, models)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    generator, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    paths = []
    for width, height in SIZES:
        coarse = generator.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
        paths.append(folder / f"{width}x{height}.png")
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(paths[-1])
    return paths


def bt(*words: object) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, [*map(str, words)], prog_name="bt")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def match_and_compare(oracle: Oracle, pictures: list[Path], texts: list[str]) -> None:
    asked = [word for text in texts for word in ("--text", text)]
    rows = bt("match", *pictures, *asked, "--json", "--model", oracle.folder, "--device", "cpu", "--precision", "fp32")
    assert {(row["image"], row["text"]) for row in rows} == {(str(path), text) for path in pictures for text in texts}
    assert len(rows) == len(pictures) * len(texts)
    for row in rows:
        pair = Path(row["image"]), row["text"]
        logits = oracle.itm(*pair)
        assert row["itm_logits"] == pytest.approx(logits, rel=0, abs=LOGITS)
        assert row["match"] == pytest.approx(float(torch.tensor(logits).softmax(-1)[1]), rel=0, abs=PROBABILITY)
        if Head.ITC in oracle.models:
            assert row["similarity"] == pytest.approx(oracle.similarity(*pair), rel=0, abs=SIMILARITY)
        else:
            assert row["similarity"] is None


def fill_and_compare(oracle: Oracle, picture: Path, text: str, top: int = 8) -> None:
    rows = bt(
        "fill", text, "--image", picture, "--top", top, "--json",
        "--model", oracle.folder, "--device", "cpu", "--precision", "fp32",
    )  # fmt: skip
    expected = oracle.words(picture, text)
    assert len(expected) == text.count("<mask>")
    assert [(row["mask"], row["rank"]) for row in rows] == [
        (m, r + 1) for m in range(len(expected)) for r in range(top)
    ]
    for mask, words in enumerate(expected):
        best = sorted(words.values(), reverse=True)[:top]
        ours = [row for row in rows if row["mask"] == mask]
        assert [row["probability"] for row in ours] == pytest.approx(best, rel=0, abs=PROBABILITY)
        assert [words[row["token"]] for row in ours] == pytest.approx(best, rel=0, abs=PROBABILITY)
        assert all(row["images"] == [str(picture)] for row in ours)


def test_match(random: Oracle, pictures: list[Path]) -> None:
    match_and_compare(random, pictures, TEXTS)


@pytest.mark.parametrize("text", MASKED)
def test_fill(random: Oracle, pictures: list[Path], text: str) -> None:
    for picture in pictures:
        fill_and_compare(random, picture, text)


@pytest.fixture
def gallery(tmp_path: Path) -> list[Path]:
    """Some of it as PNG: of a JPEG file `bt` decodes no more than it needs, which is near, but not the same."""
    names = "a-cat-looking-out-of-a-window-in-the-snow", "a-small-fox-in-the-snow"
    found = [*(GALLERY / f"{name}.jpg" for name in names), *sorted(GALLERY.glob("*.jpg"))[::30]]
    for path in found:
        with Image.open(path) as picture:
            picture.save(tmp_path / f"{path.stem}.png")
    return [tmp_path / f"{path.stem}.png" for path in found]


def test_match_with_the_demo_model(demo: Oracle, gallery: list[Path]) -> None:
    found = gallery[2:]
    texts = [found[0].stem.replace("-", " "), "two cats on a couch", "a fox to the left of an octopus in the snow"]
    match_and_compare(demo, found, texts)


def test_fill_with_the_demo_model(demo: Oracle, gallery: list[Path]) -> None:
    for picture in gallery[:2]:
        fill_and_compare(demo, picture, "a <mask> looking out of a <mask>")


@pytest.mark.parametrize("random", ["base"], indirect=True)
def test_a_converted_copy_serves_the_index_of_its_source(random: Oracle, pictures: list[Path], tmp_path: Path) -> None:
    state = random.models[Head.MLM].state_dict()  # what `save` made one class of all heads of
    source, copy, index = tmp_path / "source", tmp_path / "copy", tmp_path / "index"
    source.mkdir()
    for file in random.folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (source / file.name).write_bytes(file.read_bytes())
    torch.save(state, source / "pytorch_model.bin")
    CliRunner().invoke(app, ["index", str(pictures[0].parent), "--model", str(source), "--index", str(index)])
    done = CliRunner().invoke(app, ["model", "convert", str(source), str(copy)])
    assert (done.exit_code, done.stdout) == (0, f"{copy}\n")
    rows = bt("search", "a dog", "--json", "--index", index, "--model", copy, "--precision", "fp32")
    assert len(rows) == len(pictures)
