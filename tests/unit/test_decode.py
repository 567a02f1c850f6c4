"""Real files of every kind: upright, RGB by meaning, and one clear reason for each that cannot be had."""

import os
import socket
import struct
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from benchmarks.pictures import photo
from bridgetower import decode as decode_module
from bridgetower.decode import MAX_PIXELS, Decoded, decode, read, to_rgb
from bridgetower.errors import InputError, PictureError

HERE = Path("/photos/picture.jpg")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image: Image.Image, kind: str, **options: Any) -> np.ndarray:
    return np.asarray(decode(encoded(image, kind, **options), HERE).image)


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(width + height).integers(0, 256, shape, dtype=np.uint8)


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(PictureError) as caught:
        decode(data, HERE, **options)
    assert caught.value.path == HERE
    assert str(caught.value) == f"{HERE}: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    assert "object at 0x" not in str(caught.value)
    return caught.value.reason


# --- upright


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_file_with_an_orientation_gives_what_its_rotated_pixels_give(kind: str, value: int) -> None:
    seen = noise(7, 4)  # what a person sees: 7 wide, 4 high
    stored = {
        1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1],
        5: seen.transpose(1, 0, 2), 6: np.rot90(seen, 1),
        7: np.rot90(seen, 2).transpose(1, 0, 2), 8: np.rot90(seen, -1),
    }[value]  # fmt: skip
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=orientation(value), **options)
    result = decode(data, HERE)
    assert (result.width, result.height) == result.image.size == (7, 4)
    np.testing.assert_array_equal(np.asarray(result.image), seen)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_phone_photo_is_upright(value: int) -> None:
    data = encoded(Image.fromarray(noise(40, 24)), "JPEG", exif=orientation(value))
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert expected is not None
    np.testing.assert_array_equal(np.asarray(decode(data, HERE).image), np.asarray(expected))


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    pixels = noise(7, 4)
    np.testing.assert_array_equal(decoded(Image.fromarray(pixels), "PNG", exif=orientation(value)), pixels)


# --- the time


@pytest.mark.parametrize(
    ("written", "zone", "expected"),
    [
        ("2021:06:05 04:03:02", None, 1622865782),  # what the clock showed, as if in UTC
        ("2021:06:05 04:03:02", "+02:00", 1622865782),
        ("2021:06:05 04:03:02", "-05:30", 1622865782),
        ("2021:06:05 04:03:02", "   :  ", 1622865782),
        ("1969:12:31 23:59:59", None, -1),
        ("0000:00:00 00:00:00", None, None),
        ("    :  :     :  :  ", None, None),
        ("yesterday", None, None),
        ("2021:06:05 04:03:02", "+99:99", 1622865782),
        (None, None, None),
    ],
)
def test_the_time_a_picture_was_taken(written: str | None, zone: str | None, expected: int | None) -> None:
    exif = orientation(6)
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    if written:
        tags[ExifTags.Base.DateTimeOriginal] = written
    if zone:
        tags[ExifTags.Base.OffsetTimeOriginal] = zone
    exif[ExifTags.Base.DateTime] = "2030:01:01 00:00:00"  # of the last change: not when it was taken
    result = decode(encoded(Image.new("RGB", (6, 4)), "JPEG", exif=exif), HERE)
    assert result.taken_at == expected
    assert result.image.size == (4, 6)


def test_no_exif_no_time() -> None:
    assert decode(encoded(Image.new("RGB", (6, 4)), "PNG"), HERE).taken_at is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40]
)
def test_a_damaged_exif_block_costs_nothing_but_itself(kind: str, block: bytes) -> None:
    result = decode(encoded(Image.new("RGB", (6, 4), "red"), kind, exif=block), HERE)
    assert result.image.size == (6, 4)
    assert result.taken_at is None


# --- every mode, by its meaning


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


# --- moving pictures


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_stands_for_a_moving_picture(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.asarray(decode(data, HERE).image)[4, 4].tolist() == [255, 0, 0]


# --- what a file is called does not matter


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "AVIF"])
def test_a_file_is_read_as_what_it_is(kind: str) -> None:
    result = decode(encoded(Image.new("RGB", (32, 32), "white"), kind), Path("/photos/wrong.jpg"))
    assert result.image.mode == "RGB"
    assert result.image.size == (32, 32)
    assert np.asarray(result.image).min() >= 250


