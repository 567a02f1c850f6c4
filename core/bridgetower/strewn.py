"""Rows of the table of images from the pages of a damaged manifest, whatever leads to them: for when that is lost.

Each leaf of a table says by itself what rows it holds (sqlite.org/fileformat2.html, 1.6 and 2.1). What is no leaf, and
rows that were removed, may look like some: whoever reads must know the sum of a row, and that it is still in use.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bridgetower.schema import PAGE_BYTES
from bridgetower.write_ahead_log import FRAME_HEADER_BYTES, HEADER_BYTES, log_of

_LEAF = 0x0D
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes, by serial type
_FIRST_BLOB = 12

Value = int | bytes | None  # all that stands in a row of an image


def strewn_rows(manifest: Path, columns: int) -> Iterator[tuple[int, list[Value]]]:
    """The number of each row of so many columns, and its values, of the file and of its log; in no order, some twice.

    Rows that do not fit on a page are left out. Raises OSError.
    """
    for page in _pages(manifest):
        if page[0] != _LEAF:
            continue
        for place in range(8, 8 + 2 * int.from_bytes(page[3:5], "big"), 2):
            with suppress(IndexError, ValueError):  # no row stands there
                at = int.from_bytes(page[place : place + 2], "big")
                size, at = _varint(page, at)
                number, at = _varint(page, at)
                row = _record(page[at : at + size])
                if len(row) == columns and at + size <= len(page):
                    yield number, row


def _pages(manifest: Path) -> Iterator[bytes]:
    for path, start, between in (
        (manifest, 0, 0),
        (log_of(manifest), HEADER_BYTES + FRAME_HEADER_BYTES, FRAME_HEADER_BYTES),
    ):
        with suppress(FileNotFoundError), open(path, "rb") as file:
            file.seek(start)
            while len(page := file.read(PAGE_BYTES)) == PAGE_BYTES:
                yield page
                file.seek(between, 1)


def _record(data: bytes) -> list[Value]:
    """The values of a record. Raises ValueError or IndexError for what is none."""
    head, at = _varint(data, 0)
    types = []
    while at < head:
        kind, at = _varint(data, at)
        types.append(kind)
    values: list[Value] = []
    for kind in types:
        if kind in _INTEGERS:
            size = _INTEGERS[kind]
            values.append(int.from_bytes(data[at : at + size], "big", signed=True))
        elif kind in (8, 9):  # the numbers 0 and 1
            size = 0
            values.append(kind - 8)
        elif kind >= _FIRST_BLOB:
            size = (kind - _FIRST_BLOB) // 2
            values.append(data[at : at + size])
        elif kind == 0:
            size = 0
            values.append(None)
        else:
            raise ValueError("a kind of value that no image has")
        at += size
    if at != len(data):
        raise ValueError("shorter or longer than it says")
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends. Raises IndexError."""
    value = 0
    for end in range(at, at + 8):
        value = value << 7 | data[end] & 0x7F
        if data[end] < 0x80:
            return value, end + 1
    return value << 8 | data[at + 8], at + 9
