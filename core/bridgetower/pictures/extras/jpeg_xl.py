"""The part of the header of a JPEG XL picture that pylibjxl does not tell: its colours, and what its alpha means.

The fields are those of ISO/IEC 18181-1, in their order; each number is a choice of four ways to write it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from bridgetower.pictures.extras import bmff

_Choice = tuple[int, int]  # bits to read, and what to add to them
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_PREVIEW_8 = ((0, 16), (0, 32), (5, 1), (9, 33))
_PREVIEW = ((6, 1), (8, 65), (10, 321), (12, 1345))
_ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
_XY = ((19, 0), (19, 1 << 19), (20, 1 << 20), (21, 1 << 21))
_ALPHA, _SPOT_COLOUR, _BLACK, _CFA = 0, 2, 4, 5  # kinds of extra channels
RGB, GREY, XYB = 0, 1, 2  # spaces
_CUSTOM = 2  # white or primaries
D65 = (0.3127, 0.3290)  # x and y
_WHITE = {1: D65, 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
SRGB_PRIMARIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
BT2100 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_PRIMARIES = {1: SRGB_PRIMARIES, 9: BT2100, 11: P3}
LINEAR, SRGB, PQ, DCI, HLG = 8, 13, 16, 17, 18  # transfer functions, by their code points of H.273
_HEADER_BYTES = 4096  # more than any header has that we need


class Header(NamedTuple):
    """The meaning of the pixels that libjxl returns."""

    is_xyb: bool  # how the file stores them
    is_premultiplied: bool  # with alpha
    has_ink: bool  # the black of CMYK is an extra channel
    has_profile: bool  # ICC; the fields below say nothing then
    space: int = RGB
    white: tuple[float, ...] = D65  # x and y
    primaries: tuple[float, ...] = SRGB_PRIMARIES  # x and y of red, green and blue
    transfer: int = SRGB  # LINEAR if there is a gamma
    gamma: float = 1.0  # the exponent that makes light of levels


class _Bits:
    """Reads numbers from the lowest bit of each byte on. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise ValueError("the header ends early")
        value = self._number & ((1 << bits) - 1)
        self._number >>= bits
        return value

    def flag(self) -> bool:
        return self.take(1) == 1

    def choose(self, choices: tuple[_Choice, ...]) -> int:
        bits, added = choices[self.take(2)]
        return self.take(bits) + added


def read_header(data: bytes) -> Header:
    """Return what the header says. Raises ValueError if the file has none."""
    codestream = _codestream(data)
    if not codestream.startswith(b"\xff\x0a"):
        raise ValueError("no codestream")
    bits = _Bits(codestream[2:])
    _skip_size(bits)
    if bits.flag():  # all as usual
        return Header(True, False, False, False)
    if bits.flag():
        bits.take(3)  # orientation
        if bits.flag():
            _skip_size(bits)  # in which it is to be shown
        if bits.flag():
            sides = _PREVIEW_8 if bits.flag() else _PREVIEW
            bits.choose(sides)
            if not bits.take(3):
                bits.choose(sides)
        if bits.flag():  # an animation
            bits.choose(((0, 100), (0, 1000), (10, 1), (30, 1)))
            bits.choose(((0, 1), (0, 1001), (8, 1), (10, 1)))
            bits.choose(((0, 0), (3, 0), (16, 0), (32, 0)))
            bits.flag()
    _skip_depth(bits)
    bits.flag()  # 16 bits suffice
    extra = [_read_extra_channel(bits) for _ in range(bits.choose(((0, 0), (0, 1), (4, 2), (12, 1))))]
    premultiplied = next((associated for kind, associated in extra if kind == _ALPHA), False)
    has_ink = any(kind == _BLACK for kind, _ in extra)
    return _with_colours(Header(bits.flag(), premultiplied, has_ink, False), bits)


def _codestream(data: bytes) -> bytes:
    """Return the beginning of the codestream of a file, which may be in boxes."""
    if data.startswith(b"\xff\x0a"):
        return data[:_HEADER_BYTES]
    parts = (box for box in bmff.boxes(data) if box.kind in (b"jxlc", b"jxlp"))
    joined = b""
    for box in parts:
        start = box.start + (4 if box.kind == b"jxlp" else 0)  # the number of the part
        joined += data[start : min(box.end, start + _HEADER_BYTES)]
        if len(joined) >= _HEADER_BYTES:
            break
    return joined


def _skip_size(bits: _Bits) -> None:
    is_small = bits.flag()
    for is_width in (False, True):
        if is_width and bits.take(3):  # the ratio tells the width
            return
        if is_small:
            bits.take(5)
        else:
            bits.choose(_SIZE)


def _skip_depth(bits: _Bits) -> None:
    if bits.flag():  # floating point
        bits.choose(((0, 32), (0, 16), (0, 24), (6, 1)))
        bits.take(4)
    else:
        bits.choose(((0, 8), (0, 10), (0, 12), (6, 1)))


def _read_extra_channel(bits: _Bits) -> tuple[int, bool]:
    """Return the kind, and whether colours are multiplied with it."""
    if bits.flag():  # the usual transparency
        return _ALPHA, False
    kind = bits.choose(_ENUM)
    _skip_depth(bits)
    bits.choose(((0, 0), (0, 3), (0, 4), (3, 1)))
    bits.take(8 * bits.choose(((0, 0), (4, 0), (5, 16), (10, 48))))  # the name
    if kind == _ALPHA:
        return kind, bits.flag()
    if kind == _SPOT_COLOUR:
        bits.take(4 * 16)
    elif kind == _CFA:
        bits.choose(((0, 1), (2, 0), (4, 3), (8, 19)))
    return kind, False


def _with_colours(header: Header, bits: _Bits) -> Header:
    if bits.flag():  # sRGB
        return header
    has_profile, space = bits.flag(), bits.choose(_ENUM)
    if has_profile or space == XYB:
        return header._replace(has_profile=has_profile, space=space)
    header = header._replace(space=space, white=_read_points(bits, 1, _WHITE))
    if space != GREY:
        header = header._replace(primaries=_read_points(bits, 3, _PRIMARIES))
    if bits.flag():
        return header._replace(transfer=LINEAR, gamma=1e7 / max(bits.take(24), 1))
    return header._replace(transfer=bits.choose(_ENUM))


def _read_points(bits: _Bits, count: int, known: Mapping[int, tuple[float, ...]]) -> tuple[float, ...]:
    """Return x and y of points that a number stands for, or that follow it."""
    number = bits.choose(_ENUM)
    if number != _CUSTOM:
        if number not in known:
            raise ValueError("a reserved number")
        return known[number]
    coded = [bits.choose(_XY) for _ in range(2 * count)]
    return tuple((-(value + 1) // 2 if value & 1 else value // 2) / 1e6 for value in coded)  # the lowest bit is a sign
