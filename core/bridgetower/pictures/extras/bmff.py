"""Boxes of ISO base media files (HEIF, CR3, JPEG XL): a length, a kind and a content each."""

from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 10_000  # of one parent; a file of a camera has a few dozen


class Box(NamedTuple):
    """A box of a file."""

    kind: bytes  # four letters
    start: int  # of the content, in the file
    end: int  # as declared: beyond the end of the file if the file was cut


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes from `start` to `end`, by default of the whole file; stop at bytes that are no box.

    Cameras put bytes of their own after the last box.
    """
    end = len(data) if end is None else min(end, len(data))
    for _ in range(MAX_BOXES):
        if start + 8 > end:
            return
        size, kind, content = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], start + 8
        if not kind.isascii() or not kind.decode("ascii", "replace").isprintable():
            return
        if size == 1:
            size, content = int.from_bytes(data[start + 8 : start + 16]), start + 16
        following = start + size if size else end
        if following < content:
            return
        yield Box(kind, content, following)
        start = following


def find(data: bytes, kind: bytes, start: int = 0, end: int | None = None) -> Box | None:
    """Return the first box of a kind, or None."""
    return next((box for box in boxes(data, start, end) if box.kind == kind), None)


def brands(data: bytes) -> frozenset[bytes]:
    """Return the brands of a file, none if it is no such file."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4]), 1024)
    return frozenset((data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))))


def is_cut(data: bytes) -> bool:
    """Return whether a box, or the content of an item of a HEIF file, reaches beyond the end of the file."""
    for box in boxes(data):
        if box.end > len(data):
            return True
        if box.kind == b"meta" and any(end > len(data) for end in _item_ends(data, box.start + 4, box.end)):
            return True
    return False


def _item_ends(data: bytes, start: int, end: int) -> Iterator[int]:
    """Yield the ends, in the file, of the extents that the box `iloc` of a box `meta` lists."""
    iloc = find(data, b"iloc", start, end)
    if iloc is None:
        return
    at = iloc.start

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at])

    version, sizes = take(4) >> 24, take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    for _ in range(take(wide)):
        if at >= iloc.end:
            return
        take(wide)  # the number of the item
        in_file = take(2) & 15 == 0 if version else True  # else in the box `idat`, or in another item
        take(2)
        base, count = take(base_size), take(2)
        takes_bytes = offset_size or length_size or (index_size if version else 0)  # else it says nothing
        for _ in range(count if takes_bytes else 0):
            if at >= iloc.end:
                return
            take(index_size if version else 0)
            offset, length = take(offset_size), take(length_size)
            if in_file:
                yield base + offset + length
