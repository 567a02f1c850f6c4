"""Kinds of files that Pillow reads wrongly are read rightly, or refused with the reason."""

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from bridgetower.pictures.decode import decode
from tests.pictures import HERE, encoded, noise, reason, segment

# --- JPEG 2000


@pytest.mark.parametrize("form", ["jp2", "j2k"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 16])
def test_jpeg_2000(bits: int, channels: int, form: str) -> None:
    most = 2**bits - 1
    values = np.random.default_rng(bits).integers(0, most + 1, (20, 30, channels))
    values[0, 0], values[0, 1] = 0, most
    array = values.squeeze().astype("u1" if bits == 8 else "u2")
    data = bytes(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat=form, bitspersample=bits))
    expected = values / most * 255
    if channels in (2, 4):
        alpha = values[..., -1:] / most
        expected = expected[..., :-1] * alpha + 255 * (1 - alpha)
    found = np.asarray(decode(data, HERE).image)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1 if channels % 2 else 2)


# --- AVIF: properties written into a file by hand


def with_property(data: bytes, name: bytes, body: bytes) -> bytes:
    """An AVIF file of one item with another property, in place of an equal one."""

    def boxes(content: bytes) -> list[tuple[bytes, bytes]]:
        found, at = [], 0
        while at < len(content):
            size = int.from_bytes(content[at : at + 4])
            found.append((content[at + 4 : at + 8], content[at + 8 : at + size]))
            at += size
        return found

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content) + 8) + kind + content

    outer = dict(boxes(data))
    meta = dict(boxes(outer[b"meta"][4:]))
    inner = dict(boxes(meta[b"iprp"]))
    properties = [(kind, content) for kind, content in boxes(inner[b"ipco"])]
    table = bytearray(inner[b"ipma"])  # one item, its associations of one byte each
    if name in [kind for kind, _ in properties]:
        properties = [(kind, body if kind == name else content) for kind, content in properties]
    else:
        properties.append((name, body))
        table[10] += 1
        table.append(0x80 | len(properties))
    inner[b"ipco"] = b"".join(box(*one) for one in properties)
    inner[b"ipma"] = bytes(table)
    meta[b"iprp"] = b"".join(box(*one) for one in inner.items())
    new = outer[b"meta"][:4] + b"".join(box(*one) for one in meta.items())
    grown = len(new) - len(outer[b"meta"])
    start = data.index(b"mdat") + 4
    location = meta[b"iloc"]
    assert location.count(struct.pack(">I", start)) == 1
    new = new.replace(location, location.replace(struct.pack(">I", start), struct.pack(">I", start + grown)))
    return b"".join(box(kind, new if kind == b"meta" else content) for kind, content in boxes(data))


def aperture(width: int, height: int, right: int, below: int) -> bytes:
    """A clean aperture; the offsets of its centre are in halves of a pixel."""
    return struct.pack(">IIIIiIiI", width, 1, height, 1, right, 2, below, 2)


def avif(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels), "AVIF", quality=100, subsampling="4:4:4")


def test_the_clean_aperture_of_an_avif_is_cut_out() -> None:
    pixels = np.kron(noise(6, 5), np.ones((8, 8, 1), np.uint8))  # 48 x 40
    data = avif(pixels)
    whole = np.asarray(decode(data, HERE).image)
    np.testing.assert_allclose(whole, pixels, atol=6)
    # 20 x 16 whose centre is 6.5 to the right and 3 above that of the picture
    result = decode(with_property(data, b"clap", aperture(21, 16, 13, -6)), HERE)
    assert (result.width, result.height) == (21, 16)
    np.testing.assert_array_equal(np.asarray(result.image), whole[9:25, 20:41])
    for wrong in (aperture(100, 16, 0, 0), aperture(20, 16, 60, 0)):
        np.testing.assert_array_equal(np.asarray(decode(with_property(data, b"clap", wrong), HERE).image), whole)


def test_code_points_of_an_avif() -> None:
    data = avif(np.full((16, 16, 3), (200, 60, 60), np.uint8))
    plain = np.asarray(decode(with_property(data, b"colr", b"nclx" + struct.pack(">HHHB", 1, 13, 6, 128)), HERE).image)
    np.testing.assert_allclose(plain[8, 8], (200, 60, 60), atol=3)
    wide = np.asarray(decode(with_property(data, b"colr", b"nclx" + struct.pack(">HHHB", 12, 13, 6, 128)), HERE).image)
    np.testing.assert_allclose(wide[8, 8], (218, 41, 54), atol=4)  # of Display P3, by the formulae of its standard


