"""Pictures whose side data are damaged, large or missing are read, as viewers show them."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.pictures import photo
from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode
from tests.pictures import HERE, encoded, noise, png_chunk, reason, segment

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG_TEXT = os.urandom(600_000).hex().encode()  # 1.2 MB

# Name of a chunk of a PNG file, its body, and whether its checksum is wrong.
CHUNKS = {
    "profile of 1.3 MB": (b"iCCP", b"printer\0\0" + zlib.compress(SRGB + bytes(1_300_000)), False),
    "profile of 40 MB": (b"iCCP", b"printer\0\0" + zlib.compress(bytes(40_000_000)), False),
    "profile that is cut": (b"iCCP", b"printer\0\0" + zlib.compress(SRGB)[:-9], False),
    "profile without a name": (b"iCCP", b"", False),
    "compressed text of 1.2 MB": (b"zTXt", b"workflow\0\0" + zlib.compress(LONG_TEXT), False),
    "international text of 1.2 MB": (b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(LONG_TEXT), False),
    "XMP of 1.2 MB": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG_TEXT), False),
    "text of 20 MB": (b"tEXt", b"prompt\0" + b"x" * 20_000_000, False),
    "text with a wrong sum": (b"tEXt", b"Software\0scanner", True),
    "profile with a wrong sum": (b"iCCP", b"p\0\0" + zlib.compress(SRGB), True),
    "density with a wrong sum": (b"pHYs", struct.pack(">IIB", 2835, 2835, 1), True),
    "transparency with a wrong sum": (b"tRNS", struct.pack(">HHH", 1, 2, 3), True),
    "short gamma": (b"gAMA", b"", False),
    "short density": (b"pHYs", b"\0\0\0\1", False),
    "short sRGB": (b"sRGB", b"", False),
    "short chromaticities": (b"cHRM", b"\0" * 5, False),
    "short transparency": (b"tRNS", b"\0", False),
    "unknown chunk with a wrong sum": (b"abCd", b"\0" * 5, True),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_png_with_strange_side_data(name: str, place: str) -> None:
    pixels = noise(40, 30)
    data = encoded(Image.fromarray(pixels), "PNG")
    kind, body, wrong = CHUNKS[name]
    chunk = bytearray(png_chunk(kind, body))
    chunk[-1] ^= wrong
    at = 33 if place == "before" else len(data) - 12  # after IHDR, or before IEND
    result = decode(data[:at] + chunk + data[at:], HERE)
    np.testing.assert_array_equal(np.asarray(result.image), pixels)


def test_a_png_with_a_wrong_sum_of_its_header_is_refused() -> None:
    data = bytearray(encoded(Image.fromarray(noise(40, 30)), "PNG"))
    data[32] ^= 1
    reason(bytes(data))


def test_the_orientation_in_a_png_is_kept() -> None:
    pixels = noise(7, 4)
    data = encoded(Image.fromarray(pixels), "PNG")
    xmp = b'<x tiff:Orientation="3"/>'
    for chunk in (
        png_chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        result = decode(data[:33] + chunk + data[33:], HERE)
        np.testing.assert_array_equal(np.asarray(result.image), pixels[::-1, ::-1])


# --- JPEG

SEGMENTS = {
    "short JFIF": segment(0xFFE0, b"JFIF\0"),
    "short Adobe": segment(0xFFEE, b"Adobe"),
    "empty profile": segment(0xFFE2, b"ICC_PROFILE\0"),
    "short profile": segment(0xFFE2, b"ICC_PROFILE\0\1"),
    "short Photoshop": segment(0xFFED, b"Photoshop 3.0\x008BIM\x04\x04"),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_jpeg_with_a_short_segment(name: str) -> None:
    data = encoded(photo(1, 64, 48), "JPEG")
    expected = np.asarray(decode(data, HERE).image)
    without = data[:2] + SEGMENTS[name] + data[20:]  # in place of the JFIF segment of 18 bytes
    for other in (without, data[:20] + SEGMENTS[name] + data[20:]):
        np.testing.assert_array_equal(np.asarray(decode(other, HERE).image), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end(mode: str, options: dict) -> None:
    """Without the end mark all pixels are there; a hundredth may be missing, at the end of the picture."""
    data = encoded(photo(3, 400, 300).convert(mode), "JPEG", **options)
    whole = np.asarray(decode(data, HERE).image)
    for cut in (1, 2):
        np.testing.assert_array_equal(np.asarray(decode(data[:-cut], HERE).image), whole)
    found = np.asarray(decode(data[:-4], HERE).image)
    np.testing.assert_array_equal(found[:280], whole[:280])
    for kept in (0.02, 0.3, 0.7, 0.95):
        assert reason(data[: int(len(data) * kept)]) in (
            "the file is truncated",
            "not a picture, or of an unknown kind",
        )


def test_a_jpeg_of_separate_planes_that_lacks_one_is_refused() -> None:
    """The planes that are there are whole, so that only the headers of the scans tell."""
    data = encoded(photo(3, 400, 300), "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans[1:]:
        assert reason(data[:at]) == "the file is truncated"


def test_random_cuts_of_a_jpeg_never_escape_as_anything_else() -> None:
    rng = np.random.default_rng(1)
    data = encoded(photo(3, 64, 48), "JPEG")
    for _ in range(100):
        damaged = bytearray(data[:-2])
        for position in rng.integers(0, len(damaged), 3):
            damaged[position] = rng.integers(256)
        try:
            decode(bytes(damaged), HERE, max_pixels=1_000_000)
        except PictureError:
            continue
