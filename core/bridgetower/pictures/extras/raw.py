"""Read the raw files of cameras with rawpy (LibRaw): the preview that the camera made, else the developed sensor data.

The preview is taken if its short side is long enough and its shape is that of the picture. Otherwise the data is
developed as docs/formats.md says: white balance of the camera, no automatic brightness, the curve and primaries of
sRGB, at half size where that is enough. LibRaw turns by the orientation of any directory if the first says 1, so the
orientation is read from the first here.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import rawpy
from PIL import ExifTags, Image

from bridgetower.errors import PictureError
from bridgetower.pictures.extras import bmff, tiff_tags
from bridgetower.pictures.extras.extra import CheckPixels, Opened
from bridgetower.pictures.extras.tiff_tags import Directory

_RECIPE = {
    "use_camera_wb": True,
    "no_auto_bright": True,
    "gamma": (2.4, 12.92),  # of sRGB
    "output_color": rawpy.ColorSpace.sRGB,
    "output_bps": 8,
    "user_flip": 0,  # as stored
}
_SHAPE_TOLERANCE = 0.1  # by which the shape of a preview may differ: others show a part, or have bars
_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}  # EXIF orientations of the codes of LibRaw
_ORIENTATIONS = frozenset(_OF_FLIP.values())
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_DEFLATE = frozenset({8, 32946})
_FLOAT = 3
_FUJI = b"FUJIFILM"
_WRITTEN_BY_LIBRAW = "dcraw"  # software in the EXIF that LibRaw puts before a preview without one


def read(data: bytes, path: Path, check: CheckPixels, min_side: int | None) -> Opened:
    """Decode to a short side of at least `min_side`, if it has that many pixels; without `min_side` in full size.

    Raises PictureError, and what `check` raises, before pixels are decoded.
    """
    directories = tiff_tags.directories(data)
    if bmff.brands(data):
        is_cut = bmff.is_cut(data)
    elif data.startswith(_FUJI):
        is_cut = _is_cut_fuji(data)
    else:
        is_cut = tiff_tags.is_cut(directories)
    if is_cut:
        raise PictureError(path, "the file is truncated")
    try:
        with rawpy.imread(BytesIO(data)) as raw:
            return _read(raw, data, directories, path, check, min_side)
    except rawpy.LibRawIOError as error:
        raise PictureError(path, "the file is truncated") from error
    except (rawpy.LibRawFileUnsupportedError, rawpy.NotSupportedError) as error:
        raise PictureError(path, "a raw file of a kind that is not read") from error
    except rawpy.LibRawError as error:
        raise PictureError(path, "a raw file that is damaged, or of a kind that is not read") from error


def _read(
    raw: Any, data: bytes, directories: list[Directory], path: Path, check: CheckPixels, min_side: int | None
) -> Opened:
    sizes = raw.sizes
    check(sizes.raw_width * sizes.raw_height)
    if not directories and not bmff.brands(data) and not data.startswith(_FUJI):
        raw.unpack()  # raises for a cut file, which nothing else tells of these kinds
    orientation = directories[0].number(tiff_tags.ORIENTATION) if directories else 0
    if orientation not in _ORIENTATIONS:
        orientation = _OF_FLIP.get(sizes.flip, 1)
    found = None if min_side is None else _preview(raw, orientation, min_side)
    if found is None:
        if any(_is_misread(directory) for directory in directories):
            raise PictureError(path, "a DNG in floating point without predictor, which LibRaw misreads")
        found = _developed(raw, min_side), orientation
    image, turn = found
    _, _, width, height = _crop(sizes)
    return Opened(image, *((height, width) if orientation in _SWAPS_SIDES else (width, height)), turn)


def _crop(sizes: Any) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the picture within the part of the sensor that LibRaw develops."""
    left, top = sizes.crop_left_margin - sizes.left_margin, sizes.crop_top_margin - sizes.top_margin
    width, height = sizes.crop_width, sizes.crop_height
    if width and height and 0 <= left <= sizes.width - width and 0 <= top <= sizes.height - height:
        return left, top, width, height
    return 0, 0, sizes.width, sizes.height


def _developed(raw: Any, min_side: int | None) -> Image.Image:
    """Develop the data of the sensor, at half size if its short side is then at least `min_side`."""
    sizes = raw.sizes
    left, top, width, height = _crop(sizes)
    half = min_side is not None and min(width, height) // 2 >= min_side
    image = Image.fromarray(raw.postprocess(half_size=half, **_RECIPE))
    scale = image.width / sizes.width
    if abs(image.height - sizes.height * scale) > 1:  # sensors whose rows are diagonal, or whose pixels are oblong
        return image
    return image.crop(tuple(round(edge * scale) for edge in (left, top, left + width, top + height)))


def _preview(raw: Any, orientation: int, min_side: int) -> tuple[Image.Image, int] | None:
    """Return the largest preview with the orientation to apply to it; None if there is none that will do.

    `orientation` is that of the data of the sensor.
    """
    try:
        thumbnail = raw.extract_thumb()
    except rawpy.LibRawError:  # none, or of an unknown kind
        return None
    turn = orientation
    if thumbnail.format == rawpy.ThumbFormat.JPEG:
        try:
            image: Image.Image = Image.open(BytesIO(thumbnail.data), formats=("JPEG",))
            width, height = image.size
            image.draft(None, (min_side, min_side))
            image.load()
            exif = image.getexif()
        except Exception:  # noqa: BLE001  Pillow raises many types on damaged files; the data of the sensor remains
            return None
        own = exif.get(ExifTags.Base.Orientation)
        if own in _ORIENTATIONS and not str(exif.get(ExifTags.Base.Software, "")).startswith(_WRITTEN_BY_LIBRAW):
            turn = own
    else:
        image = Image.fromarray(thumbnail.data)
        width, height = image.size
    _, _, raw_width, raw_height = _crop(raw.sizes)
    shape = _shape(raw_width, raw_height, orientation)
    fitting = [one for one in (turn, orientation) if abs(_shape(width, height, one) / shape - 1) <= _SHAPE_TOLERANCE]
    return (image, fitting[0]) if fitting and min(width, height) >= min_side else None


def _shape(width: int, height: int, orientation: int) -> float:
    """Return the width of the upright picture by its height."""
    return height / width if orientation in _SWAPS_SIDES else width / height


def _is_misread(directory: Directory) -> bool:
    """Return whether LibRaw decodes this picture to noise, without an error."""
    return (
        directory.number(tiff_tags.SAMPLE_FORMAT) == _FLOAT
        and directory.number(tiff_tags.COMPRESSION) in _DEFLATE
        and directory.number(tiff_tags.PREDICTOR, 1) == 1
    )


def _is_cut_fuji(data: bytes) -> bool:
    """Return whether the preview or the data of a RAF file reaches beyond its end."""
    extents = ((int.from_bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8])) for at in (84, 92, 100))
    return any(offset + length > len(data) for offset, length in extents)
