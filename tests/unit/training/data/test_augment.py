"""Augmentation: what may change, what may not, and which pictures are never mirrored."""

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower.training.data.augment import augmented, may_flip

SIDE = 40


def many(rgb: npt.NDArray[np.uint8], *, flips: bool, number: int = 200) -> list[npt.NDArray[np.uint8]]:
    seeds = [np.random.default_rng([7, number]) for number in range(number)]
    made = [augmented(rgb.tobytes(), SIDE, seed, flips=flips) for seed in seeds]
    return [np.frombuffer(one, np.uint8).reshape(SIDE, SIDE, 3) for one in made]


@pytest.mark.parametrize("flips", [False, True])
def test_a_picture_is_mirrored_half_of_the_time_where_it_may_be_and_else_never(flips: bool) -> None:
    half = np.full((SIDE, SIDE, 3), 20, np.uint8)
    half[:, SIDE // 2 :] = 200  # the light side is the right one
    mirrored = [int(one[:, : SIDE // 4].mean()) > 100 for one in many(half, flips=flips)]
    assert sum(mirrored) == 0 if not flips else 70 < sum(mirrored) < 130


def test_a_crop_keeps_nine_tenths_of_the_side_and_leaves_none_of_the_corners_for_good() -> None:
    ramp = np.tile(np.linspace(40, 200, SIDE, dtype=np.uint8)[None, :, None], (SIDE, 1, 3))
    spans = [int(one[20, -1, 0]) - int(one[20, 0, 0]) for one in many(ramp, flips=False)]
    assert min(spans) >= 0.85 * 0.9 * 0.9 * 160 and max(spans) <= 1.25 * 160
    corners = np.full((SIDE, SIDE, 3), 20, np.uint8)
    corners[:3, :3] = 255
    bright = [one[:5, :5].max() > 100 for one in many(corners, flips=False)]
    assert 0 < sum(bright) < 200


def test_brightness_and_contrast_change_by_a_tenth_at_most_and_colours_keep_their_balance() -> None:
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    values = [int(one.mean()) for one in many(grey, flips=False)]
    assert 90 <= min(values) < 93 and 107 < max(values) <= 110
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 200
    assert all(one[..., 0].min() > one[..., 1].max() + 100 for one in many(red, flips=False))


def test_a_black_frame_and_black_bars_stay_black_and_where_they_are() -> None:
    framed = np.zeros((SIDE, SIDE, 3), np.uint8)
    inside = (slice(9, SIDE - 9), slice(3, SIDE - 3))  # bars of a wide picture, and the frame
    framed[inside] = np.random.default_rng(0).integers(60, 200, framed[inside].shape)
    for one in many(framed, flips=True, number=50):
        assert one[inside].min() > 0
        one = one.copy()
        one[inside] = 0
        assert not one.any()
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert not np.any(many(black, flips=True, number=2))


def test_the_same_draw_makes_the_same_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    first, second = many(noise, flips=True, number=5), many(noise, flips=True, number=5)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(
    "caption",
    [
        "a cat to the left of a dog",
        "Turn RIGHT here",
        "the rightmost chair",
        "a hand goes counter-clockwise",
        'a sign that says "no"',
        "a stop sign",
        "the number on his back",
        "bus 52",
        "a T-shirt with letters on it",
        "words are written on the wall",
        "a crate labelled fragile",
        "the west tower",
        "a shop with 'open' on its door",
        "a lefthand glove",
        "the northeast corner",
        "the eastern wall",
        "a southwest view",
        "a westbound train",
        "a lefty batter",
        "the port side of a ship",
        "it is two o'clock",
        "it is two o’clock",
        "a quarter past three",
        "a bus named Desire",
        "a banner that states peace",
        "a poster printed in Greek",
        "a billboard for Coca-Cola",
        "a handwritten note",
        "a dog, and on its L a cat",
        "links ein Hund",
        "eine Katze im rechten Fenster",
        "un chien a gauche",
        "un perro a la izquierda",
        "el gato de la derecha",
        "un cane a sinistra",
        "um gato ao lado direito",
        "собака слева",
        "左边有一只猫",
        "en katt till ho\u0308ger",
    ],
)
def test_a_picture_whose_caption_tells_sides_or_signs_is_never_mirrored(caption: str) -> None:
    assert not may_flip(["a dog", caption])


@pytest.mark.parametrize(
    "caption",
    [
        "two dogs on a couch",
        "a bright leftover meal",
        "an upright piano, a playwright and a frightened beast",
        "a feast at Easter, at least",
        "the lowest and the newest of the slowest cars",
        "it cost nothing — a dog’s life…",
        "the dog's bone, the dogs' bones",
        "signature dish",
        "a swordfish",
    ],
)
def test_other_captions_allow_it(caption: str) -> None:
    assert may_flip([caption])
