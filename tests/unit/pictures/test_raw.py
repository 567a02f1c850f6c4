"""Raw files: synthetic DNG by another writer, held against the picture that the stated recipe gives."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridgetower.errors import PixelLimitError
from bridgetower.pictures.decode import Decoded, decode
from bridgetower.pictures.extras import raw
from bridgetower.pictures.extras.extra import Extra
from bridgetower.pictures.extras.sniff import extra_for
from tests.pictures import HERE, encoded, orientation, reason, scene
from tests.raws import developed, dng, linear, mosaic

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}  # stored -> upright


def pixels(data: bytes, **options: Any) -> np.ndarray:
    return np.asarray(decode(data, HERE, **options).image).astype(int)


def preview(width: int, height: int, exif: Image.Exif | None = None) -> bytes:
    """A preview that differs from the data of the sensor: its negative."""
    image = Image.fromarray(255 - scene(width, height))
    return encoded(image, "JPEG", quality=95, **({} if exif is None else {"exif": exif}))


def is_negative(found: Decoded) -> bool:
    """Whether the picture is the preview, by its top left corner, which is black in the data of the sensor."""
    return np.asarray(found.image)[:3, :3].mean() > 128


@pytest.mark.parametrize("order", ["<", ">"])
def test_linear_data_is_developed_by_the_recipe(order: str) -> None:
    light = linear(300, 200)
    assert np.abs(pixels(dng(light)) - developed(light)).max() <= 1


def test_a_mosaic_is_developed_by_the_recipe() -> None:
    light = linear(300, 200)
    error = np.abs(pixels(dng(mosaic(light))) - developed(light))
    assert error[3:-3, 3:-3].max() <= 6 and error.mean() < 1  # at the edges of a steep shadow there are no neighbours


def test_brightness_is_as_exposed() -> None:
    """A dark scene stays dark: LibRaw would raise it by default."""
    light = linear(300, 200) / 4
    assert np.abs(pixels(dng(light)) - developed(light)).max() <= 1


def test_half_size_where_it_is_enough() -> None:
    light = linear(400, 300)
    data = dng(mosaic(light))
    found = decode(data, HERE, min_side=150)
    assert (found.width, found.height, found.image.size) == (400, 300, (200, 150))
    mean = light.reshape(150, 2, 200, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(found.image).astype(int) - developed(mean))[2:-2, 2:-2].max() <= 6
    assert decode(data, HERE, min_side=151).image.size == (400, 300)


@pytest.mark.parametrize("value", range(1, 9))
def test_the_data_is_turned_once(value: int) -> None:
    light = linear(300, 200)
    found = decode(dng(light, orientation=value), HERE)
    assert np.abs(np.asarray(found.image) - TURNED[value](developed(light))).max() <= 1
    assert (found.width, found.height) == found.image.size


def test_the_orientation_of_a_preview_does_not_turn_the_data() -> None:
    light = linear(300, 200)
    data = dng(light, orientation=1, previews=(preview(60, 40, orientation(6)),))
    assert np.abs(pixels(data) - developed(light)).max() <= 1


def test_the_picture_is_the_default_crop() -> None:
    light = linear(300, 200)
    data = dng(light, tags=((50719, "I", 2, (10, 20), True), (50720, "I", 2, (240, 160), True)))
    assert np.abs(pixels(data) - developed(light)[20:180, 10:250]).max() <= 1
    assert decode(data, HERE).width == 240


# --- previews


def test_a_preview_that_is_large_enough_is_taken() -> None:
    data = dng(linear(300, 200), previews=(preview(60, 40), preview(150, 100)))
    found = decode(data, HERE, min_side=100)
    assert is_negative(found) and found.image.size == (150, 100) and (found.width, found.height) == (300, 200)
    assert np.abs(np.asarray(found.image).astype(int) - (255 - scene(150, 100))).max() <= 12


def test_a_preview_is_reduced_no_further_than_needed() -> None:
    data = dng(linear(300, 200), previews=(preview(288, 192),))
    assert decode(data, HERE, min_side=90).image.size == (144, 96)


@pytest.mark.parametrize("size", [(60, 40), (100, 100), (300, 30)])
def test_a_preview_too_small_or_of_another_shape_is_not_taken(size: tuple[int, int]) -> None:
    data = dng(linear(300, 200), previews=(preview(*size),))
    assert not is_negative(decode(data, HERE, min_side=64))


def test_without_a_wanted_size_the_data_is_developed() -> None:
    assert not is_negative(decode(dng(linear(300, 200), previews=(preview(150, 100),)), HERE))


@pytest.mark.parametrize(
    ("value", "own"),
    [
        *((value, own) for value in range(1, 9) for own in ("none", "right")),
        *((value, "wrong") for value in (5, 6, 7, 8)),
    ],
)
def test_a_preview_is_turned_once(value: int, own: str) -> None:
    """By its own EXIF; without one by the orientation of the data, also where it says 1 and the shapes disagree.

    Nothing tells that an orientation is wrong if the shape stays the same.
    """
    exif = {"none": None, "right": orientation(value), "wrong": orientation(1)}[own]
    data = dng(linear(300, 200), orientation=value, previews=(preview(150, 100, exif),))
    found = decode(data, HERE, min_side=100)
    upright = TURNED[value](255 - scene(150, 100).astype(int))
    assert found.image.size == upright.shape[1::-1]
    assert np.abs(np.asarray(found.image) - upright).max() <= 12


def test_a_damaged_preview_is_passed_over() -> None:
    whole = preview(150, 100)
    data = dng(linear(300, 200), previews=(whole,)).replace(whole, whole[:300] + bytes(len(whole) - 300))
    assert not is_negative(decode(data, HERE, min_side=100))


# --- what is refused


@pytest.mark.parametrize("lost", [1, 100, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("with_preview", [False, True])
def test_a_cut_file_is_refused(lost: float, with_preview: bool) -> None:
    data = dng(linear(300, 200), previews=(preview(150, 100),) if with_preview else ())
    assert reason(data[: -int(lost if lost >= 1 else lost * len(data))], min_side=100) == "the file is truncated"


def test_a_file_that_lists_too_few_tiles_is_refused() -> None:
    light = linear(300, 200)
    data = dng(light, tile=(64, 64))
    assert np.abs(pixels(data) - developed(light)).max() <= 1
    count = data.index(struct.pack("<HHI", 324, 4, 20))  # offsets of 5 x 4 tiles
    assert reason(data[:count] + struct.pack("<HHI", 324, 4, 19) + data[count + 8 :]) == "the file is truncated"


def test_floating_point_that_libraw_misreads_is_refused() -> None:
    light = linear(300, 200).astype(np.float32)
    right = dng(light, compression=8, predictor=3)
    assert np.abs(pixels(right) - developed(light)).max() <= 6
    assert "which LibRaw misreads" in reason(dng(light, compression=8))


def test_a_compression_that_libraw_does_not_read_is_refused_also_where_pillow_sees_a_thumbnail() -> None:
    data = bytearray(dng(linear(300, 200)))
    at = data.index(b"\x03\x01\x03\0\x01\0\0\0\x01\0\0\0")  # compression: none
    data[at + 8 : at + 10] = (52546).to_bytes(2, "little")  # JPEG XL
    assert "raw file" in reason(bytes(data))


def test_the_limit_of_pixels_is_asked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_developed", lambda *_: pytest.fail("developed"))
    with pytest.raises(PixelLimitError, match=r"0\.06 megapixels, more than the limit of 0\.05"):
        decode(dng(linear(300, 200)), HERE, max_pixels=50_000)


# --- what it is, and when it was taken


def test_kinds_are_told_by_content() -> None:
    assert extra_for(dng(linear(30, 20))) is Extra.RAW
    assert extra_for(dng(mosaic(linear(30, 20)))) is Extra.RAW
    for start in (b"FUJIFILMCCD-RAW 0201", b"FOVb", b"\0MRM", b"IIU\0", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"):
        assert extra_for(start + bytes(64)) is Extra.RAW
    for kind in ("TIFF", "JPEG", "PNG"):
        assert extra_for(encoded(Image.new("RGB", (8, 8)), kind)) is None


def test_a_tiff_of_a_scanner_is_no_raw_file() -> None:
    image = Image.fromarray(scene(64, 48))
    for compression in (None, "tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        assert extra_for(encoded(image, "TIFF", compression=compression)) is None


def test_the_date() -> None:
    data = dng(linear(64, 48), tags=((34664, "I", 1, 0xEEEEEEEE, True),))  # tifffile does not write 34665
    at = len(data) + len(data) % 2
    entry = struct.pack("<HHHIII", 1, 36867, 2, 20, at + 18, 0)
    placeholder, directory = (struct.pack("<HHII", *field) for field in ((34664, 4, 1, 0xEEEEEEEE), (34665, 4, 1, at)))
    data = data.replace(placeholder, directory).ljust(at, b"\0") + entry + b"2015:11:15 13:35:29\0"
    assert decode(data, HERE).taken_at == 1447594529
