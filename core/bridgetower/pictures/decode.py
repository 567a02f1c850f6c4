"""A picture file -> upright RGB, exactly as a person would see it: rotated as its EXIF says, over white where it is
transparent, its first frame where it moves.

Whatever is wrong with a file comes out as one PictureError with a reason that a person understands. Nothing here but
`let_pass` changes a setting of Pillow, and all of it may run in many threads at once. Colour profiles are not applied:
the model was trained without.
"""

import re
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from PIL import ExifTags, Image, UnidentifiedImageError

from bridgetower.errors import PictureError, PixelLimitError, UsageError

if TYPE_CHECKING:  # it takes longer to import than all else here, and few pictures need it
    import numpy as np
    import numpy.typing as npt

AnyImage = Image.Image

MAX_PIXELS = 178_956_970  # beyond it Pillow takes a picture for an attack on memory and refuses it

# Pillow knows these, but not as pictures that it can decode by itself: EPS starts Ghostscript on the content of the
# file, WMF needs Windows; of the others it reads the header only.
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

# The markers of JPEG frames made of DCT coefficients: baseline, extended and progressive, then the same with arithmetic
# coding. Lossless ones have none, so libjpeg never decodes them at a fraction of their size; Pillow relies on it all
# the same, which at best fails.
_DCT_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in memory."""

    image: Image.Image  # RGB, upright; smaller than the picture is where that was enough
    width: int  # pixels of the picture itself, upright
    height: int  # pixels of the picture itself, upright
    taken_at: int | None  # seconds since 1970 on the clock where it was taken, from EXIF, in whatever zone that was
    # Left, top, right, bottom of what `image` shows of the picture; None where it is all of it. A fraction of a side is
    # seldom whole, so of a smaller `image` the pixels at one edge may belong to the picture only in part.
    box: tuple[float, float, float, float] | None = None


def decode(data: bytes, path: Path, *, max_pixels: int = MAX_PIXELS, min_side: int | None = None) -> Decoded:
    """Decode the content of the file `path` by what it is, not by how it is called.

    `min_side` says how many pixels of the short side are enough, at least 1. A JPEG file that has at least 2, 4 or 8
    times as many is decoded at that fraction of its size, which takes a fraction of the time. Without it, and in every
    other format, pictures are decoded in full.

    Raises PictureError for what is empty, truncated, damaged, or no picture, and PixelLimitError for what is larger
    than `max_pixels`, or than Pillow lets pass: MAX_PIXELS, unless `let_pass` said another number. The size is taken
    from the header, before any memory is spent on it.
    """
    if not data:
        raise PictureError(path, "the file is empty")
    limit = max_pixels if Image.MAX_IMAGE_PIXELS is None else min(max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
    try:
        with _SILENCE, _opened(data) as opened:
            if opened.width * opened.height > limit:
                raise PixelLimitError(path, _too_large(opened.width * opened.height, limit))
            size = opened.size
            scale = 1 if min_side is None else _draft(opened, data, min_side)
            opened.load()
            # TIFF is turned upright by `load`, which also takes the orientation out of its EXIF: look only now.
            orientation, taken_at = _read_exif(opened)
            image = to_rgb(opened)
            if orientation in _UPRIGHT:
                image = image.transpose(_UPRIGHT[orientation])
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        reason = _too_large(int(found[1]), limit) if found else f"more than {_megapixels(limit)} megapixels"
        raise PixelLimitError(path, reason) from error
    except UnidentifiedImageError as error:
        raise PictureError(path, "not a picture, or of an unknown kind") from error
    except MemoryError as error:
        raise PictureError(path, "not enough memory to decode it") from error
    except Exception as error:  # on damaged files Pillow's plugins raise nearly anything
        raise PictureError(path, _damage(error)) from error
    if scale == 1:
        return Decoded(image, image.width, image.height, taken_at)
    return _reduced(image, size, scale, orientation, taken_at)


def require_image(picture: object, name: Path) -> None:
    """Raise UsageError unless `in_memory` takes a value of this kind; `name` stands for it in the message."""
    import numpy as np

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            given = f"{picture.dtype} {list(picture.shape)}"
            raise UsageError(f"{name}: an array of {given}; uint8 [H, W, 3] or [H, W] is wanted")
    elif not isinstance(picture, Image.Image):
        raise UsageError(f"{name}: a {type(picture).__name__}; a path, bytes, a PIL image or an array is wanted")


def in_memory(picture: "Image.Image | npt.NDArray[np.uint8]", name: Path) -> Decoded:
    """A picture that is no file: a PIL image, turned upright, or an array uint8 [H, W, 3] (RGB) or [H, W] (grey).

    Raises PictureError where it cannot be loaded or has no pixels; `name` stands for it in the message.
    """
    import numpy as np

    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.ascontiguousarray(picture))
    if not picture.width * picture.height:
        raise PictureError(name, f"{picture.width} x {picture.height} pixels: there is nothing to see")
    try:
        with _SILENCE:
            picture.load()  # first, as in `decode`: TIFF is turned upright by it
            orientation, taken_at = _read_exif(picture)
            image = to_rgb(picture)
    except MemoryError as error:
        raise PictureError(name, "not enough memory to decode it") from error
    except Exception as error:  # what is lazily loaded may be damaged
        raise PictureError(name, _damage(error)) from error
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return Decoded(image, image.width, image.height, taken_at)


def let_pass(pixels: int) -> None:
    """Have Pillow accept pictures of up to this many pixels: for the whole process, so only in one of our own."""
    Image.MAX_IMAGE_PIXELS = (pixels + 1) // 2  # Pillow warns there, and refuses what is twice as large


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB, by what its values mean: full range of 16 bits, transparency over white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_to_rgb(image)
    if image.mode == "P" and image.palette is None:  # of icons on a Mac: the pixels have it, Pillow does not know
        image = image.convert("RGBA")
    if image.has_transparency_data:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        rgba = (image.convert(straight) if straight else image).convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """One channel of more than eight bits."""
    import numpy as np

    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        grey = ((deep + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257; Pillow would cut at 255
    else:
        grey = _eight_bits(np.asarray(image, dtype=np.float32))
    return Image.fromarray(grey).convert("RGB")


def _eight_bits(values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.uint8]":
    """Grey of unstated range [H, W] -> 0 to 255.

    White is the least of 1, 255 and 65535 that no value exceeds. Where none fits (measurements, maps of depth), values
    are stretched from the least to the greatest.
    """
    import numpy as np

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    white = next((ceiling for ceiling in (1.0, 255.0, 65535.0) if low >= 0 and high <= ceiling), None)
    if white is None:  # in float64, as the spread may be wider than float32 reaches
        values, white = ((values.astype(np.float64) - low) / (high - low or 1.0)).astype(np.float32), 1.0
    grey: npt.NDArray[np.float32] = np.rint(values * (255 / white))
    return grey.astype(np.uint8)


def _draft(opened: Image.Image, data: bytes, min_side: int) -> int:
    """Have `opened` decoded at a fraction of its size whose short side is at least `min_side`; 1, 2, 4 or 8."""
    if _frame(data) not in _DCT_FRAMES:
        return 1
    width, drafted = opened.width, opened.draft(None, (min_side, min_side))
    return 1 if drafted is None else round(width / drafted[1][2])


def _frame(data: bytes) -> int | None:
    """The marker of the frame of a JPEG file, None where there is none or the way to it is not plain."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # which are tables, or reserved
            return marker
        elif marker < 0xC0 or 0xD0 <= marker <= 0xD9:  # has no length, and no place before a frame
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _reduced(image: Image.Image, size: tuple[int, int], scale: int, orientation: int, taken_at: int | None) -> Decoded:
    """`image`, upright, of a picture that is stored with `size`, `scale` times as large and in that orientation."""
    width, height = reversed(size) if orientation in (5, 6, 7, 8) else size
    # Stored pictures begin at the top left, so that is where a whole pixel is.
    left = image.width - width / scale if orientation in (2, 3, 6, 7) else 0
    top = image.height - height / scale if orientation in (3, 4, 7, 8) else 0
    return Decoded(image, width, height, taken_at, (left, top, left + width / scale, top + height / scale))


