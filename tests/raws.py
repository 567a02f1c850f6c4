"""Synthetic DNG files, written by tifffile, and the pictures that they must give."""

from io import BytesIO
from typing import Any

import numpy as np
import tifffile

CFA, LINEAR_RAW = 32803, 34892
# From XYZ to linear sRGB under D65, so that the colours of this camera are sRGB.
_XYZ_TO_SRGB = (3240970, -1537383, -498611, -969244, 1875968, 41555, 55630, -203977, 1056971)


def linear(width: int, height: int) -> np.ndarray:
    """A smooth scene in linear light, float [H, W, 3] in [0, 1), without symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x / width, y / height, (x + 2 * y) / (width + 2 * height)], axis=-1)


def developed(light: np.ndarray) -> np.ndarray:
    """The recipe of docs/formats.md for this camera: the curve of sRGB, nothing else; int [H, W, 3] in 0 to 255."""
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(int)


def mosaic(light: np.ndarray) -> np.ndarray:
    """The scene behind a Bayer pattern, red at the top left, float [H, W]."""
    seen = light[..., 1].copy()
    seen[0::2, 0::2] = light[0::2, 0::2, 0]
    seen[1::2, 1::2] = light[1::2, 1::2, 2]
    return seen


def dng(
    light: np.ndarray,
    *,
    orientation: int | None = 1,
    tags: tuple[tuple[Any, ...], ...] = (),
    previews: tuple[bytes, ...] = (),
    **options: Any,
) -> bytes:
    """Write light [H, W, 3] as LinearRaw, or [H, W] as a Bayer pattern, of 16 bits; previews are JPEG files."""
    if light.dtype != np.float32:
        light = (light * 65535).astype(np.uint16)
    matrix = [part for number in _XYZ_TO_SRGB for part in (number, 1_000_000)]
    entries: list[tuple[Any, ...]] = [
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50707, "B", 4, (1, 1, 0, 0), True),  # DNGBackwardVersion
        (50708, "s", 0, "Test Camera", True),  # UniqueCameraModel
        (50721, "2i", 9, matrix, True),  # ColorMatrix1
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        *tags,
    ]
    if orientation is not None:
        entries.append((274, "H", 1, orientation, True))
    if light.ndim == 2:
        entries += [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        photometric = CFA if light.ndim == 2 else LINEAR_RAW
        settings: dict[str, Any] = {"photometric": photometric, "metadata": None, "software": False, **options}
        writer.write(light, extratags=entries, subifds=len(previews), **settings)
        for preview in previews:
            _write_jpeg(writer, preview)
    return buffer.getvalue()


def _write_jpeg(writer: tifffile.TiffWriter, jpeg: bytes) -> None:
    """Write a preview as one strip of a subdirectory."""
    from PIL import Image

    with Image.open(BytesIO(jpeg)) as image:
        width, height = image.size
    writer.write(
        iter([jpeg]),
        shape=(height, width, 3),
        dtype=np.uint8,
        photometric="ycbcr",
        compression="jpeg",
        subfiletype=1,
        rowsperstrip=height,
        metadata=None,
        software=False,
    )
