"""Read JPEG XL with pylibjxl (libjxl), and later frames of animations with imagecodecs, which the extra `deep` brings.

libjxl turns the picture by the orientation of the codestream; an orientation in the EXIF is a copy that readers must
not apply. pylibjxl returns 8 bits whatever the depth, and of an animation the first frame, but the last one where it is
asked for metadata. The pixels are in the colour space of the header, which it does not tell. Where the file has an ICC
profile and stores XYB, they are in linear light of sRGB instead, although pylibjxl returns the profile.
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pylibjxl
from PIL import Image

from bridgetower.errors import PictureError
from bridgetower.pictures.colour import encoded, from_light, linear, to_srgb_primaries
from bridgetower.pictures.extras import jpeg_xl
from bridgetower.pictures.extras.extra import CheckPixels, Extra, Opened
from bridgetower.pictures.to_rgb import is_blank, most_frames

if TYPE_CHECKING:
    import numpy.typing as npt

_CODE_POINTS: dict[tuple[float, ...], int] = {
    jpeg_xl.SRGB_PRIMARIES: 1,
    jpeg_xl.BT2100: 9,
    jpeg_xl.P3: 12,
}  # of primaries in H.273, for D65
_DCI_GAMMA = 2.6
_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}


def read(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Decode. Raises PictureError, and what `check` raises, before pixels are decoded.

    Of an animation the first frame that is not blank is decoded. Raises MissingExtraError if that is not the first one
    of all, and imagecodecs is not installed.
    """
    metadata: dict[str, bytes] = {}
    try:
        probed = pylibjxl.probe(data)
        check(probed["width"] * probed["height"])
        header = jpeg_xl.read_header(data)
        if reason := _why_not_read(header):
            raise PictureError(path, reason)
        if probed["have_animation"]:
            image = _image(pylibjxl.decode(data), header.is_premultiplied)
            if is_blank(image):
                image = _later_frame(data, path, probed, header.is_premultiplied) or image
            if header.has_profile:
                metadata = {"icc_profile": pylibjxl.decode(data, metadata=True)[1].get("icc_profile", b"")}
        else:
            pixels, metadata = pylibjxl.decode(data, metadata=True)
            image = _image(pixels, header.is_premultiplied)
        image = _with_colours(image, header)
    except (RuntimeError, ValueError) as error:  # the same error for a cut file and for other damage
        raise PictureError(path, "truncated or damaged") from error
    if exif := metadata.get("exif"):
        image.info["exif"] = b"Exif\0\0" + exif
    if (profile := metadata.get("icc_profile")) and not header.is_xyb:
        image.info["icc_profile"] = profile
    return Opened(image, image.width, image.height)


def _why_not_read(header: jpeg_xl.Header) -> str | None:
    """Return why the colours cannot be converted, or None."""
    if header.has_ink:
        return "a JPEG XL in CMYK, which is not read"
    if header.has_profile:
        return None
    if header.space == jpeg_xl.XYB or (header.transfer in (jpeg_xl.PQ, jpeg_xl.HLG) and not _code_point(header)):
        return "a JPEG XL in a colour space that is not converted"
    return None


def _code_point(header: jpeg_xl.Header) -> int | None:
    """Return the code point of the primaries, if they have one together with white."""
    if header.space == jpeg_xl.GREY:
        return 1
    return _CODE_POINTS.get(header.primaries) if header.white == jpeg_xl.D65 else None


def _image(pixels: "npt.NDArray[np.uint8]", is_premultiplied: bool) -> Image.Image:
    """Return an image of pixels [H, W] or [H, W, channels]."""
    height, width = pixels.shape[:2]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.size // (height * width)]
    straight = mode
    if is_premultiplied:
        mode = _PREMULTIPLIED.get(mode, mode)
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())
    return image if mode == straight else image.convert(straight)


def _with_colours(image: Image.Image, header: jpeg_xl.Header) -> Image.Image:
    """Return the image in sRGB, or with "cicp" in its `info`."""
    level, code_point = np.arange(256) / 255, _code_point(header)
    if header.has_profile:
        return _of_light(image, level, np.eye(3)) if header.is_xyb else image
    if header.transfer in (jpeg_xl.LINEAR, jpeg_xl.DCI):
        light: npt.NDArray[np.floating] = level ** (_DCI_GAMMA if header.transfer == jpeg_xl.DCI else header.gamma)
    elif code_point is None:
        light = linear(header.transfer)
    else:
        image.info["cicp"] = bytes([code_point, header.transfer & 255])
        return image
    return _of_light(image, light, to_srgb_primaries(header.white, header.primaries))


def _of_light(image: Image.Image, light: "npt.NDArray[np.floating]", matrix: "npt.NDArray[np.floating]") -> Image.Image:
    """Return the image in sRGB. The arguments are those of `from_light`; alpha is kept."""
    bands = list(image.split())
    alpha = [bands.pop()] if image.mode.endswith("A") else []
    if len(bands) == 1:
        return Image.merge(image.mode, [bands[0].point(encoded(light).tolist()), *alpha])
    return Image.merge(image.mode, [*from_light(Image.merge("RGB", bands), light, matrix).split(), *alpha])


# --- animations


def _later_frame(data: bytes, path: Path, probed: dict[str, Any], is_premultiplied: bool) -> Image.Image | None:
    """Return the first frame after the first that is not blank, or None."""
    try:
        import imagecodecs
    except ImportError as error:
        raise Extra.DEEP.missing(path) from error

    channels = probed["color_channels"] + probed["has_alpha"]
    shape = (probed["height"], probed["width"], channels)[: 3 if channels > 1 else 2]
    bits = probed["bits_per_sample"]
    is_float = probed["exponent_bits_per_sample"] or bits > 16
    kind = f"f{bits // 8 if bits in (16, 32) else 4}" if is_float else "u1" if bits <= 8 else "u2"

    def frame(number: int) -> Image.Image:
        # imagecodecs raises no error for a number that is too large, and leaves the array alone: that is blank.
        values = imagecodecs.jpegxl_decode(data, number, numthreads=1, out=np.zeros(shape, kind))
        scale = 255.0 if is_float else 255 / (2**bits - 1)
        return _image(np.rint(np.clip(values.astype(np.float32) * scale, 0, 255)).astype(np.uint8), is_premultiplied)

    with suppress(RuntimeError, ValueError):  # a frame that is damaged ends the search
        for number in range(1, most_frames(probed["width"], probed["height"])):
            if not is_blank(later := frame(number)):
                return later
    return None
