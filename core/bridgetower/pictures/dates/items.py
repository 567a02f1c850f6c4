"""EXIF and XMP of HEIF and AVIF files: items, that the box `meta` lists with a kind and the places of their bytes."""

from collections.abc import Iterator
from itertools import groupby, islice
from operator import attrgetter

from bridgetower.pictures.extras import bmff
from bridgetower.pictures.extras.bmff import Box

MAX_EXTENTS = 100_000  # that are looked at; a picture of 200 megapixels has some thousand tiles
LONGEST = 4_000_000  # bytes of an item that are read

_XMP_TYPE = b"application/rdf+xml"
_WIDE = {b"\2": 2, b"\3": 4}  # bytes of the number of an item, by the version of its box


def metadata(data: bytes, meta: Box) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind (Exif or mime) and content of the items with metadata."""
    start = meta.start + 4
    kinds = dict(_kinds(data, start, meta.end))
    box = bmff.find(data, b"idat", start, meta.end)
    listed = islice(bmff.extents(data, start, meta.end), MAX_EXTENTS)
    for number, extents in groupby(listed, key=attrgetter("item")):
        if number in kinds:
            content = b""
            for extent in extents:
                base = box.start if extent.origin == bmff.IN_BOX and box is not None else 0
                if extent.origin in (bmff.IN_FILE, bmff.IN_BOX):
                    first = base + extent.start
                    content += data[first : min(base + extent.end, first + LONGEST - len(content))]
            yield kinds.pop(number), content


def _kinds(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and kind of the items that hold EXIF or XMP, from the box `iinf`."""
    iinf = bmff.find(data, b"iinf", start, end)
    if iinf is None:
        return
    counted = 2 if data[iinf.start : iinf.start + 1] == b"\0" else 4
    for box in bmff.boxes(data, iinf.start + 4 + counted, iinf.end):
        wide = _WIDE.get(data[box.start : box.start + 1], 0)
        kind_at = box.start + 4 + wide + 2
        kind, names = data[kind_at : kind_at + 4], data[kind_at + 4 : min(box.end, kind_at + 300)]
        if wide and box.kind == b"infe" and (kind == b"Exif" or (kind == b"mime" and _XMP_TYPE in names)):
            yield int.from_bytes(data[box.start + 4 : box.start + 4 + wide]), kind
