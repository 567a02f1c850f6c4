"""The part of the header of a JPEG XL picture that pylibjxl does not tell: the transfer function of its colours.

The fields are those of ISO/IEC 18181-1, in their order; each number is a choice of four ways to write it.
"""

from bridgetower.pictures.extras import bmff

_Choice = tuple[int, int]  # bits to read, and what to add to them
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_PREVIEW_8 = ((0, 16), (0, 32), (5, 1), (9, 33))
_PREVIEW = ((6, 1), (8, 65), (10, 321), (12, 1345))
_ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
_XY = ((19, 0), (19, 1 << 19), (20, 1 << 20), (21, 1 << 21))
_ALPHA, _SPOT_COLOUR, _CFA = 0, 2, 5  # kinds of extra channels
_RGB, _XYB, _CUSTOM = 0, 2, 2
LINEAR, SRGB, PQ, HLG = 8, 13, 16, 18  # transfer functions
_HEADER_BYTES = 4096  # more than any header has that we need


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


def transfer_function(data: bytes) -> int | None:
    """Return the number of the transfer function; None for a gamma or an ICC profile. Raises ValueError if the file has
    no header."""
    codestream = _codestream(data)
    if not codestream.startswith(b"\xff\x0a"):
        raise ValueError("no codestream")
    bits = _Bits(codestream[2:])
    _skip_size(bits)
    if bits.flag():  # all as usual
        return SRGB
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
    for _ in range(bits.choose(((0, 0), (0, 1), (4, 2), (12, 1)))):
        _skip_extra_channel(bits)
    bits.flag()  # coded as XYB
    return _read_transfer(bits)


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


def _skip_extra_channel(bits: _Bits) -> None:
    if bits.flag():  # the usual transparency
        return
    kind = bits.choose(_ENUM)
    _skip_depth(bits)
    bits.choose(((0, 0), (0, 3), (0, 4), (3, 1)))
    bits.take(8 * bits.choose(((0, 0), (4, 0), (5, 16), (10, 48))))  # the name
    if kind == _ALPHA:
        bits.flag()  # colours are multiplied with it
    elif kind == _SPOT_COLOUR:
        bits.take(4 * 16)
    elif kind == _CFA:
        bits.choose(((0, 1), (2, 0), (4, 3), (8, 19)))


def _read_transfer(bits: _Bits) -> int | None:
    if bits.flag():  # sRGB
        return SRGB
    has_profile, space = bits.flag(), bits.choose(_ENUM)
    if has_profile or space == _XYB:
        return None
    if bits.choose(_ENUM) == _CUSTOM:  # white
        _skip_points(bits, 1)
    if space == _RGB and bits.choose(_ENUM) == _CUSTOM:  # primaries
        _skip_points(bits, 3)
    return None if bits.flag() else bits.choose(_ENUM)


def _skip_points(bits: _Bits, count: int) -> None:
    for _ in range(2 * count):
        bits.choose(_XY)
