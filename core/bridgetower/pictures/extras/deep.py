"""Read with tifffile and imagecodecs what Pillow does not read, or reads wrongly: kinds of TIFF, JPEG 2000 and JPEG.

The callers tell from the header that a file is of such a kind. Samples of whole numbers of up to 16 bits are scaled by
their full range. For others white is 1, or what docs/formats.md says of values that exceed it.
"""

import logging
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import ExifTags, Image, ImageChops

from bridgetower.errors import PictureError
from bridgetower.pictures.colour import encoded, with_srgb_curve
from bridgetower.pictures.extras.extra import CheckPixels, Opened
from bridgetower.pictures.extras.jpeg_2000 import PREMULTIPLIED, SYCC, read_header
from bridgetower.pictures.side_data import jpeg_frame, readable_jpeg
from bridgetower.pictures.to_rgb import white_level

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it notes what it finds odd in a file

_Plane = npt.NDArray[Any]  # the samples of one channel, [H, W]

_ROWS = 256  # that are converted at once, which bounds the memory
_JPEG = 7  # compression
_WHITE_IS_ZERO, _PALETTE, _CMYK = 0, 3, 5  # photometric interpretations
_ASSOCIATED, _UNASSOCIATED = 1, 2  # extra samples
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # sample formats
_NEARLY_WHITE = 1 + 1 / 255  # to which white of floating point may be rounded
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # of JPEG


