"""HEIF pictures, each made from an array and held against that array."""

import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from benchmarks.pictures import photo
from bridgetower.errors import PictureError, PixelLimitError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras import bmff
from bridgetower.pictures.extras.extra import Extra
from bridgetower.pictures.extras.sniff import extra_for
from bridgetower.pictures.preprocess import Preprocessing, square
from tests.pictures import HERE, encoded, reason, scene
from tests.unit.pictures.test_colour import SRGB_CURVE, hlg_light, in_srgb, matrix_profile, pq_light, shown, srgb_light

LOSSLESS: dict[str, Any] = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def heic(picture: np.ndarray | Image.Image, **options: Any) -> bytes:
    file = pillow_heif.from_pillow(picture if isinstance(picture, Image.Image) else Image.fromarray(picture))
    for more in options.pop("more", ()):
        file.add_from_pillow(Image.fromarray(more))
    buffer = BytesIO()
    file.save(buffer, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, HERE).image).astype(int)


@pytest.mark.parametrize(("options", "most"), [(LOSSLESS, 0), ({"quality": 95, "chroma": 444}, 3)])
@pytest.mark.parametrize("size", [(64, 48), (301, 199)])
def test_pixels_are_those_of_the_array(options: dict[str, Any], most: int, size: tuple[int, int]) -> None:
    picture = scene(*size)
    assert np.abs(pixels(heic(picture, **options)) - picture).max() <= most


def test_grey() -> None:
    grey = scene(120, 80)[..., 0]
    assert np.abs(pixels(heic(grey, quality=-1)) - grey[..., None]).max() <= 1


def test_ten_bits_are_scaled_to_eight() -> None:
    deep = scene(120, 80).astype(np.uint16) * 257
    file = pillow_heif.from_bytes("RGB;16", (120, 80), deep.tobytes())
    buffer = BytesIO()
    file.save(buffer, quality=-1, chroma=444)
    assert np.abs(pixels(buffer.getvalue()) - scene(120, 80)).max() <= 2


@pytest.mark.parametrize("matrix", [{"matrix_coefficients": 0}, {"matrix_coefficients": 9, "full_range_flag": 0}])
@pytest.mark.parametrize(
    ("primaries", "transfer", "expected"),
    [
        (1, 13, lambda level: level * 255),
        (12, 13, lambda level: in_srgb(srgb_light(level), "P3")),
        (9, 1, lambda level: in_srgb(srgb_light(level), "BT.2020")),
        (9, 16, lambda level: shown(pq_light(level))),
        (9, 18, lambda level: shown(hlg_light(level))),
    ],
    ids=["sRGB", "P3", "BT.2020", "PQ", "HLG"],
)
def test_code_points_of_colours_are_applied(
    primaries: int, transfer: int, expected: Callable[[np.ndarray], np.ndarray], matrix: dict[str, int]
) -> None:
    """libheif applies matrix and range alone, and returns 8 bits, whose rounding is magnified where PQ is dark."""
    level = scene(120, 80) / 255 * 0.1 + np.linspace(0.2, 0.7, 120)[:, None]
    options = LOSSLESS | matrix | {"color_primaries": primaries, "transfer_characteristics": transfer}
    data = heic(np.rint(level * 255).astype(np.uint8), **options)
    assert np.percentile(np.abs(pixels(data) - expected(level)), 99) <= (10 if transfer == 16 else 6)
    file = pillow_heif.from_bytes("RGB;16", (120, 80), np.rint(level * 65535).astype("<u2").tobytes())
    buffer = BytesIO()
    file.save(buffer, **options)  # of 10 bits
    assert np.percentile(np.abs(pixels(buffer.getvalue()) - expected(level)), 99) <= 6


def test_a_profile_counts_more_than_code_points() -> None:
    picture = np.full((16, 16, 3), (200, 60, 60), np.uint8)
    options = LOSSLESS | {"color_primaries": 9, "transfer_characteristics": 16}
    data = heic(picture, icc_profile=matrix_profile("P3", SRGB_CURVE), **options)
    found = pixels(data)[8, 8]
    np.testing.assert_allclose(found, in_srgb(srgb_light(np.array([200, 60, 60]) / 255), "P3"), atol=1.5)


@pytest.mark.parametrize("profile", [None, matrix_profile("P3", SRGB_CURVE)])
def test_colours_may_be_left_for_after_resizing(profile: bytes | None) -> None:
    """As of other formats: they are converted as they would be at once."""
    options: dict[str, Any] = {"icc_profile": profile} if profile else {"color_primaries": 12}
    data = heic(photo(6, 80, 64), **LOSSLESS, **options)
    spec = Preprocessing(64, 64)
    before, after = (decode(data, HERE, convert=early) for early in (True, False))
    assert np.abs(np.asarray(before.image).astype(int) - np.asarray(after.image)).max() > 10
    difference = np.abs(np.asarray(square(before, spec)).astype(int) - np.asarray(square(after, spec)))
    assert difference.max() <= 16 and difference.mean() < 1  # where colours that sRGB does not have are cut


@pytest.mark.parametrize("premultiplied", [False, True])
def test_transparency_is_put_over_white(premultiplied: bool) -> None:
    picture, alpha = scene(96, 64), np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    data = heic(np.dstack([picture, alpha]), **LOSSLESS)
    twin = np.dstack([picture, alpha]).astype(float)
    over_white = twin[..., :3] * (twin[..., 3:] / 255) + 255 - twin[..., 3:]
    if premultiplied:
        image = Image.fromarray(np.dstack([picture, alpha])).convert("RGBa")
        data = heic_of_premultiplied(image)
    # Premultiplied values of eight bits are coarse where a picture is nearly transparent, but hardly seen there.
    assert np.abs(pixels(data) - over_white).max() <= (2 if premultiplied else 1)


