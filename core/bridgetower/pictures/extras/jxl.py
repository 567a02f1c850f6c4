"""Read JPEG XL with pylibjxl (libjxl).

libjxl turns the picture by the orientation of the codestream; an orientation in the EXIF is a copy that readers must
not apply. pylibjxl returns 8 bits whatever the depth, and of an animation the last frame alone, so an animation is
refused. It tells no colour space but ICC profiles, so a picture in HDR or in linear light is refused, too: its values
would come out flat or dark.
"""

from pathlib import Path

import pylibjxl
from PIL import Image

from bridgetower.errors import PictureError
from bridgetower.pictures.extras.extra import CheckPixels, Opened
from bridgetower.pictures.extras.jpeg_xl import HLG, LINEAR, PQ, transfer_function

_UNCONVERTED = {PQ: "HDR (PQ)", HLG: "HDR (HLG)", LINEAR: "linear light"}


def read(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Decode. Raises PictureError, and what `check` raises, before pixels are decoded."""
    try:
        header = pylibjxl.probe(data)
        check(header["width"] * header["height"])
        if header["have_animation"]:
            raise PictureError(path, "an animated JPEG XL, of which only the last frame could be read")
        if (transfer := transfer_function(data)) in _UNCONVERTED:
            raise PictureError(path, f"a JPEG XL in {_UNCONVERTED[transfer]}, which is not converted")
        pixels, metadata = pylibjxl.decode(data, metadata=True)
    except (RuntimeError, ValueError) as error:  # the same error for a cut file and for other damage
        raise PictureError(path, "truncated or damaged") from error
    height, width = pixels.shape[:2]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels)
    if exif := metadata.get("exif"):
        image.info["exif"] = b"Exif\0\0" + exif
    if profile := metadata.get("icc_profile"):
        image.info["icc_profile"] = profile
    return Opened(image, width, height)
