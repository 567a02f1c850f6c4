"""The gallery as HEIC, JPEG XL, AVIF and raw files: the demo model sees the same pictures in all of them.

The encoders are those whose mean colours are right: docs/formats.md names others, which change the colours themselves.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import Runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.pictures.decode import decode
from bridgetower.pictures.preprocess import preprocess
from tests.raws import dng

GALLERY = sorted((Path(__file__).parents[1] / "examples" / "gallery").glob("*.jpg"))[:100]
EACH = 4  # of so many pictures one is encoded; all are what it could be taken for


def heic(image: Image.Image) -> bytes:
    buffer = BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=90)
    return buffer.getvalue()


def jxl(image: Image.Image) -> bytes:
    """A lossy file as cjxl writes it, in XYB."""
    return bytes(imagecodecs.jpegxl_encode(np.asarray(image), lossless=False, distance=0.5, numthreads=1))


def avif(image: Image.Image) -> bytes:
    """A file of 10 bits, 4:2:0: of 8 bits libavif rounds the chroma down, so that all colours are shifted."""
    deep = np.rint(np.asarray(image) * (1023 / 255)).astype(np.uint16)
    return bytes(imagecodecs.avif_encode(deep, 90, bitspersample=10, pixelformat="420", speed=8, numthreads=1))


def linear_dng(image: Image.Image) -> bytes:
    """The light that the recipe of docs/formats.md turns into this picture."""
    seen = np.asarray(image) / 255
    return dng(np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4))


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "heic": heic,
    "jxl": jxl,
    "avif": avif,
    "dng": linear_dng,
}


@pytest.mark.slow
def test_vectors_are_those_of_the_jpeg_in_every_format() -> None:
    checkpoint = resolve("demo")
    encoder = TorchEncoder(checkpoint, Runtime("cpu", "fp32", "a test"))
    preprocessing = encoder.preprocessing

    def embedded(contents: list[bytes]) -> np.ndarray:
        decoded = [decode(data, Path(), min_side=preprocessing.min_side) for data in contents]
        return encoder.embed_images(np.stack([preprocess(one, preprocessing) for one in decoded]))

    jpegs = [path.read_bytes() for path in GALLERY]
    images = [Image.open(BytesIO(data)).convert("RGB") for data in jpegs[::EACH]]
    reference = embedded(jpegs)
    for kind, encode in FORMATS.items():
        similarity = embedded([encode(image) for image in images]) @ reference.T
        assert similarity[:, ::EACH].diagonal().min() >= 0.99, kind
        assert (similarity.argmax(axis=1) == np.arange(0, len(jpegs), EACH)).all(), kind  # the same first hit