# --- FITS


def fits(values: np.ndarray, **cards: object) -> bytes:
    """A FITS file of big-endian values, whose rows go from the bottom up."""
    bits = values.dtype.itemsize * (-8 if values.dtype.kind == "f" else 8)
    axes = {f"NAXIS{n + 1}": length for n, length in enumerate(values.shape[::-1])}
    header = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": values.ndim, **axes, **cards}
    text = "".join(f"{key:8}= {value:>20} / of the test".ljust(80) for key, value in header.items()) + "END".ljust(80)
    body = np.flip(values, -2).astype(values.dtype.newbyteorder(">")).tobytes()
    return text.ljust(-(-len(text) // 2880) * 2880).encode() + body.ljust(-(-len(body) // 2880) * 2880, b"\0")


UNSIGNED = np.random.default_rng(4).integers(0, 65536, (9, 13))
UNSIGNED[0, :2] = 0, 65535


@pytest.mark.parametrize(
    ("values", "cards", "expected"),
    [
        (noise(13, 9, 1), {}, noise(13, 9, 1)),
        ((UNSIGNED - 32768).astype("i2"), {"BZERO": 32768, "BSCALE": "1.0"}, UNSIGNED / 257),
        ((UNSIGNED - 32768).astype("i2"), {}, UNSIGNED / 257),  # the least is black, the greatest white
        ((UNSIGNED - 40000).astype("i4"), {}, UNSIGNED / 257),
        ((UNSIGNED // 2).astype("i2"), {"BSCALE": "2.0D0"}, UNSIGNED // 2 * 2 / 257),
        ((UNSIGNED / 65535).astype("f4"), {}, UNSIGNED / 257),
        (UNSIGNED.astype("f8"), {"BZERO": -5}, UNSIGNED / 257),
        ((UNSIGNED // 2).astype("i2")[None], {}, UNSIGNED / 514),
    ],
    ids=["bytes", "BZERO", "signed", "32 bits", "BSCALE", "float", "double", "one plane"],
)
def test_fits(values: np.ndarray, cards: dict[str, Any], expected: np.ndarray) -> None:
    found = np.asarray(decode(fits(values, **cards), HERE).image)
    np.testing.assert_allclose(found, np.repeat(expected[..., None], 3, axis=2), atol=1)


def test_fits_that_are_not_read() -> None:
    assert reason(fits(np.zeros((3, 9, 13), "u1"))) == "a FITS file of a kind that is not read: 13 x 9 x 3 values"
    assert reason(fits(np.zeros((9, 13), "u1"), BZERO=-128)).endswith("bytes with a scale")
    table = fits(np.zeros((9, 8), "u1"), ZIMAGE="T", ZCMPTYPE="'RICE_1'", ZNAXIS=2, ZNAXIS1=9, ZNAXIS2=9, ZBITPIX=16)
    data = fits(np.zeros((0, 0), "u1"), NAXIS=0)[:2880] + table.replace(
        b"SIMPLE  =                    T", b"XTENSION= 'BINTABLE'          "
    )
    assert reason(data) == "a FITS file of a kind that is not read: compressed (RICE_1)"


# --- kinds that Pillow does not identify


@pytest.mark.parametrize(("marker", "bits"), [(0xC1, 16), (0xC9, 12), (0xC3, 7)])
def test_jpeg_files_of_kinds_that_nothing_reads(marker: int, bits: int) -> None:
    """DCT of 16 bits, arithmetic coding of 12, and lossless coding of 7."""
    data = b"\xff\xd8" + segment(0xFF00 | marker, bytes([bits, 0, 8, 0, 8, 1, 1, 17, 0]))
    assert reason(data) == f"a JPEG file of {bits} bits a channel, which is not read"


def test_what_is_no_picture_of_pixels_is_named() -> None:
    assert reason(b"\0\0\0\x20ftypisom" + bytes(200)) == "a video, which is not read"
    assert reason(b"\0\0\0\x14ftypqt  " + bytes(200)) == "a video, which is not read"
    svg = b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'
    assert reason(svg) == "an SVG, which is no picture of pixels and is not read"
