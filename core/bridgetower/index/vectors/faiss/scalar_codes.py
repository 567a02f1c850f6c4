"""Vectors with one byte per number, memory-mapped: precise enough to choose the few that are then read exactly.

One file holds a header, then rows in the order in which they were added. Each row has its image id and a word that
makes the exclusive or over the row a constant, so that a reader detects a flipped bit or a block of zeros.
"""

import struct
import zlib
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedFileError
from bridgetower.files.regular_files import open_own
from bridgetower.resources import shortage

if TYPE_CHECKING:
    from mmap import mmap

_ROWS = 32_768  # read at a time
_MAGIC = b"btcodes1"
_HEADER = struct.Struct("<8sII")  # magic, length of a vector, CRC-32 of the ranges that follow
_ROW_SUM = np.uint32(0x62744978)  # the exclusive or over an undamaged row
_LEVELS = 255
_MARGIN = 0.05  # of a range, added on either side: other vectors lie a little outside the sample


class Coder:
    """Round each number of a vector to one of 256 levels between the least and the largest of its dimension."""

    def __init__(self, low: NDArray[np.float32], step: NDArray[np.float32]) -> None:
        """`low` and `step` `[E]`: number = low + step * code."""
        self.low, self.step = low, step
        words = -(-len(low) // 4)
        self._row_type = np.dtype([("id", "<i8"), ("codes", "u1", (4 * words,)), ("sum", "<u4")])

    @classmethod
    def train(cls, sample: NDArray[np.float32]) -> Self:
        """Fit the levels to a sample `[n, E]` of the vectors that will be coded."""
        low, high = sample.min(axis=0), sample.max(axis=0)
        margin = _MARGIN * (high - low) + 1e-6
        return cls(low - margin, (high - low + 2 * margin) / _LEVELS)

    @property
    def dim(self) -> int:
        return len(self.low)

    def header(self) -> bytes:
        """Return the header of the file."""
        ranges = self.low.astype("<f4").tobytes() + self.step.astype("<f4").tobytes()
        return _HEADER.pack(_MAGIC, self.dim, zlib.crc32(ranges)) + ranges

    def levels(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the nearest levels of vectors `[n, E]`."""
        levels: NDArray[np.uint8] = np.clip(np.rint((vectors - self.low) / self.step), 0, _LEVELS).astype(np.uint8)
        return levels

    def rows(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> bytes:
        """Return the rows of these images: ids `[n]`, vectors `[n, E]`."""
        rows = np.zeros(len(ids), self._row_type)
        rows["id"] = ids
        rows["codes"][:, : self.dim] = self.levels(vectors)
        rows["sum"] = _sums(rows) ^ _ROW_SUM
        return rows.tobytes()


class ScalarCodes:
    """The rows of a file made by `Coder`, memory-mapped and read when needed."""

    def __init__(self, file: BufferedReader) -> None:
        """Map the file, then close it. Raises DamagedFileError if its header or its length is wrong."""
        self.path = Path(file.name)
        try:
            with file:
                self.coder = _read_header(file)
                start = file.tell()
                self._mapped = np.memmap(file, self.coder._row_type, mode="r", offset=start)
        except (OSError, ValueError) as error:
            raise shortage(error) or DamagedFileError(self.path, str(error)) from error
        self._map, self._end = cast("mmap", self._mapped.base), start + self._mapped.nbytes
        # Buffers kept between searches: allocating this much memory takes longer than the computation in it.
        self._row_buffer = np.empty(0, self.coder._row_type)
        self._code_buffer = np.empty((0, self.coder.dim), np.float32)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file at `path`. Raises DamagedFileError, also if there is no file."""
        try:
            return cls(open_own(path))
        except OSError as error:
            raise shortage(error) or DamagedFileError(path, error.strerror or str(error)) from error

    def __len__(self) -> int:
        return len(self._mapped)

    @property
    def _rows(self) -> np.ndarray:
        """The mapped rows. Raises DamagedFileError if the file was cut short: reading past its end is fatal."""
        try:
            whole = self._map.size() >= self._end
        except OSError:
            whole = False
        if not whole:
            raise DamagedFileError(self.path, "it was cut short while it was in use")
        return self._mapped

    def score(
        self, query: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return image ids `[n]` and approximate inner products `[n]` with `query` `[E]` of the given rows `[n]`.

        Raises DamagedFileError if the sum of a row is wrong.
        """
        if len(rows) > len(self._row_buffer):
            self._row_buffer = np.empty(len(rows), self.coder._row_type)
            self._code_buffer = np.empty((len(rows), self.coder.dim), np.float32)
        taken, wide = self._row_buffer[: len(rows)], self._code_buffer[: len(rows)]
        np.take(self._rows, rows, out=taken, mode="clip")
        wide[...] = self._require_undamaged(taken)["codes"][:, : self.coder.dim]
        scores = wide @ (query * self.coder.step)
        return taken["id"].copy(), scores + np.float32(query @ self.coder.low)

    def noise(self, query: NDArray[np.float32]) -> float:
        """Return the standard deviation of the rounding error of an inner product with `query` `[E]`."""
        return float(np.linalg.norm(query * self.coder.step)) / 12**0.5

    def ids(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the image ids of `rows`, of any shape; -1 stays -1. Sums are not checked."""
        ids: NDArray[np.int64] = self._rows["id"][rows]
        return np.where(rows < 0, -1, ids)

    def differing(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> int:
        """Return how many rows `[n]` differ from the codes of these vectors `[n, E]`. Raises DamagedFileError."""
        found = self._require_undamaged(self._rows[rows])["codes"][:, : self.coder.dim]
        return int((found != self.coder.levels(vectors)).any(axis=1).sum())

    def clipped(self, first: int) -> float:
        """Return the share of numbers outside the ranges, in [0, 1], in the rows from `first`; 0 if there are none.

        Such a number has the lowest or the highest level; few others have. Sums are not checked.
        """
        rows = self._rows[first:]
        parts = (rows["codes"][start : start + _ROWS, : self.coder.dim] for start in range(0, len(rows), _ROWS))
        outside = sum(int(np.count_nonzero((part == 0) | (part == _LEVELS))) for part in parts)
        return outside / max(1, len(rows) * self.coder.dim)

    def check(self) -> NDArray[np.int64]:
        """Check every row; return all ids in the order of the rows. Raises DamagedFileError."""
        parts = (self._rows[start : start + _ROWS] for start in range(0, len(self), _ROWS))
        return np.concatenate([np.zeros(0, np.int64), *(self._require_undamaged(part)["id"] for part in parts)])

    def _require_undamaged(self, rows: np.ndarray) -> np.ndarray:
        if (_sums(rows) != _ROW_SUM).any():
            raise DamagedFileError(self.path, "a row is not as it was written")
        return rows


def _read_header(file: BinaryIO) -> Coder:
    magic, dim, crc32 = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
    ranges = file.read(8 * dim) if magic == _MAGIC else b""
    if not ranges or len(ranges) != 8 * dim or zlib.crc32(ranges) != crc32:
        raise ValueError("its header is not as it was written")
    low, step = np.frombuffer(ranges, "<f4").reshape(2, dim)
    return Coder(low, step)


def _sums(rows: np.ndarray) -> NDArray[np.uint32]:
    """Return the exclusive or over each row `[n]`, in words of four bytes."""
    words = np.ascontiguousarray(rows).view("<u4").reshape(len(rows), rows.dtype.itemsize // 4)
    sums: NDArray[np.uint32] = np.bitwise_xor.reduce(words, axis=1)
    return sums
