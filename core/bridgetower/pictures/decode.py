"""Decode a picture file to upright RGB, as a viewer shows it: rotated by its EXIF orientation, transparency over white,
the first frame of an animation that is not blank, colours as sRGB.

Every fault of a file raises PictureError, with a reason for people. All functions may run in many threads at once; only
`let_pass` changes a setting of Pillow.
"""

import re
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from PIL import ExifTags, Image, UnidentifiedImageError

from bridgetower.errors import PictureError, PixelLimitError, UsageError
from bridgetower.pictures import tiff, trusted
from bridgetower.pictures.dates.content import taken_in
from bridgetower.pictures.extras import psd
from bridgetower.pictures.extras.extra import CheckPixels, Extra, Opened
from bridgetower.pictures.extras.sniff import extra_for
from bridgetower.pictures.frames import load, readable_webp
from bridgetower.pictures.side_data import ended_jpeg, jpeg_frame, readable_jpeg, readable_png
from bridgetower.pictures.to_rgb import to_rgb
from bridgetower.pictures.versions import changed_in

if TYPE_CHECKING:  # it takes longer to import than the rest, and few pictures need it
    import numpy as np
    import numpy.typing as npt
    from PIL import ImageFile

AnyImage = Image.Image

MAX_PIXELS = 178_956_970  # Pillow refuses larger pictures as an attack on memory

# Formats that Pillow identifies but cannot decode by itself: EPS runs Ghostscript on the content of the file, WMF needs
# Windows, and of the others Pillow reads only the header.
UNREADABLE_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})

_USUAL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")  # tried first, in this order

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation; 1 is upright

