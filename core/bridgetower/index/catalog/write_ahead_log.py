"""SQLite's write-ahead log beside a manifest: count the commits in it that SQLite will not read.

When SQLite opens a database, it reads the log up to the first frame whose checksum is wrong, and drops the rest as a
write that was not completed. After a power cut this is right. After a disk has altered a frame it is wrong: complete
transactions may follow, each on the disk before the next one began, and SQLite drops them silently.

Layout: sqlite.org/fileformat2.html, 4.1 and 4.2.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from bridgetower.index.catalog.schema import PAGE_BYTES

if TYPE_CHECKING:  # imported only if there is a log: the import takes longer than most commands
    import numpy as np
    from numpy.typing import NDArray

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salt (2), checksum (2)
_FRAME = struct.Struct(">6I")  # page, pages of the database after a commit or 0, salt (2), checksum (2)
_MAGIC = 0x377F0682  # checksums over little-endian words; _MAGIC + 1: over big-endian words
_FRAMES = 256  # read at a time
_WORD = 0xFFFFFFFF


class _Frame(NamedTuple):
    is_commit: bool
    salt: tuple[int, int]
    stored: tuple[int, int]  # checksum
    sums: tuple[int, int]  # checksum of its content alone, begun with zeros


def log_of(database: Path) -> Path:
    """Return the path of the log of a database."""
    return database.with_name(database.name + "-wal")


def lost_commits(database: Path) -> int:
    """Return how many committed transactions in the log of `database` SQLite will not read; 0 if the log is sound.

    A log with an incomplete last write is sound. Another process may write to the log meanwhile. Raises OSError.
    """
    log = log_of(database)
    seen, found = None, _find_lost(log)
    while found is not None and found != seen:  # a writer may have changed the log during the read
        seen, found = found, _find_lost(log)
    return 0 if found is None else found[0]


def _find_lost(log: Path) -> tuple[int, int, bytes] | None:
    """Return the numbers of lost commits and of frames that SQLite reads, and the header; None if none is lost."""
    with suppress(FileNotFoundError), open(log, "rb") as file:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return None
        frames = _frames(file, header)
        magic, *_, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack(header)
        salt, checksum, read = (salt_1, salt_2), (sum_1, sum_2), 0
        rest: list[_Frame] = []  # not read by SQLite; the frames before may be too many for memory
        computed: tuple[int, int] | None = None  # the checksum that the first frame in `rest` should have
        if magic in (_MAGIC, _MAGIC + 1) and _header_checksum(header) == checksum:
            for frame in frames:
                computed = _next_checksum(checksum, frame)
                if frame.salt != salt or computed != frame.stored:
                    rest = [frame, *frames]
                    break
                read, checksum = read + 1, frame.stored
        elif rest := list(frames):  # the header is damaged, so SQLite reads no frame
            [(salt, _)] = Counter(frame.salt for frame in rest).most_common(1)
        checksums = [{frame.stored} for frame in rest]
        if rest and computed is not None:  # in the first wrong frame, the stored checksum may be what was altered
            checksums[0].add(computed)

        def is_followed(number: int) -> bool:
            """Return whether the next frame continues this checksum; if so, this frame was on the disk before it."""
            after = rest[number + 1 : number + 2]
            return any(
                one.salt == salt and one.stored == _next_checksum(before, one)
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
    """Yield every complete frame; later frames may be older, left from before the last checkpoint."""
    import numpy as np

    order = _byte_order(header)
    size = FRAME_HEADER_BYTES + PAGE_BYTES
    while data := file.read(_FRAMES * size):
        rows = np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)
        summed = np.concatenate([rows[:, :8], rows[:, FRAME_HEADER_BYTES:]], axis=1)
        sums = _checksums(summed.view(order).astype(np.uint32))
        for row, pair in zip(rows, sums.tolist(), strict=True):
            _, pages, salt_1, salt_2, sum_1, sum_2 = _FRAME.unpack(row[:FRAME_HEADER_BYTES].tobytes())
            yield _Frame(pages != 0, (salt_1, salt_2), (sum_1, sum_2), tuple(pair))


def _header_checksum(header: bytes) -> tuple[int, int]:
    import numpy as np

    [[first, second]] = _checksums(np.frombuffer(header[:24], _byte_order(header)).astype(np.uint32)[None]).tolist()
    return first, second


def _byte_order(header: bytes) -> str:
    """Return the byte order of the words under a checksum, as numpy type; native if the header does not tell it."""
    orders = {_MAGIC: "<u4", _MAGIC + 1: ">u4"}
    return orders.get(_HEADER.unpack(header)[0], "=u4")


def _checksums(words: "NDArray[np.uint32]") -> "NDArray[np.uint32]":
    """Return the checksums [n, 2] of rows of words [n, 2 * m], begun with zeros.

    For each pair of words x, y SQLite computes a += x + b, then b += y + a. This is linear, so the checksum of a row is
    two sums of products modulo 2^32.
    """
    import numpy as np

    factors = np.array(_checksum_factors(words.shape[1] // 2)[0], np.uint32)  # [2, 2 * m]
    return np.stack([(words * factor).sum(axis=1, dtype=np.uint32) for factor in factors], axis=1)


def _next_checksum(checksum: tuple[int, int], frame: _Frame) -> tuple[int, int]:
    """Return the checksum of a frame that follows a frame with this checksum."""
    (aa, ab), (ba, bb) = _checksum_factors((8 + PAGE_BYTES) // 8)[1]
    a, b = checksum
    return (aa * a + ab * b + frame.sums[0]) & _WORD, (ba * a + bb * b + frame.sums[1]) & _WORD


@cache
def _checksum_factors(pairs: int) -> tuple[tuple[list[int], list[int]], tuple[tuple[int, int], tuple[int, int]]]:
    """Return the factors of each word of `pairs` pairs in the two sums, and of the two previous sums in them."""
    first: list[int] = []
    second: list[int] = []
    (aa, ab), (ba, bb) = (1, 0), (0, 1)  # the factors of (a, b) after the pairs that follow
    for _ in range(pairs):
        # From the last pair to the first: x adds (1, 1) to (a, b), y adds (0, 1).
        first += [ab, aa + ab & _WORD]
        second += [bb, ba + bb & _WORD]
        (aa, ab), (ba, bb) = (
            (aa + ab & _WORD, aa + 2 * ab & _WORD),
            (ba + bb & _WORD, ba + 2 * bb & _WORD),
        )
    return (first[::-1], second[::-1]), ((aa, ab), (ba, bb))
