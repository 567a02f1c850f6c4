"""JPEG XL pictures, each made from an array and held against that array."""

import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pylibjxl
import pytest
from PIL import ExifTags, Image

from bridgetower.errors import PixelLimitError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.extra import Extra
from bridgetower.pictures.extras.sniff import extra_for
from tests.pictures import HERE, encoded, orientation, reason, scene, take_away
from tests.unit.pictures.test_colour import (
    SRGB_CURVE,
    curve,
    hlg_light,
    in_srgb,
    matrix_profile,
    pq_light,
    shown,
    srgb_level,
    srgb_light,
)
from tests.unit.pictures.test_raw import TURNED


def jxl(picture: np.ndarray, **options: Any) -> bytes:
    return bytes(pylibjxl.encode(np.ascontiguousarray(picture), **({"lossless": True} | options)))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, HERE).image).astype(int)


@pytest.mark.parametrize("size", [(64, 48), (301, 199)])
def test_pixels_are_those_of_the_array(size: tuple[int, int]) -> None:
    picture = scene(*size)
    assert np.array_equal(pixels(jxl(picture)), picture)
    assert np.abs(pixels(jxl(picture, lossless=False, distance=0.5)) - picture).max() <= 3


def test_grey() -> None:
    grey = scene(64, 48)[..., :1]
    assert np.array_equal(pixels(jxl(grey)), np.repeat(grey, 3, axis=2))


def test_transparency_is_put_over_white() -> None:
    picture, alpha = scene(96, 64), np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    over_white = picture * (alpha[..., None] / 255) + 255 - alpha[..., None]
    assert np.abs(pixels(jxl(np.dstack([picture, alpha]))) - over_white).max() <= 1


def test_grey_with_transparency() -> None:
    y, x = np.mgrid[0:8, 0:8]
    grey, alpha = 32 * x + 8, 36 * y
    over_white = grey * (alpha / 255) + 255 - alpha
    assert np.abs(pixels(bytes.fromhex(GREY_ALPHA)) - over_white[..., None]).max() <= 1


@pytest.mark.parametrize("value", range(1, 9))
def test_a_jpeg_in_jpeg_xl_is_turned_once(value: int) -> None:
    """libjxl turns by the codestream; the EXIF repeats the orientation."""
    picture = scene(96, 64)
    exif = orientation(value)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2018:07:31 14:52:07"
    jpeg = encoded(Image.fromarray(picture), "JPEG", quality=95, subsampling=0, exif=exif)
    found = decode(pylibjxl.jpeg_to_jxl(jpeg), HERE)
    assert np.abs(np.asarray(found.image) - TURNED[value](picture.astype(int))).max() <= 5
    assert found.taken_at == 1533048727


def test_an_orientation_in_the_exif_alone_is_not_applied() -> None:
    """The codestream rules, as in every program on libjxl."""
    picture = scene(96, 64)
    assert np.array_equal(pixels(jxl(picture, exif=orientation(6).tobytes().removeprefix(b"Exif\0\0"))), picture)


@pytest.mark.parametrize("lost", [1, 0.1, 0.5, 0.9, 0.99])
def test_a_cut_file_is_refused(lost: float) -> None:
    data = jxl(scene(301, 199), lossless=False)
    assert reason(data[: -int(lost if lost >= 1 else lost * len(data))]) == "truncated or damaged"


# --- animations


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_of_an_animation_the_first_frame_that_is_not_blank_is_read(channels: int, kind: str) -> None:
    """Also where the frames are of more than 8 bits, and whatever their number."""
    picture = np.dstack([scene(64, 48), np.full((48, 64), 255, np.uint8)])[..., :channels]
    blank, last = np.full_like(picture, 255), picture[::-1].copy()
    scale = np.float64({"u1": 1, "u2": 257, "f4": 1 / 255}[kind])
    for before in (0, 1, 3):
        frames = (np.stack([*[blank] * before, picture, last, blank]) * scale).astype(kind)
        data = bytes(imagecodecs.jpegxl_encode(frames.squeeze(), photometric="rgb" if channels > 1 else None))
        level = picture[..., :3] / 255
        expected = (level if kind == "u1" else srgb_level(level)) * 255  # imagecodecs writes the others as linear
        np.testing.assert_allclose(pixels(data), np.broadcast_to(expected, (48, 64, 3)), atol=1)


def test_the_first_frame_needs_no_other_library(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(imagecodecs.jpegxl_encode(np.stack([scene(64, 48), scene(64, 48)[::-1]])))
    take_away(Extra.DEEP, monkeypatch)
    assert np.array_equal(pixels(data), scene(64, 48))


def test_of_an_animation_without_anything_to_see_the_first_frame_is_read() -> None:
    frames = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (200, 100, 0)])
    assert (pixels(bytes(imagecodecs.jpegxl_encode(frames))) == 200).all()


