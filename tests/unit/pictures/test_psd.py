"""Photoshop documents of 16 and 32 bits and large ones, written by hand, against the picture that was put in."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import ExifTags

from bridgetower.errors import PixelLimitError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.psd import is_psd
from tests.pictures import HERE, orientation, reason, scene
from tests.unit.pictures.test_deep import (
    DISPLAY_P3,
    P3_RED,
    P3_RED_AS_SRGB,
    REC709,
    difference,
    icc_profile,
    over_white,
)

PICTURE = scene(64, 48)
ALPHA = np.flipud(PICTURE[..., 0]) // 2 + 64
GREY, PALETTE, RGB, CMYK, MULTICHANNEL, DUOTONE, LAB = 1, 2, 3, 4, 7, 8, 9
CUT = "the file is truncated"


def psd(
    planes: Sequence[np.ndarray],
    colours: int,
    depth: int,
    *,
    large: bool = False,
    packed: bool = False,
    data: bytes = b"",
    resources: Sequence[tuple[int, bytes]] = (),
    layers: bytes = b"",
) -> bytes:
    """A document of channels [H, W] of levels 0 to 255, which are stored in `depth` bits."""
    height, width = planes[0].shape
    rows = [[stored(row, depth) for row in plane] for plane in planes]
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1 + large, len(planes), height, width, depth, colours)
    content = b""
    for number, body in resources:
        content += (
            b"8BIM" + struct.pack(">H", number) + b"\3abc" + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)
        )
    head += struct.pack(">I", len(data)) + data + struct.pack(">I", len(content)) + content
    head += struct.pack(">Q" if large else ">I", len(layers)) + layers
    if not packed:
        return head + b"\0\0" + b"".join(b"".join(plane) for plane in rows)
    short = [pack_bits(row) for plane in rows for row in plane]
    return head + b"\0\1" + struct.pack(f">{len(short)}{'I' if large else 'H'}", *map(len, short)) + b"".join(short)


def stored(row: np.ndarray, depth: int) -> bytes:
    if depth == 1:
        return np.packbits(row == 0).tobytes()  # 1 is black
    if depth == 8:
        return row.astype("u1").tobytes()
    if depth == 16:
        return np.rint(row * 257.0).astype(">u2").tobytes()
    return row.astype(">f4").tobytes()


def pack_bits(row: bytes) -> bytes:
    """A run where four bytes are equal, single bytes otherwise."""
    found = b""
    for at in range(0, len(row), 4):
        part = row[at : at + 4]
        found += (
            bytes([257 - len(part), part[0]])
            if len(set(part)) == 1 and len(part) > 1
            else bytes([len(part) - 1]) + part
        )
    return found


def channels(picture: np.ndarray) -> list[np.ndarray]:
    return list(np.moveaxis(picture.reshape(*picture.shape[:2], -1), -1, 0))


def light(levels: np.ndarray) -> np.ndarray:
    shares = levels / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("large", "depth"), [(True, 8), (True, 16), (False, 16), (True, 32), (False, 32)])
@pytest.mark.parametrize("colours", [GREY, RGB, CMYK, DUOTONE])
def test_kinds(colours: int, depth: int, large: bool, packed: bool) -> None:
    levels, expected = PICTURE, PICTURE
    if colours in (GREY, DUOTONE):
        levels = expected = PICTURE[..., 0]
    elif colours == CMYK:  # stored inverted
        levels = np.dstack([PICTURE, ALPHA])
        expected = PICTURE / 255 * ALPHA[..., None]
    data = psd(channels(light(levels) if depth == 32 else levels), colours, depth, large=large, packed=packed)
    if colours == CMYK and depth == 32:
        assert reason(data) == "a Photoshop document of a kind that is not read: CMYK, 4 x 32 bits"
        return
    assert difference(data, expected) <= (2 if colours == CMYK else 1)
    for kept in (24, 26, 29, 31, 36, len(data) // 2, len(data) - 200, len(data) - 2, len(data) - 1):
        assert reason(data[:kept]) == CUT, kept


def test_bitmap_and_palette_in_large_documents() -> None:
    bits = (PICTURE[..., 1] > 99) * 255
    assert difference(psd([bits[:, :61]], 0, 1, large=True), bits[:, :61]) == 0
    table = scene(16, 16).reshape(256, 3)
    index = PICTURE[..., 0]
    assert difference(psd([index], PALETTE, 8, large=True, data=table.T.tobytes()), table[index]) == 0


@pytest.mark.parametrize("depth", [8, 16])
def test_lab(depth: int) -> None:
    lab = np.full((8, 8, 3), (138, 209, 198))  # L 54.3, a 80.8, b 69.9 for D50
    lab[:4] = 128, 128, 128
    expected = np.full((8, 8, 3), (255, 0, 0))
    expected[:4] = 120
    assert difference(psd(channels(lab), LAB, depth, large=True), expected) <= 5


def layers_that_are_transparent(large: bool, depth: int) -> bytes:
    if depth == 8:
        body = struct.pack(">h", -1) + bytes(8)
        return struct.pack(">Q" if large else ">I", len(body)) + body + bytes(4)
    key = (b"8B64" if large else b"8BIM") + (b"Mt16" if depth == 16 else b"Mt32")
    return bytes(12 if large else 8) + key + bytes(8 if large else 4)


@pytest.mark.parametrize(("large", "depth"), [(True, 8), (True, 16), (False, 16)])
@pytest.mark.parametrize("grey", [False, True])
def test_the_merged_picture_stands_on_white(grey: bool, large: bool, depth: int) -> None:
    levels = PICTURE[..., :1] if grey else PICTURE
    on_white = np.rint(over_white(levels, ALPHA))
    planes, colours = [*channels(on_white), ALPHA], GREY if grey else RGB
    transparent = layers_that_are_transparent(large, depth)
    assert difference(psd(planes, colours, depth, large=large, layers=transparent), on_white) <= 2
    assert difference(psd(planes, colours, depth, large=large), on_white) <= 1  # the fourth channel is a selection


@pytest.mark.parametrize(("large", "depth"), [(True, 8), (True, 16), (False, 16), (False, 32)])
def test_white_ink_stands_on_black(large: bool, depth: int) -> None:
    alpha = np.zeros((48, 64))
    alpha[10:20] = 255
    planes = [np.full((48, 64), 255 if depth < 32 else 1)] * 3 + [alpha if depth < 32 else alpha / 255]
    data = psd(planes, RGB, depth, large=large, layers=layers_that_are_transparent(large, depth))
    assert difference(data, alpha) == 0


def test_the_profile() -> None:
    red = np.full((16, 16, 3), P3_RED)
    data = psd(channels(red), RGB, 16, resources=[(1005, b"odd"), (1039, icc_profile(DISPLAY_P3, 2.2))])
    assert difference(data, np.full((16, 16, 3), P3_RED_AS_SRGB)) <= 2


def test_profiles_of_32_bits() -> None:
    """Linear, or with the curve that the profile says."""
    linear = psd(channels(light(PICTURE)), RGB, 32, resources=[(1039, icc_profile(REC709, 1))])
    assert difference(linear, PICTURE) <= 1
    red = np.full((16, 16, 3), P3_RED) / 255
    for values, gamma in ((red**2.2, 1), (red, 2.2)):
        data = psd(channels(values), RGB, 32, resources=[(1039, icc_profile(DISPLAY_P3, gamma))])
        assert difference(data, np.full((16, 16, 3), P3_RED_AS_SRGB)) <= 2


def test_light_beyond_black_and_white() -> None:
    values = light(PICTURE)
    values[:4], values[4:8], values[8:12] = 7, -1, np.nan
    expected = PICTURE.copy()
    expected[:4], expected[4:12] = 255, 0
    assert difference(psd(channels(values), RGB, 32), expected) <= 1


def test_the_date_but_not_the_orientation_of_the_exif() -> None:
    exif = orientation(6)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2018:07:31 14:52:07"
    data = psd(channels(PICTURE), RGB, 16, resources=[(1058, exif.tobytes().removeprefix(b"Exif\0\0"))])
    result = decode(data, HERE)
    assert result.taken_at == 1533048727
    assert result.image.size == (64, 48)


@pytest.mark.parametrize(
    ("colours", "count", "depth", "kind"),
    [
        (MULTICHANNEL, 3, 16, "multichannel, 3 x 16 bits"),
        (RGB, 2, 16, "RGB, 2 x 16 bits"),
        (PALETTE, 1, 16, "palette, 1 x 16 bits"),
        (LAB, 3, 32, "Lab, 3 x 32 bits"),
        (77, 3, 16, "unknown colours, 3 x 16 bits"),
    ],
)
def test_kinds_that_are_not_read(colours: int, count: int, depth: int, kind: str) -> None:
    data = psd([PICTURE[..., 0]] * count, colours, depth)
    assert reason(data) == f"a Photoshop document of a kind that is not read: {kind}"


def test_other_reasons() -> None:
    data = psd(channels(PICTURE), RGB, 16)
    assert reason(psd(channels(PICTURE), RGB, 16, resources=[(1057, b"\0\0\0\1\0")])) == (
        "a Photoshop document that was saved without its merged picture"
    )
    assert difference(psd(channels(PICTURE), RGB, 16, resources=[(1057, b"\0\0\0\1\1")]), PICTURE) <= 1
    at = data.index(b"\0\0", 38)
    assert reason(data[:at] + b"\0\3" + data[at + 2 :]).endswith("a deflated merged picture")
    short = psd(channels(PICTURE), RGB, 16, packed=True)
    assert reason(short[:-700] + b"\x80" * 700) == "damaged"


def test_the_limit_of_pixels_is_asked_before_pixels_are_decoded() -> None:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 2, 3, 300_000, 300_000, 16, RGB)
    with pytest.raises(PixelLimitError, match="90,000 megapixels"):
        decode(head, HERE)


def test_documents_of_8_bits_are_left_to_pillow() -> None:
    assert difference(psd(channels(PICTURE), RGB, 8), PICTURE) == 0
    assert not is_psd(psd(channels(PICTURE), RGB, 8))