def _opened(data: bytes) -> Image.Image:
    """The picture in `data`, of which nothing but the header was read."""
    with suppress(UnidentifiedImageError):  # most are of the few formats that Pillow knows from the start
        return Image.open(BytesIO(data), formats=_first_formats())
    return Image.open(BytesIO(data), formats=_formats())


@cache
def _first_formats() -> tuple[str, ...]:
    """Of the usual formats those whose plugins are imported anyway: the others take as long as Pillow itself."""
    Image.preinit()
    return tuple(name for name in _USUAL_FORMATS if name in Image.OPEN)


@cache
def _formats() -> tuple[str, ...]:
    """What may be decoded: the usual first; those that have no signature last, as they might take others for theirs."""
    Image.init()
    known = set(Image.OPEN) - UNREADABLE_FORMATS
    usual = [name for name in _USUAL_FORMATS if name in known]
    return (*usual, *sorted(known.difference(usual), key=lambda name: (Image.OPEN[name][1] is None, name)))


def _too_large(pixels: int, limit: int) -> str:
    return f"{_megapixels(pixels)} megapixels, more than the limit of {_megapixels(limit)}"


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f}" if pixels >= 10_000_000 else f"{pixels / 1e6:.2g}"


def _damage(error: Exception) -> str:
    message = " ".join(str(error).split())
    if "truncated" in message.lower():
        return "the file is truncated"
    # Messages of these kinds are about the file; of others (a failed int(), a missing attribute), about Pillow's code.
    return f"damaged: {message}" if message and isinstance(error, OSError | SyntaxError) else "damaged"


def _read_exif(image: Image.Image) -> tuple[int, int | None]:
    """Orientation (1 where there is none) and the time at which the picture was taken.

    A damaged EXIF block is no reason to lose a picture: what cannot be read of it counts as absent.
    """
    orientation, taken_at = 1, None
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        taken_at = _taken_at(exif.get_ifd(ExifTags.IFD.Exif))
    except Exception:  # noqa: BLE001  on damaged blocks Pillow raises nearly anything
        pass
    return orientation, taken_at


def _taken_at(tags: dict[int, Any]) -> int | None:
    written = str(tags.get(ExifTags.Base.DateTimeOriginal, "")).strip("\0 ")
    try:
        moment = datetime.strptime(written, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:  # absent, or "0000:00:00 00:00:00" of a camera whose clock was never set
        return None
    return int(moment.timestamp())


class _Silence:
    """Keeps Pillow's warnings from the user while pictures are decoded, in any number of threads.

    `warnings.catch_warnings` swaps the list of filters of the whole process and so cannot serve several threads.
    Here one filter, for Pillow alone, stands in that list as long as any thread is inside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            warnings.filterwarnings("ignore", module=r"PIL\.")  # again each time: someone may have reset the list
            self._filter = warnings.filters[0]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            filters = cast(list[Any], warnings.filters)
            if self._inside == 0 and self._filter in filters:
                filters.remove(self._filter)


_SILENCE = _Silence()
