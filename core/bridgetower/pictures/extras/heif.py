"""Read HEIF pictures in HEVC, as telephones take them, with pi-heif (libheif and libde265).

libheif fills missing tiles with one colour and reports no error, so a file that was cut is refused by its boxes. It
turns the picture by the boxes `irot` and `imir`; the orientation in the EXIF of such a file is a note that readers must
not apply. It applies the matrix and the range of the code points of colours, not the primaries and the transfer
function. A file of several pictures opens at its primary one.
"""

from io import BytesIO
from pathlib import Path

import pi_heif

from bridgetower.errors import PictureError
from bridgetower.pictures.extras import bmff
from bridgetower.pictures.extras.extra import CheckPixels, Opened

pi_heif.options.DECODE_THREADS = 1  # several pictures are decoded at once
pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False


def read(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Decode the primary picture. Raises PictureError, and what `check` raises, before pixels are decoded."""
    if bmff.is_cut(data) or not any(bmff.find(data, kind) for kind in (b"meta", b"moov")):
        raise PictureError(path, "the file is truncated")
    try:
        image = pi_heif.HeifImageFile(BytesIO(data))
    except (SyntaxError, RuntimeError, ValueError, OSError) as error:
        raise PictureError(path, _unread(error)) from error
    check(image.width * image.height)
    try:
        image.load()
    except (SyntaxError, RuntimeError, ValueError, EOFError, OSError) as error:
        unsupported = "not been built in" in str(error)
        raise PictureError(path, _unread(error) if unsupported else f"damaged: {_message(error)}") from error
    if (nclx := image.info.get("nclx_profile")) and not image.info.get("icc_profile"):
        image.info["cicp"] = bytes([nclx["color_primaries"] & 255, nclx["transfer_characteristics"] & 255])
    return Opened(image, image.width, image.height)


def _unread(error: Exception) -> str:
    return f"a HEIF of a kind that is not read: {_message(error)}"


def _message(error: Exception) -> str:
    return " ".join(str(error).split())