# The markers of JPEG frames with DCT coefficients: baseline, extended and progressive, then these with arithmetic
# coding. libjpeg cannot decode other frames, which are lossless, at a fraction of their size, but Pillow assumes
# that it does, and at best fails.
_DCT_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in memory."""

    image: Image.Image  # RGB, upright; smaller than the picture if `min_side` allowed it
    width: int  # pixels of the picture itself, upright
    height: int  # pixels of the picture itself, upright
    taken_at: int | None  # seconds since 1970 on the clock where it was taken, as docs/dates.md says
    # Left, top, right, bottom of the picture within `image`; None if it fills `image`. A fraction of a side is seldom a
    # whole number, so the picture may cover the pixels at one edge of a smaller `image` only in part.
    box: tuple[float, float, float, float] | None = None
    # The colours of `image` that are still to be converted, as `to_srgb` takes them; None if `image` is sRGB.
    profile: bytes | None = None
    cicp: bytes | None = None


def decode(
    data: bytes, path: Path, *, max_pixels: int = MAX_PIXELS, min_side: int | None = None, convert: bool = True
) -> Decoded:
    """Decode the content of the file `path`, whose format is detected from the content, not from the name.

    `min_side`, at least 1, is the length of the short side, in pixels, that the caller needs. A JPEG file with a short
    side 2, 4 or 8 times as long is decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time; of a raw file the
    preview is taken, or it is developed at half size. Without `min_side`, and in every other format, pictures are
    decoded in full size.

    Unless `convert`, the colours of opaque RGB are left for `square` to convert after resizing, which saves 18 ms a
    megapixel where there is a profile.

    Raises PictureError if the file is empty, truncated, damaged, or no picture, MissingExtraError if the library that
    reads it is not installed, and PixelLimitError if it has more than `max_pixels`, or more than Pillow accepts:
    MAX_PIXELS, or the argument of `let_pass`. The size is read from the header, before any memory is allocated for the
    pixels.
    """
    if not data:
        raise PictureError(path, "the file is empty")
    limit = max_pixels if Image.MAX_IMAGE_PIXELS is None else min(max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
    try:
        if (extra := extra_for(data)) is not None:
            return _decode_with(partial(_read_with, extra, data, path, min_side), data, path, limit, convert)
        if psd.is_psd(data):
            return _decode_with(partial(psd.read, data, path), data, path, limit, convert)
        with _WARNINGS_IGNORED:
            try:
                return _decode(data, path, limit, min_side, convert)
            except trusted.NeedsDeep:
                read = partial(_read_with, Extra.DEEP, tiff.readable_tiff(data), path, min_side)
                return _decode_with(read, data, path, limit, convert)
            except OSError as error:
                ended = ended_jpeg(data) if "truncated" in str(error) else None
                if ended is None:
                    raise
                return _decode(ended, path, limit, min_side, convert)
    except PictureError:
        raise
    except trusted.KindNotRead as error:
        raise PictureError(path, str(error)) from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        reason = _too_large(int(found[1]), limit) if found else f"more than {megapixels(limit)} megapixels"
        raise PixelLimitError(path, reason) from error
    except UnidentifiedImageError as error:
        raise PictureError(path, "not a picture, or of an unknown kind") from error
    except MemoryError as error:
        raise PictureError(path, "not enough memory to decode it") from error
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        raise PictureError(path, _damage_reason(error)) from error


def _decode(data: bytes, path: Path, limit: int, min_side: int | None, convert: bool) -> Decoded:
    """Decode the content of a file of at most `limit` pixels. Raises PixelLimitError, and what Pillow raises."""
    content = data
    data, side_data = readable_png(data)
    data = tiff.readable_tiff(readable_webp(data))
    with _open(data) as opened:
        if opened.width * opened.height > limit:
            raise PixelLimitError(path, _too_large(opened.width * opened.height, limit))
        opened.info.update(side_data)
        trusted.check(opened, data)
        tiff.mend(opened, data)
        size = opened.size
        scale = 1 if min_side is None else _set_fraction(opened, data, min_side)
        frame = trusted.crop(load(opened, data))
        # Read the EXIF after `load`, which turns TIFF upright and removes the orientation from its EXIF.
        orientation = _orientation(opened)
        taken_at = _taken_at(content, opened)
        profile, cicp = (None, None) if convert else _take_colours(frame)
        image = to_rgb(frame)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
    if scale == 1:
        return Decoded(image, image.width, image.height, taken_at, None, profile, cicp)
    reduced = _reduced_size(image, size, scale, orientation, taken_at)
    return replace(reduced, profile=profile, cicp=cicp)


def _decode_with(read: Callable[[CheckPixels], Opened], data: bytes, path: Path, limit: int, convert: bool) -> Decoded:
    """Decode a file, `data`, that Pillow does not open: `read` returns its pixels. Raises as `decode`."""

    def check(pixels: int) -> None:
        if pixels > limit:
            raise PixelLimitError(path, _too_large(pixels, limit))

    changed_in(1)
    with _WARNINGS_IGNORED:
        opened = read(check)
        taken_at = _taken_at(data, opened.image)
        profile, cicp = (None, None) if convert else _take_colours(opened.image)
        image = to_rgb(opened.image)
    if opened.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[opened.orientation])
    return Decoded(image, opened.width, opened.height, taken_at, None, profile, cicp)


def _take_colours(image: Image.Image) -> tuple[bytes | None, bytes | None]:
    """Remove the profile and the code points from the `info` of opaque RGB, and return them; else return None."""
    if image.mode != "RGB" or image.has_transparency_data:
        return None, None
    return image.info.pop("icc_profile", None), image.info.pop("cicp", None)


def _read_with(extra: Extra, data: bytes, path: Path, min_side: int | None, check: CheckPixels) -> Opened:
    """Read with the module of an extra, which imports the library. Raises MissingExtraError if there is none."""
    try:
        if extra is Extra.HEIF:
            from bridgetower.pictures.extras import heif

            return heif.read(data, path, check)
        if extra is Extra.JXL:
            from bridgetower.pictures.extras import jxl

            return jxl.read(data, path, check)
        if extra is Extra.DEEP:
            from bridgetower.pictures.extras import deep

            return deep.read(data, path, check)
        from bridgetower.pictures.extras import raw

        return raw.read(data, path, check, min_side)
    except ImportError as error:
        raise extra.missing(path) from error


def require_image(picture: object, name: Path) -> None:
    """Raise UsageError unless `in_memory` accepts this value; `name` names it in the message."""
    import numpy as np

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            given = f"{picture.dtype} {list(picture.shape)}"
            raise UsageError(f"{name}: an array of {given}; uint8 [H, W, 3] or [H, W] is wanted")
    elif not isinstance(picture, Image.Image):
        raise UsageError(f"{name}: a {type(picture).__name__}; a path, bytes, a PIL image or an array is wanted")


def in_memory(picture: "Image.Image | npt.NDArray[np.uint8]", name: Path) -> Decoded:
    """Convert a picture in memory: a PIL image, turned upright, or an array uint8 [H, W, 3] (RGB) or [H, W] (grey).

    Raises PictureError if it cannot be loaded or has no pixels; `name` names it in the message.
    """
    import numpy as np

    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.ascontiguousarray(picture))
    if not picture.width * picture.height:
        raise PictureError(name, f"{picture.width} x {picture.height} pixels: there is nothing to see")
    try:
        with _WARNINGS_IGNORED:
            picture.load()  # before the EXIF is read, as in `decode`
            orientation = _orientation(picture)
            taken_at = _taken_at(_exif(picture), picture)
            image = to_rgb(picture)
    except MemoryError as error:
        raise PictureError(name, "not enough memory to decode it") from error
    except Exception as error:  # a lazily loaded file may be damaged
        raise PictureError(name, _damage_reason(error)) from error
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return Decoded(image, image.width, image.height, taken_at)


def let_pass(pixels: int) -> None:
    """Let Pillow accept pictures of up to this many pixels, in the whole process, so only in a worker process."""
    Image.MAX_IMAGE_PIXELS = (pixels + 1) // 2  # Pillow warns above this, and refuses twice as many


def _set_fraction(opened: Image.Image, data: bytes, min_side: int) -> int:
    """Set `opened` to decode at 1/n of its size, with a short side of at least `min_side`; return n: 1, 2, 4 or 8."""
    frame = jpeg_frame(data)
    if frame is None or data[frame + 1] not in _DCT_FRAMES:
        return 1
    width, drafted = opened.width, opened.draft(None, (min_side, min_side))
    return 1 if drafted is None else round(width / drafted[1][2])


def _reduced_size(
    image: Image.Image, size: tuple[int, int], scale: int, orientation: int, taken_at: int | None
) -> Decoded:
    """Describe the upright `image` of a picture that is stored in `orientation` with `size`, `scale` times as large."""
    width, height = reversed(size) if orientation in (5, 6, 7, 8) else size
    # Pixels are whole at the top left of the stored picture, so `orientation` decides where they are partial.
    left = image.width - width / scale if orientation in (2, 3, 6, 7) else 0
    top = image.height - height / scale if orientation in (3, 4, 7, 8) else 0
    return Decoded(image, width, height, taken_at, (left, top, left + width / scale, top + height / scale))


def _open(data: bytes) -> "ImageFile.ImageFile":
    """Open the picture in `data`; only its header is read."""
    with suppress(UnidentifiedImageError):  # fast, and enough for most pictures
        return Image.open(BytesIO(data), formats=_first_formats())
    try:
        if jpeg := readable_jpeg(data):
            return Image.open(BytesIO(jpeg), formats=["JPEG"])
        return Image.open(BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        tiff.refuse(data)
        trusted.refuse(data)
        raise


@cache
def _first_formats() -> tuple[str, ...]:
    """Return the usual formats that `preinit` imports; importing the others takes as long as importing Pillow."""
    Image.preinit()
    return tuple(name for name in _USUAL_FORMATS if name in Image.OPEN)


@cache
def _formats() -> tuple[str, ...]:
    """Return all formats to try: the usual first; those without a signature last, as they may accept any file."""
    Image.init()
    known = set(Image.OPEN) - UNREADABLE_FORMATS
    usual = [name for name in _USUAL_FORMATS if name in known]
    return (*usual, *sorted(known.difference(usual), key=lambda name: (Image.OPEN[name][1] is None, name)))


def _too_large(pixels: int, limit: int) -> str:
    return f"{megapixels(pixels)} megapixels, more than the limit of {megapixels(limit)}"


def megapixels(pixels: int) -> str:
    """Return a number of pixels in millions, as the reasons of refusals show it."""
    return f"{pixels / 1e6:,.0f}" if pixels >= 10_000_000 else f"{pixels / 1e6:.2g}"


def _damage_reason(error: Exception) -> str:
    message = " ".join(str(error).split())
    if "truncated" in message.lower():
        return "the file is truncated"
    # Messages of these types concern the file; others (a failed int(), a missing attribute) concern Pillow's code.
    return f"damaged: {message}" if message and isinstance(error, OSError | SyntaxError) else "damaged"


def _orientation(image: Image.Image) -> int:
    """Return the orientation in the EXIF, 1 if it is absent or the EXIF is damaged."""
    try:
        return cast(int, image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  Pillow raises many types on damaged EXIF
        return 1


def _exif(image: Image.Image) -> bytes:
    """Return the EXIF of a picture in memory, which may have been changed there; nothing if it is damaged."""
    try:
        return image.getexif().tobytes()
    except Exception:  # noqa: BLE001  as above
        return b""


def _taken_at(content: bytes, image: Image.Image) -> int | None:
    """Return the time at which the picture was taken, from the content of its file and what the decoder found there."""
    exif, xmp = (block if isinstance(block := image.info.get(key), bytes) else b"" for key in ("exif", "xmp"))
    taken = taken_in(content, exif_block=exif, xmp_packet=xmp)
    return None if taken is None else taken.at


class _IgnoredWarnings:
    """Suppresses Pillow's warnings while any thread decodes.

    `warnings.catch_warnings` replaces the list of filters of the whole process, and so is not safe with threads.
    This class adds one filter, for Pillow only, as long as any thread is in a block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            warnings.filterwarnings("ignore", module=r"PIL\.")  # each time, as other code may have reset the list
            self._filter = warnings.filters[0]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            filters = cast(list[Any], warnings.filters)
            if self._inside == 0 and self._filter in filters:
                filters.remove(self._filter)


_WARNINGS_IGNORED = _IgnoredWarnings()
