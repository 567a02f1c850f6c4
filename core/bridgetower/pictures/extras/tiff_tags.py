"""Whole numbers in the tags of TIFF files, and of the raw files of cameras that are built like them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

Order = Literal["little", "big"]

MAX_DIRECTORIES = 64  # the first ones of a file count
MAX_ENTRIES = 4096  # of a directory
MAX_VALUES = 1_000_000  # of a tag; a large picture has some ten thousand strips

SUBFILES, COMPRESSION, PHOTOMETRIC, ORIENTATION, PREDICTOR, SAMPLE_FORMAT = 330, 259, 262, 274, 317, 339
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 256, 257, 322, 323, 324
_EXTENTS = ((273, 279), (_TILE_OFFSETS, 325), (513, 514))  # offsets and lengths: of strips, of tiles, of a JPEG
_MAGIC = (b"II*\0", b"MM\0*", b"IIU\0", b"IIRO", b"IIRS", b"MMOR")  # TIFF; Panasonic; Olympus
_SIZES = {1: 1, 3: 2, 4: 4, 13: 4}  # bytes of a value, by type: byte, short, long, directory


class Directory(NamedTuple):
    """A directory of tags."""

    data: bytes  # of the file
    order: Order  # of the bytes of a number
    entries: dict[int, tuple[int, int, int]]  # by tag: type, count, place of the values

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the values of a tag, none if it is absent, no whole numbers, or beyond the end of the file."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        size = _SIZES.get(kind, 0)
        if not size or count > MAX_VALUES or at + size * count > len(self.data):
            return ()
        return tuple(_number(self.data, i, size, self.order) for i in range(at, at + size * count, size))

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        return next(iter(self.numbers(tag)), default)


def directories(data: bytes) -> list[Directory]:
    """Return the directories of a file: the chain of the first, and those below them. None if it is no such file."""
    if not data.startswith(_MAGIC):
        return []
    order: Order = "little" if data.startswith(b"II") else "big"
    found: list[Directory] = []
    waiting, met = [_number(data, 4, 4, order)], set[int]()
    while waiting and len(found) < MAX_DIRECTORIES:
        at = waiting.pop(0)
        if at < 8 or at + 2 > len(data) or at in met:
            continue
        met.add(at)
        entries = dict(_entries(data, at, order))
        found.append(Directory(data, order, entries))
        end = at + 2 + 12 * _number(data, at, 2, order)
        waiting += (_number(data, end, 4, order), *found[-1].numbers(SUBFILES))
    return found


def is_cut(found: list[Directory]) -> bool:
    """Return whether a directory lists too few tiles, or strips, tiles or a JPEG beyond the end of the file."""
    return any(
        offset + length > len(directory.data)
        for directory in found
        for offsets, lengths in _EXTENTS
        for offset, length in zip(directory.numbers(offsets), directory.numbers(lengths), strict=False)
    ) or any(_lacks_tiles(directory) for directory in found)


def _lacks_tiles(directory: Directory) -> bool:
    width, height = directory.number(_TILE_WIDTH), directory.number(_TILE_HEIGHT)
    if not width or not height:
        return False
    needed = -(-directory.number(_WIDTH) // width) * -(-directory.number(_HEIGHT) // height)
    return directory.entries.get(_TILE_OFFSETS, (0, 0, 0))[1] < needed


def _entries(data: bytes, at: int, order: Order) -> Iterator[tuple[int, tuple[int, int, int]]]:
    for i in range(at + 2, at + 2 + 12 * min(_number(data, at, 2, order), MAX_ENTRIES), 12):
        kind, count = _number(data, i + 2, 2, order), _number(data, i + 4, 4, order)
        fits = _SIZES.get(kind, 8) * count <= 4
        yield _number(data, i, 2, order), (kind, count, i + 8 if fits else _number(data, i + 8, 4, order))


def _number(data: bytes, at: int, size: int, order: Order) -> int:
    return int.from_bytes(data[at : at + size], order)
