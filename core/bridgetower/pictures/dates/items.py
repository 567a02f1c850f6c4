"""EXIF and XMP of HEIF and AVIF files: items, that the box `meta` lists with a kind and the places of their bytes."""

from collections.abc import Iterator

from bridgetower.pictures.extras import bmff
from bridgetower.pictures.extras.bmff import Box

MAX_ITEMS = 10_000  # a picture of 200 megapixels has some thousand tiles
MAX_EXTENTS = 64  # of an item
LONGEST = 4_000_000  # bytes of an item that are read

_XMP_TYPE = b"application/rdf+xml"
_WIDE = {b"\2": 2, b"\3": 4}  # bytes of the number of an item, by the version of its box
_IN_FILE, _IN_BOX = 0, 1  # where offsets count from: the file, or the box `idat`


def metadata(data: bytes, meta: Box) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind (Exif or mime) and content of the items with metadata."""
    start = meta.start + 4
    kinds = dict(_kinds(data, start, meta.end))
    box = bmff.find(data, b"idat", start, meta.end)
    for number, in_box, extents in _places(data, start, meta.end):
        if number in kinds:
            base = box.start if in_box and box is not None else 0
            content = b""
            for at, length in extents:
                content += data[base + at : base + at + min(length, LONGEST - len(content))]
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


def _places(data: bytes, start: int, end: int) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yield number, whether offsets count from `idat`, and the extents (offset, length) of items, from `iloc`."""
    iloc = bmff.find(data, b"iloc", start, end)
    if iloc is None:
        return
    at = iloc.start

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at])

    version, sizes = take(4) >> 24, take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    if not version:
        index_size = 0
    wide = 4 if version == 2 else 2
    for _ in range(min(take(wide), MAX_ITEMS)):
        number = take(wide)
        origin = take(2) & 15 if version else _IN_FILE
        take(2)
        base = take(base_size)
        count = take(2)
        extents: list[tuple[int, int]] = []
        for _ in range(min(count, MAX_EXTENTS)):
            take(index_size)
            extents.append((base + take(offset_size), take(length_size)))
        at += (count - len(extents)) * (index_size + offset_size + length_size)
        if at > min(iloc.end, len(data)):
            return
        if origin in (_IN_FILE, _IN_BOX):
            yield number, origin == _IN_BOX, extents