@pytest.mark.parametrize("data", [b"two cats on a couch\n" * 20, b"\0" * 4096, b"%PDF-1.7\n", b"<svg></svg>", b"\xff"])
def test_what_is_no_picture_is_named_so(data: bytes) -> None:
    assert reason(data) == "not a picture, or of an unknown kind"


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the name says: Pillow would hand the content to Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    assert "not a picture" in reason(encoded(Image.new("RGB", (8, 8)), "EPS"))


# --- damage


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
def test_a_truncated_file_is_refused(kind: str, kept: float) -> None:
    data = encoded(Image.fromarray(noise(60, 40)), kind)
    reason(data[: max(1, int(len(data) * kept))])


def test_truncation_is_named() -> None:
    for kind in ("JPEG", "PNG", "BMP"):
        data = encoded(Image.fromarray(noise(60, 40)), kind)
        assert reason(data[: len(data) // 2]) == "the file is truncated"


def test_an_empty_file() -> None:
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "TGA", "ICO", "PSD", "DDS"])
def test_random_damage_never_escapes_as_anything_else(kind: str) -> None:
    """Flip bytes: the result is a picture or a PictureError, no other exception, no warning (they are errors here)."""
    samples: dict[str, bytes] = {"PSD": b"8BPS\0\x01" + b"\0" * 6 + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + b"\0" * 99}
    data = samples.get(kind) or encoded(Image.fromarray(noise(24, 16)), kind)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] = rng.integers(256)
        try:
            result = decode(bytes(damaged), HERE, max_pixels=1_000_000)
        except PictureError:
            continue
        assert result.image.mode == "RGB"


