"""Large JPEG files are decoded at a fraction of their size, where that is enough."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from benchmarks.pictures import photo
from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode
from tests.pictures import HERE, encoded, noise, orientation, reason, segment


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

    frame = segment(0xFFC3, struct.pack(">BHHBBBB", 8, *grey.shape, 1, 1, 0x11, 0))
    codes = segment(0xFFC4, bytes([0, 0, 0, 0, 9, *[0] * 12]) + bytes(range(9)))
    return b"\xff\xd8" + frame + codes + segment(0xFFDA, bytes([1, 1, 0, 1, 0, 0])) + scan + b"\xff\xd9"


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
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
