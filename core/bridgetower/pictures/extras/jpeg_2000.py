"""The header of JPEG 2000 files: the samples of the codestream, and what the boxes around it say of them.

The fields are those of ISO/IEC 15444-1: the marker SIZ, and the boxes `colr`, `pclr` and `cdef` in `jp2h`.
"""

import struct
from typing import NamedTuple

from bridgetower.pictures.extras import bmff

_START = b"\xff\x4f\xff\x51"  # of the codestream, and of its sizes
_SRGB, _GREY, SYCC = 16, 17, 18  # enumerated colour spaces
_YCC_SPACING = (((1, 1), (2, 1), (2, 1)), ((1, 1), (2, 2), (2, 2)))  # of sYCC in 4:2:2 and 4:2:0
_COLOUR, _OPACITY, PREMULTIPLIED = 0, 1, 2  # kinds of channels


class Header(NamedTuple):
    """The header of a JPEG 2000 file."""

    codestream: slice  # of the file
    width: int
    height: int
    grid: tuple[int, ...]  # where the picture ends and begins, sizes and place of the tiles; each across and down
    depths: tuple[int, ...]  # bits of each component
    is_signed: bool
    spacing: tuple[tuple[int, int], ...]  # of each component, across and down: (1, 1) is a sample for every pixel
    space: int | None  # enumerated colour space
    profile: bytes | None  # ICC
    has_palette: bool
    # Of each component its kind, and the colour that it is, from 1 on. Empty if it is not said.
    channels: tuple[tuple[int, int], ...]

    @property
    def alpha(self) -> int | None:
        """The kind of transparency that the last component is, or None. The second or fourth is it, if nothing is said.

        Channels in another order than that of colours and transparency have none.
        """
        last = len(self.depths) - 1
        if not self.channels:
            return _OPACITY if last in (1, 3) else None
        kind = self.channels[-1][0]
        return kind if kind in (_OPACITY, PREMULTIPLIED) else None

    @property
    def is_subsampled(self) -> bool:
        """Whether a component has fewer samples than the picture has pixels."""
        return any(one != (1, 1) for one in self.spacing)

    @property
    def is_uneven(self) -> bool:
        """Whether the picture or a tile begins or ends between two samples of a component."""
        return any(at % step for pair in self.spacing for at, step in zip(self.grid, 4 * pair, strict=True) if step)

    @property
    def why_not_read(self) -> str | None:
        """Why the extra `deep` does not read such a picture; None if it reads it."""
        colours = len(self.depths) - (self.alpha is not None)
        reasons = {
            "with a palette": self.has_palette,
            "of different depths": len(set(self.depths)) != 1,
            "subsampled": self.is_subsampled
            and (self.spacing not in _YCC_SPACING or self.space not in (None, SYCC) or self.profile is not None),
            "of other channels than grey, RGB and transparency": colours not in (1, 3)
            or any(channel != (_COLOUR, n + 1) for n, channel in enumerate(self.channels[:colours])),
            "in colours that are not converted": self.space
            not in ((None, _GREY) if colours == 1 else (None, _SRGB, SYCC))
            or (self.is_signed and (self.space == SYCC or self.is_subsampled)),
            "of more than 16 bits": max(self.depths) > 16,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


def read_header(data: bytes) -> Header | None:
    """Return the header of the first picture, or None if it is cut, or there is none."""
    start, end, boxes = 0, len(data), bmff.Box(b"", 0, 0)
    if not data.startswith(_START):
        stream, found = bmff.find(data, b"jp2c"), bmff.find(data, b"jp2h")
        if stream is None or found is None:
            return None
        start, end, boxes = stream.start, stream.end, found
    try:
        grid = struct.unpack_from(">8I", data, start + 8)
        (count,) = struct.unpack_from(">H", data, start + 40)
        components = list(struct.iter_unpack(">3B", data[start + 42 : start + 42 + 3 * count]))
    except struct.error:
        return None
    if data[start : start + 4] != _START or not 0 < count == len(components):
        return None
    space, profile = _colours(data, boxes)
    return Header(
        slice(start, end),
        grid[0] - grid[2],
        grid[1] - grid[3],
        grid,
        tuple((depth & 0x7F) + 1 for depth, _, _ in components),
        components[0][0] >= 0x80,
        tuple((across, down) for _, across, down in components),
        space,
        profile,
        bmff.find(data, b"pclr", boxes.start, boxes.end) is not None,
        _channels(data, boxes, count),
    )


def _colours(data: bytes, boxes: bmff.Box) -> tuple[int | None, bytes | None]:
    """Return the enumerated colour space and the ICC profile, either None, of the first box that has one of them."""
    for box in bmff.boxes(data, boxes.start, boxes.end):
        content = data[box.start : box.end] if box.kind == b"colr" else b""
        if content[:1] == b"\1" and len(content) >= 7:
            return int.from_bytes(content[3:7]), None
        if content[:1] in (b"\2", b"\3"):
            return None, content[3:]
    return None, None


def _channels(data: bytes, boxes: bmff.Box, count: int) -> tuple[tuple[int, int], ...]:
    box = bmff.find(data, b"cdef", boxes.start, boxes.end)
    if box is None:
        return ()
    content = data[box.start + 2 : box.end]
    found = {
        number: (kind, colour) for number, kind, colour in struct.iter_unpack(">3H", content[: len(content) // 6 * 6])
    }
    return tuple(found.get(number, (0xFFFF, 0)) for number in range(count))
