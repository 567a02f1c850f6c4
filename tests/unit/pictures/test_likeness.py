"""Two pictures are one if they show the same view, and not if any part of them differs."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.pictures import photo
from bridgetower.pictures.decode_pool import read_square
from bridgetower.pictures.likeness.compare import are_same
from bridgetower.pictures.likeness.grids import SIDE, Grid, GridPool, as_grid
from bridgetower.pictures.likeness.worker import answer
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Refused
from tests.pictures import encoded, orientation

GALLERY = Path(__file__).parents[3] / "examples" / "gallery"
Change = Callable[[Image.Image], Image.Image]


def grid(picture: Image.Image, kind: str = "PNG", **options: object) -> Grid:
    spec = Preprocessing(SIDE, SIDE, "plain")
    found = read_square(BytesIO(answer(encoded(picture, kind, **options), spec, 10**8, None)), spec)
    assert not isinstance(found, Refused)
    return as_grid(found)


def same(one: Grid, other: Grid) -> bool:
    return bool(are_same(np.stack([one, other]), np.array([0]), np.array([1]))[0])


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    def crop(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        sides = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        return picture.crop(tuple(map(round, sides)))  # type: ignore[arg-type]

    return crop


def scaled(factor: float) -> Change:
    return lambda picture: picture.resize((round(factor * picture.width), round(factor * picture.height)))


def patched(picture: Image.Image) -> Image.Image:
    """With a disc whose size is a fifth of the picture's."""
    changed, (width, height) = picture.copy(), picture.size
    ImageDraw.Draw(changed).ellipse((0.2 * width, 0.2 * height, 0.4 * width, 0.4 * height), (220, 60, 40))
    return changed


def tinted(picture: Image.Image) -> Image.Image:
    """With red and blue exchanged: about as light as before."""
    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, green, red))


@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_picture_that_was_encoded_again_is_the_same(kind: str, quality: int) -> None:
    assert same(grid(photo(1)), grid(photo(1), kind, quality=quality))


@pytest.mark.parametrize(
    "change",
    [
        scaled(0.5),
        scaled(1.5),
        cropped(0.1, 0.1, 0.1, 0.1),
        cropped(0.03, 0.1, 0.1, 0.03),
        cropped(0.1, 0, 0, 0),
        lambda picture: cropped(0.05, 0.08, 0.03, 0.1)(scaled(0.7)(picture)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_picture_that_was_scaled_or_cropped_is_the_same(change: Change, seed: int) -> None:
    whole, part = grid(photo(seed)), grid(change(photo(seed)), "JPEG", quality=75)
    assert same(whole, part) and same(part, whole)


def test_a_crop_of_a_picture_with_sharp_edges_is_the_same() -> None:
    picture = Image.open(GALLERY / "a-small-llama-at-night.jpg")
    assert same(grid(picture), grid(cropped(0.06, 0.04, 0.09, 0.07)(picture), "WEBP", quality=70))
    other = Image.open(GALLERY / "four-cats-on-a-couch-by-the-sea.jpg").resize(picture.size)
    assert not same(grid(picture), grid(other))


@pytest.mark.parametrize("change", [patched, tinted, cropped(0.5, 0, 0, 0), lambda picture: photo(99)])
def test_a_picture_of_which_a_part_differs_is_another(change: Change) -> None:
    assert not same(grid(photo(1)), grid(change(photo(1))))


def test_an_even_picture_is_like_its_copy_and_unlike_another_colour() -> None:
    grey, green = Image.new("RGB", (90, 60), (90, 90, 90)), Image.new("RGB", (90, 60), (90, 120, 90))
    assert same(grid(grey), grid(grey, "JPEG", quality=60))
    assert not same(grid(grey), grid(green))


def test_a_pair_has_one_answer_in_any_batch() -> None:
    pictures = [photo(seed) for seed in range(4)] + [cropped(0.05, 0, 0.05, 0)(photo(2))]
    grids = np.stack([grid(picture) for picture in pictures])
    ones, others = (found.ravel() for found in np.indices((5, 5)))
    together = are_same(grids, ones, others)
    assert [bool(are_same(grids, ones[[at]], others[[at]])[0]) for at in range(25)] == together.tolist()
    assert {(int(one), int(other)) for one, other in zip(ones[together], others[together], strict=True)} == {
        *((at, at) for at in range(5)),
        (2, 4),
        (4, 2),
    }


def test_no_pairs_have_no_answers() -> None:
    none = np.zeros(0, np.int64)
    assert are_same(np.zeros((0, SIDE, SIDE, 3), np.uint8), none, none).tolist() == []


def test_a_grid_shows_the_whole_picture_upright() -> None:
    wide = Image.new("RGB", (400, 100), (0, 0, 255))
    wide.paste((255, 0, 0), (0, 0, 100, 100))
    assert grid(wide)[:, :15].mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=1)
    assert grid(wide)[:, 17:].mean(axis=(0, 1)) == pytest.approx([0, 0, 255], abs=1)
    turned = grid(wide, "JPEG", quality=95, subsampling=0, exif=orientation(6))  # is shown turned to the right
    assert turned[:13].mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.process
def test_grids_are_made_in_processes() -> None:
    content = encoded(photo(3), "JPEG", quality=80)
    with GridPool() as pool:
        found = pool.grid(content)
        assert not isinstance(found, Refused)
        assert (found == grid(photo(3), "JPEG", quality=80)).all()
        assert isinstance(pool.grid(b"no picture"), Refused)
        assert isinstance(pool.grid(content), np.ndarray)
