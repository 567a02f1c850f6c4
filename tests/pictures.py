"""Files of pictures as bytes, and what `decode` says of them."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode

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


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG file of filtered rows; `chunks` stand before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large, in 60 bytes."""
    return png(width, height, 8, 2, b"")


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG file."""
    return struct.pack(">HH", marker, len(body) + 2) + body