def heic_of_premultiplied(image: Image.Image) -> bytes:
    file = pillow_heif.from_bytes("RGBa", image.size, image.tobytes())
    buffer = BytesIO()
    file.save(buffer, **LOSSLESS)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_once(orientation: int) -> None:
    """libheif stores the orientation of the EXIF as the boxes irot and imir, and turns the picture by these."""
    upright = scene(96, 64)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = heic(np.ascontiguousarray(stored), exif=exif.tobytes(), **LOSSLESS)
    assert np.array_equal(pixels(data), upright)
    found = decode(data, HERE)
    assert (found.width, found.height) == (96, 64)


def test_the_primary_picture_is_read() -> None:
    first, second = scene(96, 64), 255 - scene(80, 40)
    data = heic(first, more=[second], primary_index=1, **LOSSLESS)
    assert np.array_equal(pixels(data), second)


def test_the_date() -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2018:07:31 14:52:07"
    assert decode(heic(scene(64, 48), exif=exif.tobytes()), HERE).taken_at == 1533048727


@pytest.mark.parametrize("lost", [1, 200, 0.1, 0.5, 0.8, 0.95, 0.99, 0.998])
def test_a_cut_file_is_refused(lost: float) -> None:
    data = heic(scene(301, 199), **LOSSLESS)
    assert reason(data[: -int(lost if lost >= 1 else lost * len(data))]) == "the file is truncated"


def test_a_cut_file_whose_last_box_goes_to_the_end_is_refused() -> None:
    """The length 0 of the last box says so, as some writers do: only the list of extents tells that bytes are gone."""
    data = bytearray(heic(scene(301, 199), **LOSSLESS))
    box = bmff.find(bytes(data), b"mdat")
    assert box is not None and box.end == len(data)
    data[box.start - 8 : box.start - 4] = bytes(4)
    assert decode(bytes(data), HERE).width == 301
    assert reason(bytes(data[:-50])) == "the file is truncated"


def test_bytes_after_the_last_box_are_passed_over() -> None:
    picture = scene(64, 48)
    assert np.array_equal(pixels(heic(picture, **LOSSLESS) + b"SEFH\0\0\0\x6b" * 9 + b"SEFT"), picture)


def test_the_limit_of_pixels_is_asked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pi_heif.HeifImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PixelLimitError, match=r"0\.06 megapixels, more than the limit of 0\.05"):
        decode(heic(scene(301, 199)), HERE, max_pixels=50_000)


@pytest.mark.parametrize("damaged", range(40))
def test_damage_is_a_picture_or_a_reason(damaged: int) -> None:
    data = bytearray(heic(scene(64, 48)))
    for at in np.random.default_rng(damaged).integers(0, len(data), 4):
        data[at] ^= 0x55
    with suppress(PictureError):  # no other error escapes
        assert decode(bytes(data), HERE, max_pixels=10**6).image.mode == "RGB"


# --- content decides


@pytest.mark.parametrize("name", ["a.jpg", "a.HEIC", "a"])
def test_a_heic_is_read_whatever_it_is_called(name: str) -> None:
    picture = scene(64, 48)
    assert np.array_equal(np.asarray(decode(heic(picture, **LOSSLESS), Path(name)).image), picture)


def test_a_jpeg_called_heic_is_a_jpeg() -> None:
    data = encoded(Image.fromarray(scene(64, 48)), "JPEG", quality=95)
    assert extra_for(data) is None
    assert decode(data, Path("IMG_2019.HEIC")).width == 64


def test_an_avif_is_left_to_pillow_also_under_a_general_brand() -> None:
    data = encoded(Image.fromarray(scene(64, 48)), "AVIF", quality=95, subsampling="4:4:4")
    general = data[:8] + b"mif1" + data[12:]
    assert extra_for(data) is None and extra_for(general) is None
    assert np.abs(pixels(general) - scene(64, 48)).max() <= 5


def test_an_avif_whose_brands_do_not_say_so_is_refused_with_the_reason() -> None:
    data = encoded(Image.fromarray(scene(64, 48)), "AVIF")
    nameless = data[:8] + data[8:32].replace(b"avif", b"mif1") + data[32:]
    assert reason(nameless).startswith(
        "a HEIF of a kind that is not read: Error while loading plugin: Support for this"
    )


def test_a_heif_that_the_library_does_not_read_says_so() -> None:
    assert reason(b"\0\0\0\x18ftyphevc\0\0\0\0hevcmsf1" + b"\0\0\0\x08moov").startswith(
        "a HEIF of a kind that is not read"
    )


def test_heif_names_its_extra() -> None:
    assert extra_for(heic(scene(64, 48))) is Extra.HEIF


def test_items_that_take_no_bytes_take_no_time() -> None:
    """A list of half a megabyte, of 65535 items with as many extents each, whose places and lengths have no bytes."""
    content = b"\1\0\0\0\0\0\xff\xff" + b"\0\0\0\0\0\0\xff\xff" * 65535
    iloc = (8 + len(content)).to_bytes(4) + b"iloc" + content
    data = b"\0\0\0\x14ftypheic\0\0\0\0mif1" + (12 + len(iloc)).to_bytes(4) + b"meta" + bytes(4) + iloc
    start = time.process_time()
    assert not bmff.is_cut(data)
    assert time.process_time() - start < 5  # a quarter of a second on an idle machine, minutes without a bound
