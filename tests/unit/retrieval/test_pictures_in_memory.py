"""A picture is the same wherever it comes from: a path, bytes, a PIL image, an array."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bridgetower import BridgeTowerError, Library, Model, PictureError, UsageError
from bridgetower.pictures.decode import in_memory
from bridgetower.retrieval.encode_pictures import AnyPicture

GALLERY = Path(__file__).parents[3] / "examples" / "gallery"
CATS = GALLERY / "two-cats-on-a-couch-in-the-desert.jpg"
COW = GALLERY / "two-cows.jpg"
TEXT = "two cats on a couch"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("demo", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def library(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with Library(tmp_path_factory.mktemp("library") / "index", model) as library:
        library.index([CATS, COW])
        yield library


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A picture that lies on its side in the file, and says so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(CATS).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    return tmp_path / "turned.png"


@pytest.fixture(params=["RGB", "L"])
def flat(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A picture in colour and in grey, in a format that is always decoded in full."""
    Image.open(CATS).convert(request.param).save(tmp_path / "flat.png")
    return tmp_path / "flat.png"


FORMS: dict[str, Callable[[Path], AnyPicture]] = {
    "text": str,
    "bytes": Path.read_bytes,
    "lazy image": Image.open,
    "loaded image": lambda path: Image.open(BytesIO(path.read_bytes())),
}


def assert_same(model: Model, library: Library, picture: AnyPicture, path: Path) -> None:
    """Every way to give a picture sees in `picture` what it sees in the file `path`."""
    name = Path(picture) if isinstance(picture, str) else Path("<picture 0>")
    [score], [expected] = model.match([picture], [TEXT]), model.match([path], [TEXT])
    assert (score.image, score.itm_logits, score.similarity) == (name, expected.itm_logits, expected.similarity)
    [hit], [same] = model.rerank(TEXT, [picture]), model.rerank(TEXT, [path])
    assert (hit.path, hit.match) == (name, same.match)
    words, same_words = (model.fill("two <mask> on a couch", [one], top=2).words for one in (picture, path))
    assert [(word.token, word.probability) for word in words] == [(w.token, w.probability) for w in same_words]
    np.testing.assert_array_equal(model.embed_images([picture]), model.embed_images([path]))
    assert library.search(image=picture) == library.search(image=path)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_all_see_the_same_in_a_picture_in_memory(
    model: Model, library: Library, turned: Path, form: Callable[[Path], AnyPicture]
) -> None:
    assert_same(model, library, form(turned), turned)


def test_all_see_the_same_in_an_array(model: Model, library: Library, flat: Path) -> None:
    array = np.asarray(Image.open(flat))
    assert_same(model, library, array, flat)
    assert_same(model, library, np.asfortranarray(array), flat)


def test_a_large_jpeg_file_is_nearly_the_same_as_its_pixels(model: Model) -> None:
    # Of the file no more is decoded than is needed; whoever gives pixels has decoded all of them.
    file, content, pixels = model.match([CATS, CATS.read_bytes(), Image.open(CATS)], [TEXT])
    assert (content.match, content.similarity) == (file.match, file.similarity)
    assert pixels.match == pytest.approx(file.match, abs=0.03)
    assert pixels.similarity == pytest.approx(file.similarity, abs=0.03)


def test_a_picture_that_lies_on_its_side_is_turned_upright(turned: Path, tmp_path: Path) -> None:
    upright = np.asarray(Image.open(CATS).convert("RGB"))
    tiff = tmp_path / "turned.tiff"  # Pillow turns these by itself when it loads them
    picture = Image.open(turned)
    picture.save(tiff, exif=picture.getexif())
    for path in (turned, tiff):
        np.testing.assert_array_equal(np.asarray(in_memory(Image.open(path), path).image), upright)


def test_pictures_of_several_kinds_are_named_by_their_places(model: Model) -> None:
    pictures: list[AnyPicture] = [CATS, Image.open(COW), CATS.read_bytes(), np.asarray(Image.open(COW))]
    scores = model.match(pictures, ["two cows"])
    assert [str(score.image) for score in scores] == [str(CATS), "<picture 1>", "<picture 2>", "<picture 3>"]
    assert scores[1].match == scores[3].match and scores[0].match == scores[2].match
    assert len(model.rerank("two cows", iter(pictures))) == 4
    assert len(model.fill("two <mask>", (picture for picture in pictures), top=1).words) == 1


WRONG_KINDS: dict[str, Any] = {
    "float": np.zeros((9, 9, 3), np.float32),
    "four channels": np.zeros((9, 9, 4), np.uint8),
    "channels first": np.zeros((3, 9, 9), np.uint8),
    "a batch": np.zeros((2, 9, 9, 3), np.uint8),
    "a row": np.zeros(9, np.uint8),
    "a number": 7,
    "none": None,
    "a list": [[0, 0, 0]],
}


@pytest.mark.parametrize("wrong", WRONG_KINDS.values(), ids=WRONG_KINDS)
def test_a_value_that_can_be_no_picture_is_an_error_of_usage(model: Model, library: Library, wrong: Any) -> None:
    for use in (
        lambda: model.match([CATS, wrong], [TEXT]),
        lambda: model.embed_images([CATS, wrong]),
        lambda: model.rerank(TEXT, [CATS, wrong]),
        lambda: model.fill("a <mask>", [CATS, wrong]),
    ):
        with pytest.raises(UsageError, match=r"^<picture 1>: "):
            use()
    if wrong is not None:
        with pytest.raises(BridgeTowerError):
            library.search(image=wrong)


NO_PICTURES: dict[str, Any] = {
    "no row": np.zeros((0, 9, 3), np.uint8),
    "no column": np.zeros((9, 0), np.uint8),
    "an empty image": Image.new("RGB", (0, 9)),
    "no bytes": b"",
    "other bytes": b"no picture",
    "a cut file": CATS.read_bytes()[:2000],
    "a cut image": Image.open(BytesIO(CATS.read_bytes()[:2000])),
}


@pytest.mark.parametrize("wrong", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_an_error_that_names_its_place(model: Model, library: Library, wrong: Any) -> None:
    for use in (
        lambda: model.match([CATS, wrong], [TEXT]),
        lambda: model.embed_images([CATS, wrong]),
    ):
        with pytest.raises(PictureError, match=r"^<picture 1>: "):
            use()
    results = model.rerank(TEXT, [CATS, wrong])
    assert [hit.path for hit in results] == [CATS]
    assert [str(skip.path) for skip in results.skipped] == ["<picture 1>"]
    with pytest.raises(BridgeTowerError):
        library.search(image=wrong)