def read(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Decode the first page of a TIFF file, or a JPEG 2000 or JPEG file.

    Raises PictureError, and what `check` raises, before pixels are decoded.
    """
    reader = _read_tiff if data[:2] in (b"II", b"MM") else _read_jpeg if data[:2] == b"\xff\xd8" else _read_jpeg_2000
    try:
        return reader(data, path, check)
    except (PictureError, MemoryError, ImportError):
        raise
    except Exception as error:  # the libraries raise many types, the same for cut files and for other damage
        raise PictureError(path, "truncated or damaged") from error


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height of a picture that is stored in `size`."""
    return size[::-1] if orientation in (5, 6, 7, 8) else size


# --- TIFF


def _read_tiff(data: bytes, path: Path, check: CheckPixels) -> Opened:
    with tifffile.TiffFile(BytesIO(data)) as file:
        page: Any = file.pages[0]
        check(page.imagewidth * page.imagelength)
        if _is_cut(page, data):
            raise PictureError(path, "the file is truncated")
        samples = page.asarray(maxworkers=1).reshape(page.shaped)  # [planes, 1, H, W, samples of a plane]
        profile = page.tags.valueof(34675)
        orientation = page.tags.valueof(274, 1)
        exif = page.tags.valueof(34665)
    planes = [samples[plane, 0, :, :, n] for plane in range(samples.shape[0]) for n in range(samples.shape[-1])]
    image = _image(page, planes, bytes(profile) if profile else None)
    if isinstance(exif, dict):
        image.info["exif"] = _dates(exif)
    return Opened(image, *_upright(image.size, orientation), orientation)


def _is_cut(page: Any, data: bytes) -> bool:
    """Return whether strips or tiles are missing, or cut: tifffile leaves them black, libjpeg makes them grey."""
    parts = [(offset, offset + count) for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if len(parts) < np.prod(page.chunked) or any(not start < end <= len(data) for start, end in parts):
        return True
    return page.compression == _JPEG and any(data.rfind(_END, start, end) < 0 for start, end in parts)


def _image(page: Any, planes: list[_Plane], profile: bytes | None) -> Image.Image:
    """Return the image of the samples of a page with its ICC profile, mode L, LA, La, RGB, RGBA, RGBa or CMYK."""
    bits, sample_format = page.bitspersample, page.sampleformat
    if page.photometric == _PALETTE:
        table = (page.colormap >> 8).astype(np.uint8)  # [3, 2^bits]
        return _merged("RGB", [Image.fromarray(channel[planes[0]]) for channel in table], profile)
    mode = "CMYK" if page.photometric == _CMYK else "L" if page.photometric <= 1 else "RGB"
    colours = len(mode) if mode != "L" else 1
    black, white = _range(planes[:colours], bits, sample_format, is_grey=mode == "L")
    if page.photometric == _WHITE_IS_ZERO:
        black, white = white, black
    curved = with_srgb_curve(profile, mode) if bits > 8 else None
    bands = [_levels(plane, black, white, is_linear=curved is not None) for plane in planes[:colours]]
    extra = page.extrasamples[0] if page.extrasamples else _UNASSOCIATED if len(planes) == 4 else 0
    if len(planes) > colours and extra in (_ASSOCIATED, _UNASSOCIATED):
        bands.append(_levels(planes[colours], 0, _opaque(planes[colours], bits, sample_format)))
        mode += "a" if extra == _ASSOCIATED else "A"
    return _merged(mode, bands, curved or profile)


def _merged(mode: str, bands: list[Image.Image], profile: bytes | None) -> Image.Image:
    image = Image.merge(mode, bands)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _range(planes: list[_Plane], bits: int, sample_format: int, *, is_grey: bool) -> tuple[float, float]:
    """Return the levels of black and white.

    In colour of floating point white is 1, unless more than half of the values exceed it. Other values of unknown range
    are treated as `to_rgb` treats grey, but white of unsigned colour is then their greatest number.
    """
    if sample_format == _UNSIGNED and bits <= 16:
        return 0, 2**bits - 1
    low, high, brighter = _extent(planes)
    if sample_format == _FLOAT and not is_grey and 2 * brighter <= sum(plane.size for plane in planes):
        return 0, 1
    white = white_level(low, high, 2 ** (bits - 1) - 1 if sample_format == _SIGNED and bits <= 16 else None)
    if white is None and sample_format == _UNSIGNED and not is_grey:
        return 0, 2**bits - 1
    return (low, high) if white is None else (0, white)


def _extent(planes: list[_Plane]) -> tuple[float, float, int]:
    """Return the least and the greatest finite value, and how many are brighter than 1."""
    low, high, brighter = np.inf, -np.inf, 0
    for plane in planes:
        for top in range(0, len(plane), _ROWS):
            part = plane[top : top + _ROWS]
            finite = part[np.isfinite(part)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            brighter += int(np.count_nonzero(part > _NEARLY_WHITE))
    return (low, high, brighter) if low <= high else (0, 0, 0)


def _opaque(plane: _Plane, bits: int, sample_format: int) -> float:
    """Return the level of opacity."""
    most = float(2 ** (bits - (sample_format == _SIGNED)) - 1)
    if sample_format != _FLOAT and bits <= 16:
        return most
    _, high, _ = _extent([plane])
    if sample_format == _FLOAT:
        return 1 if high <= _NEARLY_WHITE else white_level(0, high) or high
    return white_level(0, high) or most


def _levels(plane: _Plane, black: float, white: float, *, is_linear: bool = False) -> Image.Image:
    """Return the levels of a channel, mode L; values beyond black and white are cut to these."""
    levels = np.empty(plane.shape, np.uint8)
    spread = white - black or 1
    for top in range(0, len(plane), _ROWS):
        share = (plane[top : top + _ROWS].astype(np.float64) - black) / spread
        share = np.clip(np.nan_to_num(share, nan=0), 0, 1)
        levels[top : top + _ROWS] = encoded(share) if is_linear else np.rint(share * 255)
    return Image.fromarray(levels)


def _dates(tags: dict[str, Any]) -> bytes:
    """Return EXIF data with the text of the EXIF directory of a page, which holds its dates."""
    exif = Image.Exif()
    names = ExifTags.Base.__members__
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {names[name]: value for name, value in tags.items() if name in names and isinstance(value, str)}
    )
    return exif.tobytes()


# --- JPEG and JPEG 2000


def _read_jpeg(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Decode a JPEG file of more than 8 bits. Its side data is read by Pillow, as if it had 8."""
    data = readable_jpeg(data) or data
    frame = jpeg_frame(data)
    assert frame is not None
    bits = data[frame + 4]
    with Image.open(BytesIO(data[: frame + 4] + b"\x08" + data[frame + 5 :]), formats=["JPEG"]) as header:
        check(header.width * header.height)
        mode, info = header.mode, header.info
        orientation = 1
        with suppress(Exception):  # Pillow raises many types on damaged EXIF
            orientation = header.getexif().get(ExifTags.Base.Orientation, 1)
    scan = data.find(_SCAN, frame)
    if scan < 0 or data.rfind(_END, scan) < 0:  # libjpeg fills what is missing with grey
        raise PictureError(path, "the file is truncated")
    samples = imagecodecs.jpeg_decode(data)
    samples = samples.reshape(*samples.shape[:2], -1)
    white = 2**bits - 1
    bands = [_levels(samples[..., n], 0, white) for n in range(samples.shape[-1])]
    image = Image.merge(mode, bands)
    if mode == "CMYK":  # inverted in JPEG files, as in those that Pillow reads
        image = ImageChops.invert(image)
    image.info = info
    return Opened(image, *_upright(image.size, orientation), orientation)


def _read_jpeg_2000(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Decode the codestream alone, as imagecodecs applies profiles as if samples had 8 or 16 bits.

    It takes three subsampled components for sYCC, and makes RGB of them.
    """
    header = read_header(data)
    assert header is not None
    check(header.width * header.height)
    samples = imagecodecs.jpeg2k_decode(data[header.codestream], numthreads=1)
    samples = samples.reshape(*samples.shape[:2], -1)
    bits = header.depths[0]
    if header.space == SYCC and not header.is_subsampled and samples.shape[-1] > 2:
        _convert_sycc(samples, bits)
    least = -(2 ** (bits - 1)) if header.is_signed else 0
    mode = "RGB" if samples.shape[-1] > 2 else "L"
    curved = with_srgb_curve(header.profile, mode) if bits > 8 else None
    bands = [
        _levels(samples[..., n], least, least + 2**bits - 1, is_linear=curved is not None and n < len(mode))
        for n in range(samples.shape[-1])
    ]
    if header.alpha is not None:
        mode += "a" if header.alpha == PREMULTIPLIED else "A"
    image = _merged(mode, bands, curved or header.profile)
    return Opened(image, image.width, image.height)


def _convert_sycc(samples: npt.NDArray[Any], bits: int) -> None:
    """Convert sYCC, [H, W, 3 or 4], to RGB in place."""
    half, most = 2 ** (bits - 1), 2**bits - 1
    for top in range(0, len(samples), _ROWS):
        y, cb, cr = (samples[top : top + _ROWS, :, n].astype(np.float32) for n in range(3))
        cb, cr = cb - half, cr - half
        for n, colour in enumerate((y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)):
            samples[top : top + _ROWS, :, n] = np.clip(np.rint(colour), 0, most)
