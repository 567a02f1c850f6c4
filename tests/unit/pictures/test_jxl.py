"""JPEG XL pictures, each made from an array and held against that array."""

import struct
from typing import Any

import numpy as np
import pylibjxl
import pytest
from PIL import ExifTags, Image

from bridgetower.errors import PixelLimitError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.extra import Extra
from bridgetower.pictures.extras.sniff import extra_for
from tests.pictures import HERE, encoded, orientation, reason, scene
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


def test_an_animation_is_refused() -> None:
    assert reason(bytes.fromhex(ANIMATION)) == "an animated JPEG XL, of which only the last frame could be read"


@pytest.mark.parametrize("said", ["HDR (PQ)", "HDR (HLG)", "linear light"])
@pytest.mark.parametrize("in_boxes", [False, True])
def test_colours_that_would_come_out_wrong_are_refused(said: str, in_boxes: bool) -> None:
    data = bytes.fromhex(COLOURS[said] + PIXELS)
    if in_boxes:
        box = struct.pack(">I4s", 8 + len(data), b"jxlc") + data
        data = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl " + box
    assert reason(data) == f"a JPEG XL in {said}, which is not converted"


@pytest.mark.parametrize("colours", ["sRGB", "Display P3", "Rec. 709", "gamma"])
def test_other_colours_are_read_as_they_are(colours: str) -> None:
    y, x = np.mgrid[0:8, 0:8]
    picture = np.stack([x * 32, y * 32, (x + y) * 16], axis=-1)
    assert np.array_equal(pixels(bytes.fromhex(COLOURS[colours] + PIXELS)), picture)


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
    "HDR (PQ)": "ff0a41041090478f381c000000000208020100b400",
    "HDR (HLG)": "ff0a410410906720d063000000000808020100b400",
    "linear light": "ff0a414040d12208020100b400",
    "Rec. 709": "ff0a414040290208020100b400",
    "gamma": "ff0a414040c5db2a8208020100b400",
}
PIXELS = "4b386998ca83f72b28881891ee188389f50186fef5740110f90f008cafc0c7e18f9fff0def8f0c7b0080960000"
