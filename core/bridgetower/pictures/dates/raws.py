"""Dates in raw files that are not built like TIFF: RAF of Fujifilm, MRW of Minolta, CRW of Canon, X3F of Sigma.

Their own counts of seconds are of the clock of the camera, in spite of their name (UNIX time).
"""

from collections.abc import Iterator

from bridgetower.pictures.dates import exif
from bridgetower.pictures.dates.order import Block, Source, Taken

FUJI, MINOLTA, CRW, X3F = b"FUJIFILM", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR", b"FOVb"
MAX_PARTS = 1000  # blocks, or entries of a directory; the files of cameras have a few dozen
LONGEST_PROPERTIES = 100_000  # bytes

_FUJI_PREVIEW = 84  # place of the offset and the length of a JPEG
_CRW_HEADER = 26
_CRW_PROPERTIES, _CRW_TIME = 0x300A, 0x180E
_X3F_IMAGE, _X3F_JPEG = 28, 18  # length of the header of an image, and the number of its format


def preview(data: bytes) -> bytes:
    """Return the JPEG in a RAF file, or the first one in an X3F file, whose EXIF is that of the file; else nothing."""
    if data.startswith(FUJI):
        at, length = (int.from_bytes(data[i : i + 4]) for i in (_FUJI_PREVIEW, _FUJI_PREVIEW + 4))
        return data[at : at + length]
    for kind, at, length in _x3f_sections(data):
        if kind in (b"IMAG", b"IMA2") and _little(data, at + 12) == _X3F_JPEG:
            return data[at + _X3F_IMAGE : at + length]
    return b""


def minolta(data: bytes) -> Iterator[Block]:
    """Yield the TIFF in the block TTW of an MRW file."""
    at, end = 8, min(8 + int.from_bytes(data[4:8]), len(data))
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        length = int.from_bytes(data[at + 4 : at + 8])
        if data[at : at + 4] == b"\0TTW":
            yield exif.dates, data[at + 8 : at + 8 + length]
        at += 8 + length


def crw(data: bytes) -> Iterator[Block]:
    """Yield the time in the properties of the picture, which are a heap within the heap of a CRW file."""
    for tag, start, length in _crw_entries(data, _CRW_HEADER, len(data)):
        if tag == _CRW_PROPERTIES:
            for inner, at, _ in _crw_entries(data, start, min(start + length, len(data))):
                if inner == _CRW_TIME:
                    yield _seconds, data[at : at + 4]
            return


def x3f(data: bytes) -> Iterator[Block]:
    """Yield the properties of an X3F file."""
    for kind, at, length in _x3f_sections(data):
        if kind == b"PROP":
            yield _properties, data[at : at + min(length, LONGEST_PROPERTIES)]


def _properties(section: bytes) -> Iterator[Taken]:
    """Yield the time among names and values, whose places are in a table before the text."""
    table = section[24 : 24 + 8 * min(_little(section, 8), MAX_PARTS)]
    words = section[24 + len(table) :].decode("utf-16-le", "replace")
    for entry in range(0, len(table) - 7, 8):
        if words.startswith("TIME\0", _little(table, entry)):
            value = _little(table, entry + 4)
            written = words[value : value + 11].partition("\0")[0]
            if written.isascii() and written.isdecimal():
                yield from _seconds(min(int(written), 2**32 - 1).to_bytes(4, "little"))


def _crw_entries(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield tag, place and length of the entries of the directory at the end of a heap."""
    directory = start + _little(data, end - 4) if end - 4 >= start else end
    count = int.from_bytes(data[directory : directory + 2], "little")
    for entry in range(directory + 2, directory + 2 + 10 * min(count, MAX_PARTS), 10):
        if entry + 10 > end:
            return
        yield (
            int.from_bytes(data[entry : entry + 2], "little"),
            start + _little(data, entry + 6),
            _little(data, entry + 2),
        )


def _x3f_sections(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, place and length of the sections that the directory at the end of an X3F file lists."""
    directory = _little(data, len(data) - 4) if data.startswith(X3F) else len(data)
    for entry in range(directory + 12, directory + 12 + 12 * min(_little(data, directory + 8), MAX_PARTS), 12):
        yield data[entry + 8 : entry + 12], _little(data, entry), _little(data, entry + 4)


def _seconds(written: bytes) -> Iterator[Taken]:
    """Yield the time of a count of seconds; 0 counts as absent."""
    if at := int.from_bytes(written, "little"):
        yield Taken(Source.EXIF_ORIGINAL, at)


def _little(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
