"""Convert pixels to sRGB where the file says that they are something else: an ICC profile, or the code points of H.273.

Profiles are applied by littlecms, relative colorimetric with black point compensation, as image editors do. Pixels
without a profile, or with one of sRGB, are not changed. HDR (PQ and HLG) is shown with its reference white of 203 cd/m²
as white of sRGB, and compressed above 0.8 of it.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from bridgetower.pictures.versions import changed_in

if TYPE_CHECKING:  # it takes longer to import than the rest, and few pictures need it
    import numpy as np
    import numpy.typing as npt

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # of profiles, by the mode of the pixels
_SAME = 3  # levels by which an sRGB profile may change a pixel; those of cameras round their curves

# Code points of H.273. Transfer functions of SDR other than 4, 5 and 8 are shown as that of sRGB.
_BT2020, _P3 = 9, 12
_PQ, _HLG = 16, 18
_GAMMA = {4: 2.2, 5: 2.8, 8: 1.0}

# Linear RGB of these primaries to linear sRGB, for D65.
_TO_SRGB = {
    _BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    _P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}

_SRGB_WHITE, _SRGB_PRIMARIES = (0.3127, 0.3290), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x and y
_D65 = (0.3127 / 0.3290, 1.0, 0.3583 / 0.3290)  # X, Y, Z
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))  # from XYZ to cones

REFERENCE_WHITE = 203  # cd/m² (BT.2408)
_KNEE = 0.8  # of white, above which HDR is compressed
# A curve of an ICC profile: that of sRGB, as a function of gamma, a, b, c and d.
_SRGB_CURVE = struct.pack(
    ">4s4xHH5i", b"para", 3, 0, *(round(value * 65536) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
_ROWS = 64  # that are converted at once, which bounds the memory


def to_srgb(image: Image.Image, profile: object, cicp: object) -> Image.Image:
    """Convert an image without transparency to sRGB, mode RGB.

    `profile` is an ICC profile, or None. `cicp` are bytes that begin with code points of the primaries and of the
    transfer function, or None; they count more. Profiles that are damaged, or of another kind of pixels, are ignored.
    """
    if isinstance(cicp, bytes) and len(cicp) >= 2:
        return _from_code_points(image.convert("RGB"), cicp[0], cicp[1])
    if isinstance(profile, bytes) and profile and (transform := _transform(profile, image.mode)):
        changed_in(1)
        return transform(image)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """Return the transform of pixels of `mode` to sRGB, or None if it changes nothing, or cannot be had."""
    if profile[16:20].decode("latin-1") != _SPACES.get(mode):
        return None
    from PIL import ImageChops, ImageCms

    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # else the darkest levels are 10 levels off
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None

    def apply(image: Image.Image) -> Image.Image:
        converted = transform.apply(image)
        assert converted is not None  # None only in place
        return converted

    if mode == "CMYK":
        return apply
    probe = _probe().convert(mode)
    extrema = ImageChops.difference(probe.convert("RGB"), apply(probe)).getextrema()
    if max(high for _, high in extrema) <= _SAME:  # type: ignore[misc]
        return None
    if mode == "RGB":
        return apply
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    table = apply(ramp).tobytes()
    tables = [*table[::3], *table[1::3], *table[2::3]]
    return lambda image: image.convert("RGB").point(tables)  # of one channel littlecms is slow if not optimised


def _probe() -> Image.Image:
    """Return an image of all greys, and of colours from the whole cube."""
    probe = Image.new("RGB", (256, 2))
    for value in range(256):
        probe.putpixel((value, 0), (value,) * 3)
        if value < 216:
            probe.putpixel((value, 1), (value // 36 * 51, value // 6 % 6 * 51, value % 6 * 51))
    return probe


def _from_code_points(image: Image.Image, primaries: int, transfer: int) -> Image.Image:
    """Convert RGB of these primaries and transfer function to sRGB. Code points that are not known count as sRGB."""
    if primaries not in _TO_SRGB and transfer not in (_PQ, _HLG, *_GAMMA):
        return image
    changed_in(1)
    import numpy as np

    return from_light(image, linear(transfer), np.array(_TO_SRGB.get(primaries, np.eye(3))), transfer)


def from_light(
    image: Image.Image,
    light: "npt.NDArray[np.floating]",
    matrix: "npt.NDArray[np.floating]",
    transfer: int = 0,
) -> Image.Image:
    """Convert RGB to sRGB: `light`, [256], is linear light by level, and `matrix`, [3, 3], converts it to that of sRGB.

    `transfer` is the code point of the transfer function; those of HDR are compressed, too.
    """
    import numpy as np

    of_level, to_primaries = light.astype(np.float32), matrix.T.astype(np.float32)
    pixels = np.asarray(image).copy()  # [H, W, 3]
    for top in range(0, len(pixels), _ROWS):
        part = of_level[pixels[top : top + _ROWS]]
        if transfer == _HLG:  # the system gamma of a display of 1000 cd/m², on the luminance of BT.2020
            luminance = part @ np.array((0.2627, 0.6780, 0.0593), np.float32)
            part *= 1000 / REFERENCE_WHITE * luminance[..., None] ** np.float32(0.2)
        part = part @ to_primaries
        np.maximum(part, 0, out=part)
        if transfer in (_PQ, _HLG):
            part = _compressed(part)
        pixels[top : top + _ROWS] = encoded(part)
    return Image.fromarray(pixels)


def to_srgb_primaries(white: Sequence[float], primaries: Sequence[float]) -> "npt.NDArray[np.floating]":
    """Return the matrix, [3, 3], from linear RGB to linear sRGB, adapted to its white by the method of Bradford.

    The arguments are x and y of white, and of red, green and blue. Raises ValueError if they are no colours.
    """
    import numpy as np

    bradford = np.array(_BRADFORD)

    def to_xyz(white: Sequence[float], primaries: Sequence[float]) -> "npt.NDArray[np.floating]":
        points = np.array([*primaries, *white], np.float64).reshape(4, 2)
        columns = (np.column_stack([points, 1 - points.sum(axis=1)]) / points[:, 1:]).T  # [3, 4]
        cones = bradford @ columns[:, 3]
        target = bradford @ np.array(_D65)
        adapted = np.linalg.solve(bradford, bradford * (target / cones)[:, None])
        return adapted @ (columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]))

    try:
        with np.errstate(divide="raise", invalid="raise"):
            return np.linalg.solve(to_xyz(_SRGB_WHITE, _SRGB_PRIMARIES), to_xyz(white, primaries))
    except (FloatingPointError, np.linalg.LinAlgError) as error:
        raise ValueError("no primaries") from error


def linear(transfer: int) -> "npt.NDArray[np.float32]":
    """Return the light, [256], of each level; 1 is white, or for HLG the most that the scene has."""
    import numpy as np

    level = np.arange(256) / 255
    if transfer == _PQ:
        root = level ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light *= 10_000 / REFERENCE_WHITE
    elif transfer == _HLG:
        light = np.where(level <= 0.5, level**2 / 3, (np.exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    elif transfer in _GAMMA:
        light = level ** _GAMMA[transfer]
    else:
        light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _compressed(light: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    """Compress what is brighter than `_KNEE` to below 1; the greatest of the three channels decides, so hues stay."""
    import numpy as np

    most = light.max(axis=-1, keepdims=True)
    bright = _KNEE + (1 - _KNEE) * -np.expm1((_KNEE - most) / (1 - _KNEE))
    factor: npt.NDArray[np.float32] = np.where(most > _KNEE, bright / np.maximum(most, _KNEE), 1).astype(np.float32)
    return light * factor


def encoded(light: "npt.NDArray[np.floating]") -> "npt.NDArray[np.uint8]":
    """Return the levels of sRGB of light, of any shape; 1 is white."""
    import numpy as np

    light = np.minimum(light, 1)
    levels = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    srgb: npt.NDArray[np.uint8] = np.rint(levels * 255).astype(np.uint8)
    return srgb


def with_srgb_curve(profile: object, mode: str) -> bytes | None:
    """Return a profile of linear light with the curve of sRGB in place of its own; None for other profiles.

    8 bits have too few dark levels for linear light, so `encoded` is applied to it before it is cut to 8 bits. `mode`
    is RGB or L; a profile of other pixels is ignored, as by `to_srgb`.
    """
    if not isinstance(profile, bytes) or profile[16:20].decode("latin-1") != _SPACES.get(mode):
        return None
    (count,) = struct.unpack_from(">I", profile.ljust(132, b"\0"), 128)
    patched, end, found = bytearray(profile), -(-len(profile) // 4) * 4, 0
    for at in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        name, start, _ = struct.unpack_from(">4sII", profile, at)
        if name in (b"A2B0", b"A2B1"):  # tables count more than curves
            return None
        if name in (b"rTRC", b"gTRC", b"bTRC", b"kTRC"):
            if not _is_linear(profile[start:]):
                return None
            struct.pack_into(">II", patched, at + 4, end, len(_SRGB_CURVE))
            found += 1
    if not found:
        return None
    patched += bytes(end - len(profile)) + _SRGB_CURVE
    struct.pack_into(">I", patched, 0, len(patched))
    return bytes(patched)


def _is_linear(curve: bytes) -> bool:
    """Return whether a curve of an ICC profile leaves values as they are."""
    kind, count = curve[:4], int.from_bytes(curve[8:12])
    if kind == b"para":  # a function; number 0 is a gamma alone, as a number of 16.16 bits
        return curve[8:10] == b"\0\0" and curve[12:16] == b"\0\1\0\0"
    if kind != b"curv" or len(curve) < 12 + 2 * count:
        return False
    values = struct.unpack_from(f">{count}H", curve, 12)
    if count < 2:  # one value is a gamma of 8.8 bits, none means linear
        return values in ((), (256,))
    return all(abs(value - place * 65535 / (count - 1)) <= 2 for place, value in enumerate(values))
