"""SQLite's write-ahead log beside a manifest: whether commits in it are out of SQLite's reach.

Opening a database, SQLite reads its log up to the first frame whose checksum is wrong, and takes all that follows for
a write that never ended. After a power cut that is so. After a disk has altered a frame it is not: whole transactions
may follow, each on the disk before the next one began, and SQLite drops them without a word.

The layout is that of sqlite.org/fileformat2.html, 4.1 and 4.2.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from bridgetower.index.catalog.schema import PAGE_BYTES

if TYPE_CHECKING:  # it takes longer to import than most commands take to run, and few of them find a log
    import numpy as np
    from numpy.typing import NDArray

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salt (2), checksum (2)
_FRAME = struct.Struct(">6I")  # page, pages of the database after a commit or 0, salt (2), checksum (2)
_MAGIC = 0x377F0682  # checksums of little-endian words; one more: of big-endian words
_FRAMES = 256  # that are read at a time
_WORD = 0xFFFFFFFF


class _Frame(NamedTuple):
    is_commit: bool
    salt: tuple[int, int]
    stored: tuple[int, int]  # checksum
    sums: tuple[int, int]  # of its content, to be added to the checksum of the frame before


def log_of(database: Path) -> Path:
    """Where SQLite has the log of a database."""
    return database.with_name(database.name + "-wal")


def lost_commits(database: Path) -> int:
    """How many transactions in the log of `database` were committed and will not be read by SQLite; 0 if it is sound.

    A log whose end was never written completely is sound. Another process may write to it. Raises OSError.
    """
    log = log_of(database)
    seen, found = None, _look(log)
    while found is not None and found != seen:  # a writer that was at work has gone on meanwhile
        seen, found = found, _look(log)
    return 0 if found is None else found[0]


def _look(log: Path) -> tuple[int, int, bytes] | None:
    """How many commits are lost, behind how many frames, and the header; None where none are."""
    with suppress(FileNotFoundError), open(log, "rb") as file:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return None
        frames = _frames(file, header)
        magic, *_, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack(header)
        salt, checksum, read = (salt_1, salt_2), (sum_1, sum_2), 0
        rest: list[_Frame] = []  # that SQLite does not read; the others may be too many to be held
        computed: tuple[int, int] | None = None  # the checksum that the first of them should have
        if magic in (_MAGIC, _MAGIC + 1) and _sums_of_header(header) == checksum:
            for frame in frames:
                computed = _following(checksum, frame)
                if frame.salt != salt or computed != frame.stored:
                    rest = [frame, *frames]
                    break
                read, checksum = read + 1, frame.stored
        elif rest := list(frames):  # nothing follows from such a header, so that SQLite reads nothing
            [(salt, _)] = Counter(frame.salt for frame in rest).most_common(1)
        checksums = [{frame.stored} for frame in rest]
        if rest and computed is not None:  # of the first frame that is wrong, what was altered may be this itself
            checksums[0].add(computed)

        def is_followed(number: int) -> bool:
            """Whether a frame was written after this one, which was on the disk then if it ended a transaction."""
            after = rest[number + 1 : number + 2]
            return any(
                one.salt == salt and one.stored == _following(before, one)
                for one in after
                for before in checksums[number]
            )

        commits = [number for number, frame in enumerate(rest) if frame.is_commit]
        followed = [number for number in commits if is_followed(number)]
        if followed:
            ended = {number for number in commits if rest[number].salt == salt}
            return len(ended.union(followed)), read, header
    return None


def _frames(file: BinaryIO, header: bytes) -> Iterator[_Frame]:
    """Every complete frame, of whatever age; the first one need not be the oldest."""
    import numpy as np

    order = _order(header)
    size = FRAME_HEADER_BYTES + PAGE_BYTES
    while data := file.read(_FRAMES * size):
        rows = np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)
        summed = np.concatenate([rows[:, :8], rows[:, FRAME_HEADER_BYTES:]], axis=1)
        sums = _sums(summed.view(order).astype(np.uint32))
        for row, pair in zip(rows, sums.tolist(), strict=True):
            _, pages, salt_1, salt_2, sum_1, sum_2 = _FRAME.unpack(row[:FRAME_HEADER_BYTES].tobytes())
            yield _Frame(pages != 0, (salt_1, salt_2), (sum_1, sum_2), tuple(pair))


def _sums_of_header(header: bytes) -> tuple[int, int]:
    import numpy as np

    [[first, second]] = _sums(np.frombuffer(header[:24], _order(header)).astype(np.uint32)[None]).tolist()
    return first, second


def _order(header: bytes) -> str:
    """Of the bytes in a word that is summed: that of the machine that began the log, if the header says it."""
    orders = {_MAGIC: "<u4", _MAGIC + 1: ">u4"}
    return orders.get(_HEADER.unpack(header)[0], "=u4")


def _sums(words: "NDArray[np.uint32]") -> "NDArray[np.uint32]":
    """The checksums [n, 2] of rows of words [n, 2 * m], begun with zeros.

    For each pair of words x, y SQLite computes a += x + b, then b += y + a: linear, so that a row is two sums of
    products modulo 2^32.
    """
    import numpy as np

    factors = np.array(_factors(words.shape[1] // 2)[0], np.uint32)  # [2, 2 * m]
    return np.stack([(words * factor).sum(axis=1, dtype=np.uint32) for factor in factors], axis=1)


def _following(checksum: tuple[int, int], frame: _Frame) -> tuple[int, int]:
    """The checksum of a frame that stands after one with this checksum."""
    (aa, ab), (ba, bb) = _factors((8 + PAGE_BYTES) // 8)[1]
    a, b = checksum
    return (aa * a + ab * b + frame.sums[0]) & _WORD, (ba * a + bb * b + frame.sums[1]) & _WORD


@cache
def _factors(pairs: int) -> tuple[tuple[list[int], list[int]], tuple[tuple[int, int], tuple[int, int]]]:
    """By how much each word of so many pairs counts in the two sums, and the two sums from before in them."""
    first: list[int] = []
    second: list[int] = []
    (aa, ab), (ba, bb) = (1, 0), (0, 1)  # what becomes of (a, b) after the pairs that follow
    for _ in range(pairs):
        # The last pair first: x adds (1, 1) to (a, b), y adds (0, 1).
        first += [ab, aa + ab & _WORD]
        second += [bb, ba + bb & _WORD]
        (aa, ab), (ba, bb) = (
            (aa + ab & _WORD, aa + 2 * ab & _WORD),
            (ba + bb & _WORD, ba + 2 * bb & _WORD),
        )
    return (first[::-1], second[::-1]), ((aa, ab), (ba, bb))