def test_an_animation_of_another_encoder() -> None:
    """Each frame of a file by cjxl is of one colour: 50, 100 and 200."""
    assert np.array_equal(pixels(bytes.fromhex(ANIMATION)), np.full((8, 8, 3), 50))


def test_only_a_hundred_frames_of_200_megapixels_together_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    blank, picture = np.zeros_like(scene(64, 48)), scene(64, 48)
    data = bytes(imagecodecs.jpegxl_encode(np.stack([blank, blank, picture])))
    assert np.array_equal(pixels(data), picture)
    monkeypatch.setattr("bridgetower.pictures.to_rgb._MOST_PIXELS", 2 * 64 * 48)
    assert np.array_equal(pixels(data), blank)


def test_a_cut_animation_is_refused() -> None:
    data = bytes(imagecodecs.jpegxl_encode(np.stack([scene(64, 48)] * 2)))
    assert reason(data[: len(data) // 3]) == "truncated or damaged"


# --- colours


SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sRGB": lambda level: level * 255,
    "Display P3": lambda level: in_srgb(srgb_light(level), "P3"),
    "BT.2020": lambda level: in_srgb(srgb_light(level), "BT.2020"),
    "PQ": lambda level: shown(pq_light(level)),
    "HLG": lambda level: shown(hlg_light(level)),
    "linear": lambda level: in_srgb(level, "sRGB"),
    "linear BT.2020": lambda level: in_srgb(level, "BT.2020"),
    "Rec. 709": lambda level: level * 255,  # as in every format
    "gamma 2": lambda level: in_srgb(level**2, "sRGB"),
    "P3 of gamma 2.2": lambda level: in_srgb(level**2.2, "P3"),
    "gamma of cinemas": lambda level: in_srgb(level**2.6, "sRGB"),
}


@pytest.mark.parametrize("colours", SPACES)
@pytest.mark.parametrize("in_boxes", [False, True])
def test_colours_of_the_header_are_applied(colours: str, in_boxes: bool) -> None:
    """pylibjxl does not tell these, and returns the pixels as they are."""
    y, x = np.mgrid[0:8, 0:8]
    picture = np.stack([x * 32, y * 32, (x + y) * 16], axis=-1)
    data = bytes.fromhex(COLOURS[colours] + PIXELS)
    if in_boxes:
        box = struct.pack(">I4s", 8 + len(data), b"jxlc") + data
        data = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl " + box
    np.testing.assert_allclose(pixels(data), SPACES[colours](picture / 255), atol=1)


def test_another_white_becomes_that_of_srgb() -> None:
    """White of equal energy, linear: greys stay grey."""
    found = pixels(bytes.fromhex(COLOURS["linear, white E"] + PIXELS))
    np.testing.assert_allclose(found[4, 4], srgb_level(np.full(3, 128 / 255)) * 255, atol=1)


def test_grey_of_linear_light() -> None:
    y, x = np.mgrid[0:8, 0:8]
    level = (x * 32 + y) / 255
    found = pixels(bytes.fromhex(LINEAR_GREY))
    np.testing.assert_allclose(found, np.repeat(srgb_level(level)[..., None] * 255, 3, axis=2), atol=1)


@pytest.mark.parametrize("lossless", [True, False])
def test_linear_light_of_16_bits(lossless: bool) -> None:
    """pylibjxl returns 8 bits, whose darkest levels lie 13 levels of sRGB apart."""
    light = scene(120, 80) / 255
    options: dict[str, Any] = {} if lossless else {"distance": 0.5}
    data = bytes(imagecodecs.jpegxl_encode(np.rint(light * 65535).astype("u2"), lossless=lossless, **options))
    difference = np.abs(pixels(data) - in_srgb(light, "sRGB"))
    assert np.percentile(difference, 99) <= (2 if lossless else 4)
    assert not lossless or difference.max() <= 6


@pytest.mark.parametrize(("primaries", "light"), [("P3", srgb_light), ("Adobe", lambda level: level ** (563 / 256))])
def test_a_profile(primaries: str, light: Callable[[np.ndarray], np.ndarray]) -> None:
    """Of a lossy file libjxl returns linear light of sRGB, beside the profile of the original."""
    picture = np.full((8, 8, 3), (200, 60, 60), np.uint8)
    profile = matrix_profile(primaries, SRGB_CURVE if primaries == "P3" else curve(563 / 256))
    expected = np.broadcast_to(in_srgb(light(picture / 255), primaries), (8, 8, 3))
    np.testing.assert_allclose(pixels(jxl(picture, icc=profile)), expected, atol=1.5)
    np.testing.assert_allclose(pixels(bytes.fromhex(LOSSY[primaries])), expected, atol=3)


def test_cmyk_is_refused() -> None:
    """The black is an extra channel, which pylibjxl drops."""
    assert reason(bytes.fromhex(CMYK)) == "a JPEG XL in CMYK, which is not read"


def test_premultiplied_transparency_is_made_straight() -> None:
    y, x = np.mgrid[0:8, 0:8]
    picture, alpha = np.stack([x * 32, y * 32, (x + y) * 16], axis=-1), 36 * y[..., None]
    over_white = picture * (alpha / 255) + 255 - alpha
    assert np.abs(pixels(bytes.fromhex(PREMULTIPLIED)) - over_white).max() <= 2


def test_the_limit_of_pixels_is_asked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pylibjxl.decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(PixelLimitError, match=r"0\.06 megapixels, more than the limit of 0\.05"):
        decode(jxl(scene(301, 199)), HERE, max_pixels=50_000)


def test_the_kind_is_told_by_content() -> None:
    assert extra_for(jxl(scene(8, 8))) is Extra.JXL
    assert extra_for(b"\0\0\0\x0cJXL \r\n\x87\n") is Extra.JXL


# By cjxl 0.7, lossless, as pylibjxl writes neither: three frames of 8 x 8 pixels, and grey with transparency.
ANIMATION = (
    "ff0a41040158505c120808a002000058004b188b15c249c2e505240088644d00000000000000000808a002000058004b188b"
    "15c24902e605240008c93600000000000000000808a042000058004b188b15c249c2e505240018925c0000000000000000"
)
GREY_ALPHA = "ff0a41c0a2b8100808100094004b386998ca83f72b288818918e188317c6e009f341ff63012cff000010638b004212288c24"

# By cjxl 0.7 -d 0 -x color_space=...: one drawing of 8 x 8 pixels in several colour spaces; header, then pixels.
COLOURS = {
    "sRGB": "ff0a41402408020100b400",
    "Display P3": "ff0a41404026370208020100b400",
    "BT.2020": "ff0a4140401e370208020100b400",
    "PQ": "ff0a41041090478f381c000000000208020100b400",
    "HLG": "ff0a410410906720d063000000000808020100b400",
    "linear": "ff0a414040d12208020100b400",
    "linear BT.2020": "ff0a4140401e2d0208020100b400",
    "linear, white E": "ff0a414080182d0208020100b400",
    "Rec. 709": "ff0a414040290208020100b400",
    "gamma 2": "ff0a414040055a628a08020100b400",
    "P3 of gamma 2.2": "ff0a41404066d7ada20808020100b400",
    "gamma of cinemas": "ff0a414040f12308020100b400",
}
PIXELS = "4b386998ca83f72b28881891ee188389f50186fef5740110f90f008cafc0c7e18f9fff0def8f0c7b0080960000"
LINEAR_GREY = "ff0a414050b4080802010070004b386998ca83f72b28488a0ba40080d318638c310000000000000000"

# As GREY_ALPHA, in colour, of values that were multiplied with alpha; ten bits of the header were added to say so.
PREMULTIPLIED = (
    "ff0a41c000088a0b010808100088014b189bed4e41c104056826620c068818d4c818196992a3b21d49e900eaf1c84782bcb0d4"
    "21647909548aa4ffad8842705a04d7d60e28b88b4a0bd4da979532024bab9ce4b96b417a9c2a433f69c69df87d466d0b7be4b1"
    "521007441101cc10fc0901"
)
# As GREY_ALPHA, in colour; ten bits of the header say that the fourth channel is the black of CMYK.
CMYK = (
    "ff0a41c02800505c080808100088014b189bed4e41c104056826620c068818d4c818196992a3b21d49e900eaf1c84782bcb0d4"
    "21647909548aa4ffad8842705a04d7d60e28b88b4a0bd4da979532024bab9ce4b96b417a9c2a433f69c69df87d466d0b7be4b1"
    "521007441101cc10fc0901"
)

# By cjxl 0.7 -d 0.1 from PNG files of one colour, (200, 60, 60), with a profile. It wrote one of them as primaries.
LOSSY = {
    "Adobe": (
        "ff0a41400a9d1e90300f10cd1ccd21e0d66da9e6930fb64c36ee22d853b30caa0c34bb5a8fa1d3f8167c2df4a7c51eabe391e936"
        "c219e47e52e2227c96a64140cbe8a7c29a8d0cec23be6cbcca4e7ebc0600138800e000ffffaa020050a132cab8c1cbb99e2f3f74"
        "584cdbb8ced056db1696248a8c639374028724b1226c5c80000c06006030735b66df1d085a4902"
    ),
    "P3": (
        "ff0a4140829033a3a28897a01c3425ef9b105e21a425011f4c3808c48500138800e000ffffaa020050a132cab8c1cbb99e2f3f74"
        "584cdbb8ced056db1696248a8c639374028724b1206c5c8000cc00006098b9c6a3ef0682569200"
    ),
}
