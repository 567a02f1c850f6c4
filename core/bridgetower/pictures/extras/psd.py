"""Read the merged picture of Photoshop documents that Pillow does not read: 16 and 32 bits a channel, and PSB.

Photoshop puts the merged picture on white where it is transparent. Values of 32 bits are linear light, unless a profile
says otherwise. Layers are not read.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageChops

from bridgetower.errors import PictureError
from bridgetower.pictures.colour import encoded, with_srgb_curve
from bridgetower.pictures.extras.extra import CheckPixels, Opened

_MODES = {0: "1", 1: "L", 2: "P", 3: "RGB", 4: "CMYK", 8: "L", 9: "LAB"}  # of Pillow
_COLOURS = {0: "bitmap", 1: "grey", 2: "palette", 3: "RGB", 4: "CMYK", 7: "multichannel", 8: "duotone", 9: "Lab"}
_DEPTHS = {"1": (1,), "L": (8, 16, 32), "P": (8,), "RGB": (8, 16, 32), "CMYK": (8, 16), "LAB": (8, 16)}  # bits
_RAW, _PACK_BITS = 0, 1
_PROFILE, _VERSION, _EXIF = 1039, 1057, 1058  # resources
# Blocks that say that the first channel after the colours is the transparency of the merged picture.
_TRANSPARENT = tuple(sign + key for sign in (b"8BIM", b"8B64") for key in (b"Mtrn", b"Mt16", b"Mt32"))
_ROWS = 256  # that are converted at once, which bounds the memory


class _Layout(NamedTuple):
    """The header."""

    is_large: bool  # PSB, in which some numbers are wider
    channels: int
    height: int
    width: int
    depth: int  # bits
    colours: int  # the kind

    @property
    def row(self) -> int:
        """Bytes of a row of a channel."""
        return -(-self.width * self.depth // 8)


def is_psd(data: bytes) -> bool:
    """Return whether this is a Photoshop document that Pillow does not read."""
    version, depth = data[4:6], int.from_bytes(data[22:24])
    return data[:4] == b"8BPS" and (version == b"\0\2" or (version == b"\0\1" and depth in (16, 32)))


def read(data: bytes, path: Path, check: CheckPixels) -> Opened:
    """Read the merged picture. Raises PictureError, and what `check` raises, before pixels are decoded."""
    try:
        version, *numbers = struct.unpack_from(">H6xHIIHH", data, 4)
        layout = _Layout(version == 2, *numbers)
        mode = _MODES.get(layout.colours, "")
        if layout.depth not in _DEPTHS.get(mode, ()) or layout.channels < Image.getmodebands(mode):
            kind = f"{_COLOURS.get(layout.colours, 'unknown colours')}, {layout.channels} x {layout.depth} bits"
            raise PictureError(path, f"a Photoshop document of a kind that is not read: {kind}")
        check(layout.width * layout.height)
        return _read(data, path, layout, mode)
    except (struct.error, EOFError) as error:
        raise PictureError(path, "the file is truncated") from error


def _read(data: bytes, path: Path, layout: _Layout, mode: str) -> Opened:
    palette, at = _section(data, 26)
    content, at = _section(data, at)
    resources = dict(_resources(content))
    layers = at + (8 if layout.is_large else 4)
    (length,) = struct.unpack_from(">Q" if layout.is_large else ">I", data, at)
    if resources.get(_VERSION, b"")[4:5] == b"\0":
        raise PictureError(path, "a Photoshop document that was saved without its merged picture")
    planes = _planes(data, path, layers + length, layout)
    profile = resources.get(_PROFILE)
    curved = with_srgb_curve(profile, mode) if layout.depth > 8 else None
    is_linear = curved is not None or (layout.depth == 32 and not profile)
    size = (layout.width, layout.height)
    if mode == "1":
        image = Image.frombytes("1", size, next(planes), "raw", "1;I")
    else:
        bands = [_levels(next(planes), layout, is_linear) for _ in range(Image.getmodebands(mode))]
        image = bands[0] if len(bands) == 1 else Image.merge(mode, bands)
    if mode == "P":
        image.putpalette(bytes(palette[n + 256 * channel] for n in range(256) for channel in range(3)))
    elif mode == "CMYK":
        image = ImageChops.invert(image)
    elif mode in ("L", "RGB") and _is_transparent(data, layers, layers + length, layout):
        image = _off_white(image, _levels(next(planes), layout, False))
    if profile:
        image.info["icc_profile"] = curved or profile
    if _EXIF in resources:
        image.info["exif"] = b"Exif\0\0" + resources[_EXIF]
    return Opened(image, *size)


def _section(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the content of a section, and where it ends. Raises EOFError if it is cut."""
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise EOFError
    return data[at + 4 : end], end


