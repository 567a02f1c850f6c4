"""Pictures are upright, whatever way they lie in their file, and have the time at which they were taken."""

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from bridgetower.pictures.decode import decode
from tests.pictures import HERE, decoded, encoded, noise, orientation

# --- upright


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
