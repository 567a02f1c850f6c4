"""TIFF files of every kind show their 8-bit twin within a level, or are refused with the reason.

The files are written by tifffile, from values whose twin is computed here.
"""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile

from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode
from tests.pictures import HERE, noise, reason
from tests.tiffs import packed, tiff

KIND = "a TIFF of a kind that is not read: "
HEIGHT, WIDTH = 21, 26


def written(values: np.ndarray, **options: Any) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **options)
    return buffer.getvalue()


def smooth(channels: int) -> np.ndarray:
    """Values from 0 to 1, [H, W, channels], with a black and a white pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([(x / (WIDTH - 1) + 0.3 * n) % 1 for n in range(channels)], axis=-1)
    values[..., 0] = y / (HEIGHT - 1)
    values[0, 0], values[0, 1] = 0, 1
    return values


def stored(values: np.ndarray, kind: str) -> np.ndarray:
    """Values from 0 to 1 as samples; white of whole numbers is the largest."""
    dtype = np.dtype(kind)
    return values.astype(dtype) if dtype.kind == "f" else np.rint(values * float(np.iinfo(dtype).max)).astype(dtype)


def difference(data: bytes, twin: np.ndarray) -> float:
    found = np.asarray(decode(data, HERE).image)
    assert found.shape == twin.shape
    return float(np.abs(found - np.rint(twin)).max())


# Photometric interpretation of tifffile, channels, extra samples, and the twin of values from 0 to 1.
PICTURES: dict[str, tuple[str, int, tuple[str, ...], Any]] = {
    "grey": ("minisblack", 1, (), lambda v: v),
    "white is zero": ("miniswhite", 1, (), lambda v: 1 - v),
    "RGB": ("rgb", 3, (), lambda v: v),
    "CMYK": ("separated", 4, (), lambda v: (1 - v[..., :3]) * (1 - v[..., 3:])),
    "grey and alpha": ("minisblack", 2, ("unassalpha",), lambda v: v[..., :1] * v[..., 1:] + 1 - v[..., 1:]),
    "RGBA": ("rgb", 4, ("unassalpha",), lambda v: v[..., :3] * v[..., 3:] + 1 - v[..., 3:]),
    "RGB and another": ("rgb", 4, ("unspecified",), lambda v: v[..., :3]),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
def test_every_kind(kind: str, picture: str, order: str) -> None:
    photometric, channels, extra, twin_of = PICTURES[picture]
    values = smooth(channels)
    if "unassalpha" in extra:
        values[..., -1] = 0.25 + values[..., -1] / 2
    twin = np.broadcast_to(twin_of(values) * 255, (HEIGHT, WIDTH, 3))
    samples = stored(values, order + kind)
    options: dict[str, Any] = {"photometric": photometric, "byteorder": order, "extrasamples": extra or None}
    for separate in (False, True) if channels > 1 else (False,):
        if channels > 1:
            options["planarconfig"] = "separate" if separate else "contig"
        array = np.ascontiguousarray(np.moveaxis(samples, -1, 0)) if separate else samples.squeeze()
        for compression, predictor in ((None, False), ("lzw", False), ("deflate", True), ("packbits", False)):
            for layout in ({}, {"rowsperstrip": 5}, {"tile": (16, 16)}):
                data = written(array, compression=compression, predictor=predictor, **layout, **options)
                where = f"{compression} {predictor} {layout} separate: {separate}"
                assert difference(data, twin) <= (
                    2 if picture == "CMYK" or "unassalpha" in extra or kind == "i1" else 1
                ), where


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("bits", [*range(1, 17)])
def test_every_depth(bits: int, photometric: int, order: str, big: bool) -> None:
    most, channels = 2**bits - 1, 3 if photometric == 2 else 1
    values = np.rint(smooth(channels) * most)
    tags = {256: [WIDTH], 257: [HEIGHT], 258: [bits] * channels, 262: [photometric], 277: [channels]}
    rows = values.astype(order + "u2").tobytes() if bits == 16 else packed(values, bits)
    twin = np.broadcast_to(np.abs(values / most - (photometric == 0)) * 255, (HEIGHT, WIDTH, 3))
    assert difference(tiff([rows], tags, order, big=big), twin) <= 1
    assert reason(tiff([rows], tags, order, big=big)[:-1])


def test_the_reason_names_the_kind() -> None:
    tags = {256: [4], 257: [2], 258: [16] * 3, 262: [8], 277: [3], 284: [2]}
    assert reason(tiff([bytes(16)] * 3, tags)) == KIND + "Lab, 3 x 16 bits, unsigned, separate planes, uncompressed"
    assert reason(tiff([bytes(48)], tags | {262: [2], 258: [16, 16, 8], 284: [1], 259: [34892]})) == (
        KIND + "RGB, 16 + 16 + 8 bits, unsigned, compression 34892"
    )


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
def test_lossless_webp(layout: dict[str, Any]) -> None:
    values = stored(smooth(3), "u1")
    data = written(values, photometric="rgb", compression="webp", compressionargs={"lossless": True}, **layout)
    assert difference(data, values) == 0
    reason(data[: len(data) // 2])


# --- several pages


def pages(*written_pages: tuple[np.ndarray, dict[str, Any]], **options: Any) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer, **options) as file:
        for values, page in written_pages:
            file.write(values, photometric=page.pop("photometric", "rgb"), metadata=None, **page)
    return buffer.getvalue()


THUMBNAIL, PHOTO = noise(16, 12), noise(64, 48)
RAW = ("a raw file of a kind that is not read", "a raw picture of a camera, which is not read")


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize(
    "data",
    [
        lambda options: pages((THUMBNAIL, {"subfiletype": 1}), (PHOTO, {}), **options),
        lambda options: pages((THUMBNAIL, {"subfiletype": 1, "subifds": 1}), (PHOTO, {}), **options),
        lambda options: pages((THUMBNAIL, {}), (PHOTO, {}), **options),
        lambda options: pages((PHOTO, {}), (THUMBNAIL, {"subfiletype": 1}), **options),
        lambda options: pages((PHOTO, {"subifds": 1}), (THUMBNAIL, {"subfiletype": 1}), **options),
        lambda options: pages((PHOTO, {}), (noise(80, 90), {}), **options),
        lambda options: pages((PHOTO, {}), (noise(128, 96), {"subfiletype": 1}), **options),
    ],
    ids=["marked", "child", "not marked", "last", "child last", "pages", "larger copy"],
)
def test_the_photo_is_chosen_among_the_pages(data: Any, options: dict[str, Any]) -> None:
    assert difference(data(options), PHOTO) == 0


def test_a_file_of_thumbnails_alone_is_read() -> None:
    assert difference(pages((THUMBNAIL, {"subfiletype": 1})), THUMBNAIL) == 0


def test_pages_in_a_circle_and_cut_ones_end() -> None:
    data = bytearray(pages((THUMBNAIL, {}), (PHOTO, {})))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert difference(bytes(data), THUMBNAIL) == 0
    for kept in (9, 20, first + 7, first + 30):
        reason(bytes(data[:kept]))


@pytest.mark.parametrize("photometric", [32803, 34892])
def test_a_raw_picture_never_gives_its_thumbnail(photometric: int) -> None:
    raw = np.zeros((48, 64), np.uint16) if photometric == 32803 else np.zeros((48, 64, 3), np.uint16)
    data = pages((THUMBNAIL, {"subfiletype": 1, "subifds": 1}), (raw, {"photometric": photometric}))
    try:
        decoded = decode(data, HERE)
    except PictureError:
        assert "raw" in reason(data)
    else:
        assert decoded.image.size == (64, 48) != THUMBNAIL.shape[1::-1]


def test_raw_pictures_by_their_signs() -> None:
    dng = pages((THUMBNAIL, {"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}))
    assert reason(dng) in RAW
    canon = b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0" + struct.pack("<HHHIIHHII", 2, 256, 3, 1, 64, 257, 3, 1, 48) + b"\0" * 4
    assert reason(canon) in RAW