def _resources(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the resources, as far as they are whole."""
    at = 0
    while content[at : at + 4] == b"8BIM" and at + 12 <= len(content):
        number = int.from_bytes(content[at + 4 : at + 6])
        at += 6 + (content[at + 6] + 2) // 2 * 2  # the name, with its length, is even
        length = int.from_bytes(content[at : at + 4])
        yield number, content[at + 4 : at + 4 + length]
        at += 4 + (length + 1) // 2 * 2


def _is_transparent(data: bytes, start: int, end: int, layout: _Layout) -> bool:
    """Return whether the section of layers says that a channel follows the colours which is transparency."""
    if layout.channels <= (3 if layout.colours == 3 else 1):
        return False
    at = start + (8 if layout.is_large else 4)
    count = data[at : at + 2] if int.from_bytes(data[start:at]) else b"\0"  # of layers; negative if it is so
    return count[0] >= 0x80 or any(data.find(block, start, end) >= 0 for block in _TRANSPARENT)


def _planes(data: bytes, path: Path, at: int, layout: _Layout) -> Iterator[bytes]:
    """Yield the bytes of each channel. Raises EOFError if the file is cut, and PictureError if it is damaged."""
    (compression,) = struct.unpack_from(">H", data, at)
    at += 2
    if compression == _RAW:
        lengths = [layout.row * layout.height] * layout.channels
    elif compression == _PACK_BITS:
        rows = layout.channels * layout.height
        counts = struct.unpack_from(f">{rows}{'I' if layout.is_large else 'H'}", data, at)
        at += rows * (4 if layout.is_large else 2)
        lengths = [sum(counts[n : n + layout.height]) for n in range(0, rows, layout.height)]
    else:
        raise PictureError(path, "a Photoshop document of a kind that is not read: a deflated merged picture")
    if at + sum(lengths) > len(data):
        raise EOFError
    for length in lengths:
        plane = data[at : at + length]
        at += length
        if compression == _PACK_BITS:
            try:
                plane = Image.frombytes("L", (layout.row, layout.height), plane, "packbits", "L").tobytes()
            except ValueError as error:
                raise PictureError(path, "damaged") from error
        yield plane


def _levels(plane: bytes, layout: _Layout, is_linear: bool) -> Image.Image:
    """Return the levels of a channel, mode L."""
    size = (layout.width, layout.height)
    if layout.depth == 8:
        return Image.frombytes("L", size, plane)
    import numpy as np

    values = np.frombuffer(plane, ">u2" if layout.depth == 16 else ">f4").reshape(size[::-1])
    levels = np.empty(values.shape, np.uint8)
    for top in range(0, layout.height, _ROWS):
        part = values[top : top + _ROWS].astype(np.float32) / (65535 if layout.depth == 16 else 1)
        part = np.clip(np.nan_to_num(part, nan=0), 0, 1)
        levels[top : top + _ROWS] = encoded(part) if is_linear else np.rint(part * 255)
    return Image.fromarray(levels)


def _off_white(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return the picture with its transparency, without the white that it stands on."""
    import numpy as np

    pixels, opacity = np.array(image).reshape(*alpha.size[::-1], -1), np.asarray(alpha)[..., None]
    for top in range(0, alpha.height, _ROWS):
        part = pixels[top : top + _ROWS].astype(np.int32)
        seen = opacity[top : top + _ROWS].astype(np.int32)
        pixels[top : top + _ROWS] = np.clip((part + seen - 255) * 255 // np.maximum(seen, 1), 0, 255)
    straight = Image.fromarray(pixels.squeeze(-1) if image.mode == "L" else pixels)
    straight.putalpha(alpha)
    return straight
