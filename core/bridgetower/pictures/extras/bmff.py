"""Boxes of ISO base media files (HEIF, CR3, JPEG XL): a length, a kind and a content each."""

from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 10_000  # of one parent; a file of a camera has a few dozen
IN_FILE, IN_BOX = 0, 1  # where the offsets of an extent count from: the file, or the box `idat`


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
        if box.kind == b"meta" and any(
            extent.origin == IN_FILE and extent.end > len(data) for extent in extents(data, box.start + 4, box.end)
        ):
            return True
    return False


class Extent(NamedTuple):
    """A part of the bytes of an item."""

    item: int  # its number
    origin: int  # of `start`: IN_FILE, IN_BOX, or 2, another item
    start: int
    end: int


def extents(data: bytes, start: int, end: int) -> Iterator[Extent]:
    """Yield the extents that the box `iloc` of a box `meta` lists, in order."""
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
    index_size = index_size if version else 0
    wide = 4 if version == 2 else 2
    for _ in range(take(wide)):
        if at >= iloc.end:
            return
        number = take(wide)
        origin = take(2) & 15 if version else IN_FILE
        take(2)
        base, count = take(base_size), take(2)
        takes_bytes = offset_size or length_size or index_size  # else it says nothing
        for _ in range(count if takes_bytes else 0):
            if at >= iloc.end:
                return
            take(index_size)
            first, length = base + take(offset_size), take(length_size)
            yield Extent(number, origin, first, first + length)
