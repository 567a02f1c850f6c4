"""Every mode of pixels becomes RGB by its meaning."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridgetower.pictures.decode import decode
from bridgetower.pictures.to_rgb import to_rgb
from tests.pictures import HERE, decoded, encoded, noise


def test_rgb_is_taken_as_it_is() -> None:
    pixels = noise(9, 5)
    np.testing.assert_array_equal(decoded(Image.fromarray(pixels), "PNG"), pixels)


def test_an_icon_with_a_palette() -> None:
    palette = Image.fromarray(noise(16, 16)).convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.asarray(palette.convert("RGB").resize((512, 512), Image.Resampling.NEAREST))
    result = np.asarray(decode(encoded(palette.resize((512, 512), Image.Resampling.NEAREST), "ICNS"), HERE).image)
    assert result.shape[:2] in ((512, 512), (1024, 1024))
    np.testing.assert_array_equal(result[:: result.shape[0] // 512, :: result.shape[1] // 512], expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_and_black_and_white(kind: str) -> None:
    grey = noise(9, 5, 1)
    np.testing.assert_array_equal(decoded(Image.fromarray(grey), kind), np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray(grey > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(decoded(bits, kind), np.repeat(np.where(grey > 127, 255, 0)[..., None], 3, axis=2))


def test_a_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decoded(image, "PNG").tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert decoded(image, "GIF").tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["one index", "alpha per index"])
def test_a_palette_with_transparency_stands_on_white(transparency: Any) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decoded(image, "PNG", transparency=transparency).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_half_transparent_palette_entries_blend_with_white() -> None:
    image = Image.new("P", (1, 1))
    image.putpalette([0, 0, 0])
    [[[value, _, _]]] = decoded(image, "PNG", transparency=b"\x80").tolist()
    assert value == 127


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_blends_with_white(kind: str) -> None:
    pixels = noise(8, 8, 4)
    pixels[..., 3] = np.repeat([0, 85, 170, 255], 2)[:, None]
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decoded(Image.fromarray(pixels), kind, **options), expected, atol=1)


def test_grey_with_alpha_blends_with_white() -> None:
    image = Image.merge("LA", (Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 51)))
    assert decoded(image, "PNG").tolist() == [[[224] * 3]]  # 100 / 5 + 255 * 4 / 5


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_transparent_colour_key_becomes_white(mode: str, key: Any) -> None:
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 50 if mode == "L" else (50, 60, 70))
    rest = [50, 50, 50] if mode == "L" else [50, 60, 70]
    assert decoded(image, "PNG", transparency=key).tolist() == [[[255, 255, 255], rest]]


VALUES_16 = np.array([[0, 128, 129, 255, 256, 257, 32896, 40000, 65535]], dtype=np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_cut(kind: str) -> None:
    expected = np.rint(VALUES_16 / 257)
    result = decoded(Image.fromarray(VALUES_16), kind)
    np.testing.assert_array_equal(result, np.repeat(expected[..., None], 3, axis=2))


def test_16_bits_big_endian() -> None:
    little, big = (decode(order_tiff(VALUES_16, order), HERE).image for order in "<>")
    np.testing.assert_array_equal(np.asarray(little), np.asarray(big))
    assert np.asarray(big)[0, -1].tolist() == [255, 255, 255]


def order_tiff(values: np.ndarray, order: str) -> bytes:
    """The smallest grey TIFF of 16 bits, in either byte order."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    strip = values.astype(f"{order}u2").tobytes()
    tags.append((279, len(strip)))
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        directory += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(strip))
    return header + strip + directory + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # a fraction of white
        ([0.0, 127.0, 255.0], [0, 127, 255]),  # 8 bits
        ([0.0, 32767.5, 65535.0], [0, 128, 255]),  # 16 bits
        ([-1.0, 0.0, 1.0], [0, 128, 255]),  # anything else: least to greatest
        ([1e6, 2e6, 3e6], [0, 128, 255]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([0.0, float("inf"), 0.5], [0, 128, 128]),
        ([float("nan")] * 3, [0, 0, 0]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert image.mode == "F"
    assert decoded(image, "TIFF")[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 127, 255], [0, 127, 255]), ([0, 32896, 65535], [0, 128, 255]), ([-1000, 0, 1000], [0, 128, 255])],
)
def test_whole_numbers_of_32_bits(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    assert decoded(image, "TIFF")[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    """Pure inks on 16 x 16 pixels, so that JPEG has nothing to smear; Pillow writes JPEG's inverted as Adobe does."""
    for ink, colour in [((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))]:
        result = decoded(Image.new("CMYK", (16, 16), ink), kind)
        np.testing.assert_allclose(result, np.broadcast_to(colour, result.shape), atol=2)


def test_lab() -> None:
    result = decoded(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF")
    assert np.all(result >= 250)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "PA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_every_mode_of_the_same_picture_is_the_same_picture(mode: str) -> None:
    grey = Image.new("L", (6, 4))
    grey.paste(255, (3, 0, 6, 4))
    through_rgb = mode in ("P", "PA", "RGBX", "CMYK", "YCbCr", "HSV", "RGBA")
    image = (grey.convert("RGB") if through_rgb else grey).convert("P" if mode == "PA" else mode).convert(mode)
    assert image.mode == mode
    result = to_rgb(image)
    assert result.mode == "RGB"
    np.testing.assert_allclose(np.asarray(result), np.asarray(grey.convert("RGB")), atol=1)


@pytest.mark.parametrize(("mode", "straight"), [("La", "LA"), ("RGBa", "RGBA")])
def test_premultiplied_alpha(mode: str, straight: str) -> None:
    image = Image.new(straight, (1, 1), (100,) * (len(straight) - 1) + (51,))
    np.testing.assert_allclose(np.asarray(to_rgb(image.convert(mode))), 224, atol=2)
