"""Convert a decoded Pillow image of any mode to RGB."""

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:  # it takes longer to import than the rest, and few pictures need it
    import numpy as np
    import numpy.typing as npt


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to RGB: 16 bits are scaled to 8 bits, transparency is put over white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_to_rgb(image)
    if image.mode == "P" and image.palette is None:  # Mac icons: the palette is loaded but not in this attribute
        image = image.convert("RGBA")
    if image.has_transparency_data:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        rgba = (image.convert(straight) if straight else image).convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image with one channel of more than eight bits to RGB."""
    import numpy as np

    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        grey = ((deep + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257; Pillow would cut at 255
    else:
        grey = _eight_bits(np.asarray(image, dtype=np.float32))
    return Image.fromarray(grey).convert("RGB")


def _eight_bits(values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.uint8]":
    """Scale grey of unknown range, [H, W], to 0 to 255.

    White is the least of 1, 255 and 65535 that no value exceeds. If there is none, as in measurements or depth maps,
    the range from the least to the greatest value is scaled.
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