# --- size


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large, in 60 bytes."""
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    assert reason(png_header(60_000, 50_000)) == "3,000 megapixels, more than the limit of 179"


def test_the_limit_may_be_lowered_and_is_exact() -> None:
    data = encoded(Image.new("1", (2000, 1200)), "PNG")
    assert decode(data, HERE, max_pixels=2_400_000).width == 2000
    assert "limit" in reason(data, max_pixels=2_399_999)
    assert reason(data, max_pixels=500_000) == "2.4 megapixels, more than the limit of 0.5"
    assert "limit of 179" in reason(png_header(60_000, 50_000), max_pixels=10**12)


def test_one_threshold_where_pillow_has_two() -> None:
    """From half of the limit on Pillow warns: nothing of that is to be seen."""
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) == MAX_PIXELS
    data = png_header(12_000, 10_000)
    assert "limit" not in reason(data)  # past the header, where the pixels are missing
    assert "limit" in reason(data, max_pixels=100_000_000)


# --- a fraction of the size, where that is enough


@pytest.mark.parametrize(
    ("min_side", "size"),
    [(1, (51, 38)), (37, (51, 38)), (38, (101, 76)), (75, (101, 76)), (76, (201, 151)), (151, (201, 151))],
)
def test_a_large_jpeg_keeps_what_is_asked_for(min_side: int, size: tuple[int, int]) -> None:
    result = decode(encoded(Image.fromarray(noise(401, 302)), "JPEG"), HERE, min_side=min_side)
    assert result.image.size == size
    assert (result.width, result.height) == (401, 302)


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": "4:4:4"}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_fraction_of_the_size_shows_the_same(mode: str, options: dict[str, Any]) -> None:
    image = photo(1, 403, 301).convert(mode)
    data = encoded(image, "JPEG", quality=95, **options)
    full, small = decode(data, HERE), decode(data, HERE, min_side=40)
    assert small.image.mode == "RGB"
    assert small.image.size == (101, 76)
    expected = full.image.resize((100, 75), Image.Resampling.BOX, box=(0, 0, 400, 300))
    found = np.asarray(small.image)[:75, :100].astype(int)
    assert np.abs(found - np.asarray(expected)).max() <= 12
    assert np.abs(found - np.asarray(expected)).mean() < 2  # most of it from chroma at half the resolution


@pytest.mark.parametrize("value", range(1, 9))
def test_a_fraction_of_the_size_is_upright_and_says_where_the_picture_ends(value: int) -> None:
    """Whichever edge has the pixels that belong to the picture in part: within its box it lies on the whole picture."""
    ramps = [np.linspace(0, 255, 409)[None].repeat(305, 0), np.linspace(0, 255, 305)[:, None].repeat(409, 1)]
    image = Image.fromarray(np.stack([*ramps, np.zeros((305, 409))], axis=2).astype(np.uint8))
    data = encoded(image, "JPEG", quality=95, exif=orientation(value))
    full, small = decode(data, HERE), decode(data, HERE, min_side=38)
    assert (small.width, small.height) == full.image.size == ((409, 305) if value <= 4 else (305, 409))
    assert small.image.size == ((52, 39) if value <= 4 else (39, 52))

    def seen(image: Image.Image, box: tuple[float, float, float, float] | None) -> np.ndarray:
        return np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, box=box)).astype(int)

    whole = seen(full.image, None)
    assert np.abs(seen(small.image, small.box) - whole).max() <= 2
    assert np.abs(seen(small.image, None) - whole).max() > 3


def test_the_time_is_kept_at_a_fraction_of_the_size() -> None:
    exif = orientation(6)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:06:05 04:03:02"
    result = decode(encoded(Image.new("RGB", (640, 480)), "JPEG", exif=exif), HERE, min_side=50)
    assert (result.image.size, result.taken_at) == ((60, 80), 1622865782)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000"])
def test_other_formats_are_decoded_in_full(kind: str) -> None:
    data = encoded(Image.fromarray(noise(320, 160)), kind)
    full, asked = decode(data, HERE), decode(data, HERE, min_side=10)
    assert (full.box, asked.box) == (None, None)
    np.testing.assert_array_equal(np.asarray(asked.image), np.asarray(full.image))


def test_a_small_jpeg_is_decoded_in_full() -> None:
    data = encoded(Image.fromarray(noise(320, 160)), "JPEG")
    full, asked = decode(data, HERE), decode(data, HERE, min_side=81)
    assert (full.box, asked.box) == (None, None)
    np.testing.assert_array_equal(np.asarray(asked.image), np.asarray(full.image))


def test_several_pictures_in_one_jpeg() -> None:
    """MPO, as phones write it."""
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green")]
    result = decode(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]), HERE, min_side=10)
    assert (result.image.size, result.width, result.height) == ((16, 12), 64, 48)
    np.testing.assert_allclose(np.asarray(result.image), np.broadcast_to((255, 0, 0), (12, 16, 3)), atol=2)


def test_a_lossless_jpeg_is_decoded_in_full() -> None:
    """libjpeg decodes it in full whatever is asked for; Pillow would make room for less."""
    grey = noise(96, 64, 1)
    data = lossless_jpeg(grey)
    for content in (data, data[:2] + b"\xff\xe1\x00\x06\xff\xc0\x00\x00" + data[2:]):  # not what the EXIF says
        result = decode(content, HERE, min_side=8)
        np.testing.assert_array_equal(np.asarray(result.image), np.repeat(grey[..., None], 3, axis=2))


def lossless_jpeg(grey: np.ndarray) -> bytes:
    """A JPEG file that predicts each pixel from its left neighbour (the first of a row from the one above)."""
    values = grey.astype(int)
    predicted = np.roll(values, 1, axis=1)
    predicted[1:, 0], predicted[0, 0] = values[:-1, 0], 128
    bits = ""
    for difference in (values - predicted).flat:
        size = int(abs(difference)).bit_length()  # its code: these 4 bits, then `size` bits of the difference
        bits += f"{size:04b}" + (f"{difference + (difference < 0) * (2**size - 1):0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    frame = segment(0xFFC3, struct.pack(">BHHBBBB", 8, *grey.shape, 1, 1, 0x11, 0))
    codes = segment(0xFFC4, bytes([0, 0, 0, 0, 9, *[0] * 12]) + bytes(range(9)))
    return b"\xff\xd8" + frame + codes + segment(0xFFDA, bytes([1, 1, 0, 1, 0, 0])) + scan + b"\xff\xd9"


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_at_any_size(kept: float, progressive: bool) -> None:
    data = encoded(photo(3, 400, 300), "JPEG", progressive=progressive)
    data = data[: int(len(data) * kept)]
    assert reason(data, min_side=37) == reason(data, min_side=75) == reason(data)


def test_damage_costs_the_same_at_any_size() -> None:
    data = encoded(photo(4, 200, 150), "JPEG")
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(0, 700, 2):
            damaged[position] = rng.integers(256)
        outcomes = []
        for min_side in (None, 18, 75):
            try:
                result = decode(bytes(damaged), HERE, max_pixels=1_000_000, min_side=min_side)
                outcomes.append(f"{result.width} x {result.height}")
            except PictureError as error:
                outcomes.append(error.reason)
        assert len(set(outcomes)) == 1


def test_the_limit_is_that_of_the_file() -> None:
    data = encoded(Image.new("RGB", (2000, 1200)), "JPEG")
    assert "2.4 megapixels" in reason(data, max_pixels=2_399_999, min_side=100)


# --- threads and global state


def test_pillow_and_the_filters_of_warnings_are_left_as_they_were() -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    decode(encoded(Image.new("RGB", (8, 8)), "PNG"), HERE)
    reason(b"nothing")
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_warnings_stay_inside_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads decode files that Pillow warns about while warnings are errors; the filter outlives none of them."""
    data = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    barrier = threading.Barrier(8, timeout=10)
    genuine = Image.Image.getexif

    def noisy(self: Image.Image) -> Image.Exif:
        exec(
            compile("import warnings; warnings.warn('Corrupt EXIF data')", "plugin", "exec"), {"__name__": "PIL.Plugin"}
        )
        return genuine(self)

    monkeypatch.setattr(Image.Image, "getexif", noisy)
    before = list(warnings.filters)

    def work(_: int) -> Decoded:
        barrier.wait()
        return [decode(data, HERE) for _ in range(20)][-1]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert all(result.image.getpixel((0, 0)) == (255, 0, 0) for result in results)
    assert list(warnings.filters) == before


