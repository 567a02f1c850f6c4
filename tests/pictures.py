"""Files of pictures as bytes, and what `decode` says of them."""

import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.extra import Extra

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


def scene(width: int, height: int) -> np.ndarray:
    """A smooth picture without symmetry, uint8 [H, W, 3]: no turn of it is equal to another."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)], axis=-1)
    return picture.astype(np.uint8)


def by_extra(extra: Extra) -> bytes:
    """A small picture of the kind that the extra reads."""
    if extra is Extra.RAW:
        from tests.raws import dng, linear

        return dng(linear(64, 48))
    if extra is Extra.JXL:
        import pylibjxl

        return bytes(pylibjxl.encode(scene(64, 48)))
    if extra is Extra.DEEP:
        import imagecodecs

        return bytes(imagecodecs.jpegxl_encode(np.stack([np.zeros_like(scene(64, 48)), scene(64, 48)])))
    import pillow_heif

    buffer = BytesIO()
    pillow_heif.from_pillow(Image.fromarray(scene(64, 48))).save(buffer, quality=95)
    return buffer.getvalue()


def take_away(extra: Extra, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library of this extra be missing, here and in the processes that decode."""
    for module in extra.modules:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"bridgetower.pictures.extras.{extra}", raising=False)
    monkeypatch.delattr(f"bridgetower.pictures.extras.{extra}", raising=False)
    code = f"import sys; sys.modules.update(dict.fromkeys({extra.modules!r})); "
    code += "from bridgetower.pictures.decode_worker import serve; serve()"
    monkeypatch.setattr("bridgetower.pictures.decode_pool.COMMAND", (sys.executable, "-P", "-c", code))


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG file."""
    return struct.pack(">HH", marker, len(body) + 2) + body
