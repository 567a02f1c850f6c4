"""Dates in IPTC data sets, and in the image resources of Photoshop, which hold IPTC, EXIF and XMP."""

from collections.abc import Iterator

from bridgetower.pictures.dates import spelling
from bridgetower.pictures.dates.order import Source, Taken

LONGEST = 4_000_000  # bytes that are read
MAX_PARTS = 10_000  # data sets, and resources

IPTC, EXIF, XMP = 1028, 1058, 1060  # resources
_SETS = {(2, 55), (2, 60), (2, 62), (2, 63)}  # date and time of creation, date and time of digitising


def dates(data: bytes) -> Iterator[Taken]:
    """Yield the dates of a run of data sets."""
    found: dict[tuple[int, int], bytes] = {}
    at = 0
    for _ in range(MAX_PARTS):
        if at + 5 > len(data) or data[at] != 0x1C:
            break
        key, length = (data[at + 1], data[at + 2]), int.from_bytes(data[at + 3 : at + 5])
        if key in _SETS:
            found.setdefault(key, data[at + 5 : at + 5 + length][: spelling.LONGEST])
        at += 5 + length
    for source, date, time in ((Source.IPTC_CREATED, 55, 60), (Source.IPTC_DIGITIZED, 62, 63)):
        day = found.get((2, date), b"")
        moment = spelling.read(day + b" " + found.get((2, time), b"")) or spelling.read(day)
        if moment is not None:
            yield Taken(source, *moment)


def resources(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the image resources of Photoshop."""
    end = len(data) if end is None else min(end, len(data))
    for _ in range(MAX_PARTS):
        if start + 12 > end or data[start : start + 4] not in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR"):
            return
        size = start + 6 + (data[start + 6] + 2) // 2 * 2  # after the name, whose length is in a byte, made even
        length = int.from_bytes(data[size : size + 4])
        yield int.from_bytes(data[start + 4 : start + 6]), data[size + 4 : min(size + 4 + min(length, LONGEST), end)]
        start = size + 4 + (length + 1) // 2 * 2


def resource_dates(data: bytes) -> Iterator[Taken]:
    """Yield the dates of the IPTC among the image resources of Photoshop."""
    for number, content in resources(data):
        if number == IPTC:
            yield from dates(content)