def test_a_large_picture_that_pillow_warns_about_decodes_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(data)).close()
    assert decode(data, HERE).width == 10


# --- reading


def test_reads_the_bytes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new\nline.jpg"
    path.write_bytes(b"content")
    assert read(path) == b"content"


def read_reason(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read(path)
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 6
    return caught.value.reason


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    assert read_reason(tmp_path / "gone.jpg") == "no such file"
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert read_reason(tmp_path / "link.jpg") == "no such file"
    assert read_reason(tmp_path / "nul\0.jpg") == "no such file"


def test_a_folder_is_not_a_picture(tmp_path: Path) -> None:
    assert read_reason(tmp_path) == "not a file but a folder"


def test_a_pipe_or_socket_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "pipe" in read_reason(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert "socket" in read_reason(Path("socket.jpg"))
    assert "device" in read_reason(Path("/dev/zero"))


def failing(error: OSError) -> Callable[..., int]:
    def opener(path: str, flags: int) -> int:
        raise error

    return opener


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (FileNotFoundError(2, "No such file"), "no such file"),  # vanished between the two calls
    ],
)
def test_a_file_that_cannot_be_read(
    error: OSError, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr(decode_module, "_without_waiting", failing(error))
    assert read_reason(path) == expected


def test_a_file_that_changes_between_looking_and_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    looked = path.stat()
    monkeypatch.setattr(Path, "stat", lambda self: looked)
    path.write_bytes(b"abcdef" * 1000)
    assert read(path) == b"abc"
    path.unlink()
    os.mkfifo(path)
    assert read(path) == b""  # and no waiting


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert "Permission denied" in read_reason(path)


def test_a_file_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(decode_module.MAX_BYTES + 1)  # sparse: takes no room
    monkeypatch.setattr(decode_module, "_without_waiting", failing(OSError("read")))
    assert read_reason(path) == "2.0 GB, more than the limit of 2 GB"
