"""Convert a decoded Pillow image of any mode to RGB."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from bridgetower.pictures.colour import to_srgb
from bridgetower.pictures.versions import changed_in

if TYPE_CHECKING:  # it takes longer to import than the rest, and few pictures need it
    import numpy as np
    import numpy.typing as npt

_MOST_FRAMES = 100  # of an animation that are looked at
_MOST_PIXELS = 200_000_000  # of these frames together
_NEARLY_WHITE = 224  # the least level of each channel
_MOST_INK = 0.01  # the largest share of the pixels that can be seen which may be darker


@dataclass(frozen=True, slots=True)
class Samples:
    """The meaning of the levels of one channel, which Pillow does not know: `info["samples"]`."""

    white: int | None = None  # its level; None for the usual one of the mode
    white_is_zero: bool = False
    unsigned: bool = False  # of mode I, whose numbers are signed
    swapped: str | None = None  # the numpy type of samples whose bytes are swapped
    scale: tuple[float, float] | None = None  # factor and summand of signed numbers


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to sRGB, mode RGB.

    16 bits are scaled to 8 bits, and colours are converted as `image.info` says: "icc_profile" (bytes), "cicp" (bytes).
    Transparency is put over white, or over black if all that can be seen is nearly white.
    """
    profile, cicp = image.info.get("icc_profile"), image.info.get("cicp")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bit_grey(image)
    if image.mode == "P" and image.palette is None:  # Mac icons: the palette is loaded but not in this attribute
        image = image.convert("RGBA")
    if image.has_transparency_data:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        image = image.convert(straight) if straight else image
        image = image if image.mode == "LA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        return _over_ground(to_srgb(image.convert(image.mode[:-1]), profile, cicp), alpha)
    return to_srgb(image.convert("RGB") if image.mode == "P" else image, profile, cicp)


def most_frames(width: int, height: int) -> int:
    """Return how many frames of an animation may be looked at to find one that is not blank."""
    return min(_MOST_FRAMES, _MOST_PIXELS // (width * height))


def is_blank(frame: Image.Image) -> bool:
    """Return whether nothing but one colour can be seen."""
    rgba = frame.convert("RGBA")
    red, green, blue, alpha = (rgba.getchannel(band).getextrema() for band in range(4))
    return alpha == (0, 0) or all(low == high for low, high in (red, green, blue, alpha))


def _over_ground(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """Put an RGB image over the ground on which it can be seen."""
    ground = Image.new("RGB", rgb.size, "white")
    ground.paste(rgb, mask=alpha)
    visible = rgb.width * rgb.height - alpha.histogram()[0]
    if not visible or alpha.getextrema() == (255, 255):
        return ground
    for channel in ground.split():
        if sum(channel.histogram(alpha)[:_NEARLY_WHITE]) > _MOST_INK * visible:  # counts where alpha is not 0
            return ground
    black = Image.new("RGB", rgb.size)
    black.paste(rgb, mask=alpha)
    white = 3 * 255 * rgb.width * rgb.height
    if _sum(black) <= white - _sum(ground):  # it differs more from white
        return ground
    changed_in(1)
    return black


def _sum(rgb: Image.Image) -> int:
    """Return the sum of all levels."""
    return sum(number % 256 * count for number, count in enumerate(rgb.histogram()))


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Convert an image with one channel of more than eight bits to L, or to LA if one of its levels is transparent."""
    import numpy as np

    samples = image.info.get("samples")
    samples = samples if isinstance(samples, Samples) else Samples()
    if image.mode.startswith("I;16") and not samples.scale:
        deep, white = np.asarray(image).astype(np.uint32), samples.white or 65535
        grey = ((deep * 255 + white // 2) // white).astype(np.uint8)  # Pillow would cut at 255
        key = image.info.get("transparency")
        if isinstance(key, int):
            changed_in(1)
            alpha = np.where(deep == key, 0, 255).astype(np.uint8)
            return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    else:
        values = np.asarray(image)
        values = values.astype(samples.swapped).byteswap() if samples.swapped else values
        values = values.view(np.uint32) if samples.unsigned else values
        if samples.scale:
            values = values.view(np.int16) if image.mode.startswith("I;16") else values
            values = values * samples.scale[0] + samples.scale[1]
        grey = _eight_bits(values.astype(np.float32), samples.white)
    return Image.fromarray(255 - grey if samples.white_is_zero else grey)


def white_level(low: float, high: float, white: float | None = None) -> float | None:
    """Return the level of white of values from `low` to `high`: `white`, or the least of 1, 255 and 65535, or None.

    None means that a value is negative or exceeds white, so that `low` is black and `high` white.
    """
    ceilings = (1.0, 255.0, 65535.0) if white is None else (white,)
    return next((ceiling for ceiling in ceilings if low >= 0 and high <= ceiling), None)


def _eight_bits(values: "npt.NDArray[np.float32]", white: float | None = None) -> "npt.NDArray[np.uint8]":
    """Scale grey of unknown range, [H, W], to 0 to 255.

    If `white` is not given, it is the least of 1, 255 and 65535 that no value exceeds. If there is none, as in
    measurements or depth maps, the range from the least to the greatest value is scaled.
    """
    import numpy as np

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    white = white_level(low, high, white)
    if white is None:  # in float64, as the spread may be wider than float32 reaches
        values, white = ((values.astype(np.float64) - low) / (high - low or 1.0)).astype(np.float32), 1.0
    grey: npt.NDArray[np.float32] = np.rint(values * (255 / white))
    return grey.astype(np.uint8)
