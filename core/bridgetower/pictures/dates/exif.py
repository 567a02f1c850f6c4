"""Dates in EXIF, and in the other tags of TIFF files and of raw files that are built like them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from bridgetower.pictures.dates import iptc, spelling, xmp
from bridgetower.pictures.dates.order import Source, Taken

MAX_ENTRIES = 4096  # of a directory

_ORIGINAL, _DIGITIZED, _EXIF, _GPS, _XMP, _IPTC, _RESOURCES = 36867, 36868, 34665, 34853, 700, 33723, 34377
_OFFSETS = (36881, 36882, 36880)  # zones, as "+02:00": of the original, of digitising, of the last change
_GPS_TIME, _GPS_DATE = 7, 29
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BIG_TIFF = 43
_PREFIX = b"Exif\0\0"


def dates(block: bytes) -> Iterator[Taken]:
    """Yield the dates of a TIFF file, or of a block of EXIF with or without its prefix."""
    tiff = _opened(block[len(_PREFIX) :] if block.startswith(_PREFIX) else block)
    if tiff is None:
        return
    first = tiff.directory(tiff.number(8, 8) if tiff.is_big else tiff.number(4, 4))
    exif = tiff.directory(tiff.pointer(first, _EXIF))
    for source, tag in ((Source.EXIF_ORIGINAL, _ORIGINAL), (Source.EXIF_DIGITIZED, _DIGITIZED)):
        for directory in (first, exif):  # TIFF/EP, and raw files, have them in the first
            if found := spelling.read(tiff.content(directory, tag, spelling.LONGEST)):
                yield Taken(source, *found)
    yield from _gps(tiff, tiff.directory(tiff.pointer(first, _GPS)), exif)
    yield from xmp.dates(tiff.content(first, _XMP, xmp.LONGEST))
    yield from iptc.dates(tiff.content(first, _IPTC, iptc.LONGEST))
    yield from iptc.resource_dates(tiff.content(first, _RESOURCES, iptc.LONGEST))


_Directory = dict[int, tuple[int, int]]  # by tag: place and length of the values


class _Tiff(NamedTuple):
    """A file in which offsets count from its beginning. What lies beyond its end reads as 0 or as nothing."""

    data: bytes
    order: Literal["little", "big"]
    is_big: bool  # BigTIFF, with offsets of 8 bytes

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], self.order)

    def directory(self, at: int) -> _Directory:
        """Return the directory at a place, without entries if it is 0 or beyond the end."""
        counted, length, inline = (8, 20, 8) if self.is_big else (2, 12, 4)
        if not at or at + counted > len(self.data):
            return {}
        found: _Directory = {}
        start = at + counted
        end = min(start + length * min(self.number(at, counted), MAX_ENTRIES), len(self.data) - length + 1)
        for entry in range(start, end, length):
            size = _SIZES.get(self.number(entry + 2, 2), 1) * self.number(entry + 4, inline)
            value = entry + 4 + inline
            found.setdefault(self.number(entry, 2), (value if size <= inline else self.number(value, inline), size))
        return found

    def content(self, directory: _Directory, tag: int, most: int) -> bytes:
        """Return the bytes of a tag, none if it is absent, and `most` at most."""
        at, size = directory.get(tag, (0, 0))
        return self.data[at : at + min(size, most)]

    def pointer(self, directory: _Directory, tag: int) -> int:
        return int.from_bytes(self.content(directory, tag, 8), self.order)


def _opened(data: bytes) -> _Tiff | None:
    if data[:2] not in (b"II", b"MM"):
        return None
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    return _Tiff(data, order, int.from_bytes(data[2:4], order) == _BIG_TIFF)


def _gps(tiff: _Tiff, gps: _Directory, exif: _Directory) -> Iterator[Taken]:
    """Yield the time of the satellites, in UTC unless the EXIF tells the zone."""
    found = spelling.read(tiff.content(gps, _GPS_DATE, spelling.LONGEST))
    if found is None:
        return
    at, span = found
    time = tiff.content(gps, _GPS_TIME, 24)
    parts = [int.from_bytes(time[i : i + 4], tiff.order) for i in range(0, len(time), 4)]
    if span == spelling.DAY and len(parts) == 6 and all(parts[1::2]):
        hours, minutes, seconds = (parts[i] // parts[i + 1] for i in (0, 2, 4))
        if hours < 24 and minutes < 60 and seconds <= 60:
            at, span = at + 3600 * hours + 60 * minutes + seconds, 1
    if span == 1:
        at += next((zone for tag in _OFFSETS if (zone := _zone(tiff.content(exif, tag, 7))) is not None), 0)
    yield Taken(Source.GPS, at, span)


def _zone(written: bytes) -> int | None:
    """Return the seconds by which a zone, as "+02:00", is ahead of UTC; None if it is absent or impossible."""
    text = written.rstrip(b"\0 ").decode("latin-1")
    if len(text) != 6 or text[0] not in "+-" or text[3] != ":" or not (text[1:3] + text[4:]).isdecimal():
        return None
    hours, minutes = int(text[1:3]), int(text[4:])
    return None if hours > 14 or minutes > 59 else (3600 * hours + 60 * minutes) * (-1 if text[0] == "-" else 1)
