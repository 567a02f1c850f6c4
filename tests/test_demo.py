"""The bundled model, from outside: the installed `bt` on the gallery gives the answers that the README shows."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bridgetower.checkpoints.find import DEMO_FOLDER, resolve
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.files.captions.read import read_captions
from bridgetower.network import int8
from bridgetower.records import Head
from bridgetower.retrieval.evaluation import evaluate
from examples.measure_demo import encoded, measure_words

needs_int8 = pytest.mark.skipif(not int8.is_possible(), reason="no int8 on this processor")
GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
BT = Path(sys.executable).with_name("bt")


def bt(*words: object, status: int = 0) -> list[dict[str, object]]:
    """Run the installed command; its JSON lines."""
    done = subprocess.run([BT, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "index"
    bt("index", GALLERY, "--model", "demo", "--index", folder)
    return folder


@pytest.fixture(scope="module")
def encoder() -> TorchEncoder:
    return TorchEncoder(resolve("demo"), Runtime("cpu", "fp32", ""))


def test_it_is_complete_and_small() -> None:
    checkpoint = resolve("demo")
    assert checkpoint.heads == frozenset(Head)
    assert sum(file.stat().st_size for file in DEMO_FOLDER.iterdir()) <= 12 * 1024**2
    assert (DEMO_FOLDER / "README.md").read_text("utf-8").startswith("---\n")  # a model card


def test_the_gallery_is_there() -> None:
    captioned = read_captions(GALLERY / "captions.jsonl")
    assert len(captioned) >= 150
    assert {path.name for path in GALLERY.glob("*.jpg")} == {item.image.name for item in captioned}


def test_search_finds_and_verifies_what_was_asked_for(index: Path) -> None:
    found = bt("search", "two cats on a couch", "--json", "--index", index)
    assert Path(str(found[0]["path"])).name == "two-cats-on-a-couch-in-the-desert.jpg"
    assert found[0]["verified"] is True
    assert isinstance(found[0]["match"], float)
    assert found[0]["match"] > 0.5


def test_what_is_not_there_is_no_match(index: Path) -> None:
    assert bt("search", "a giraffe playing the piano", "--min-match", "0.5", "--json", "--index", index, status=1) == []


def test_fill_reads_the_library_and_a_picture(index: Path) -> None:
    library = bt("fill", "a <mask> looking out", "--json", "--index", index, "--top", "10")
    looking_out = {path.stem.split("-looking-")[0].split("-")[-1] for path in GALLERY.glob("*looking-out*")}
    assert str(library[0]["token"]) in looking_out
    picture = GALLERY / "a-cat-looking-out-of-a-window-in-the-snow.jpg"
    one = bt("fill", "a <mask> looking out of a window", "--json", "--model", "demo", "--image", picture)
    assert one[0]["token"] == "cat"


@needs_int8
def test_an_index_in_int8_stays_in_int8_and_any_precision_may_search_it(index: Path, tmp_path: Path) -> None:
    own, pictures = tmp_path / "index", [*sorted(GALLERY.glob("*cats*")), *sorted(GALLERY.glob("*dogs*"))]
    bt("index", *pictures[:-1], "--model", "demo", "--precision", "int8", "--index", own)
    bt("index", pictures[-1], "--index", own)
    assert bt("status", "--json", "--index", own)[0]["precision_family"] == "int8"
    bt("index", pictures[-1], "--precision", "fp32", "--index", own, status=5)
    for where, precision in ((own, "auto"), (own, "fp32"), (own, "int8"), (index, "int8")):
        found = bt("search", "two cats on a couch", "--json", "--precision", precision, "--index", where)
        assert Path(str(found[0]["path"])).name == "two-cats-on-a-couch-in-the-desert.jpg"


@needs_int8
def test_int8_finds_what_fp32_finds(encoder: TorchEncoder) -> None:
    captioned = read_captions(GALLERY / "captions.jsonl")
    in_int8 = TorchEncoder(resolve("demo"), Runtime("cpu", "int8", ""))
    [ours], [theirs] = (evaluate(one, one, captioned, depths=()) for one in (in_int8, encoder))
    assert ours.ir[0] >= theirs.ir[0] - 2  # of 150; the thousand of the model card are held to 1


def test_its_figures_on_the_gallery(encoder: TorchEncoder) -> None:
    """Well below what the model card says of a thousand scenes: a broken network or scene is caught, chance is not."""
    captioned = read_captions(GALLERY / "captions.jsonl")
    recall, rerank = evaluate(encoder, encoder, captioned, depths=(20,))
    assert recall.ir[0] >= 85
    assert rerank.ir[0] >= 85
    some = captioned[:60]
    assert measure_words(encoder, some, encoded(encoder, some))["all"]["meaning"] >= 70


def test_transformers_reads_it_and_agrees(encoder: TorchEncoder) -> None:
    import torch
    from PIL import Image
    from transformers import AutoTokenizer, BridgeTowerForImageAndTextRetrieval
    from transformers.models.bridgetower.image_processing_pil_bridgetower import BridgeTowerImageProcessorPil

    from bridgetower.files.content import read
    from bridgetower.pictures.decode import decode
    from bridgetower.pictures.preprocess import preprocess

    text, path = "two cats on a couch", GALLERY / "two-cats-on-a-couch-in-the-desert.jpg"
    model = BridgeTowerForImageAndTextRetrieval.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    with Image.open(path) as picture:
        pixels = BridgeTowerImageProcessorPil.from_pretrained(DEMO_FOLDER)(picture.convert("RGB"), return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(DEMO_FOLDER)(text, return_tensors="pt")
    with torch.no_grad():
        theirs = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixels["pixel_values"],
        ).logits.numpy()
    whole = preprocess(decode(read(path), path), encoder.preprocessing)  # as there, not at a fraction of its size
    ours = encoder.match(encoder.encode_texts([text]), encoder.encode_images(whole[None]), np.array([[0, 0]]))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
