"""Read vector files of NumPy (npy) in parts; errors name the file."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from bridgetower.errors import InputError
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular

LONGEST = 1_000_000  # numbers in a vector
_LONGEST_HEADER = 1 << 16  # bytes; NumPy checks its own limit only after it has read the header
_PART_BYTES = 1 << 20  # read at a time; at least one row
_HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_ADVICE = "give an array of float16, float32 or float64 as `numpy.save` writes it"


class Rows:
    """The rows of a file that holds an array [N, E] of floating-point numbers."""

    def __init__(self, path: Path) -> None:
        """Read the header. Raises InputError for another kind of file, and for one that is too short or too long."""
        self.path = path
        try:
            with open_regular(path) as file:
                shape, self.dtype = _header(file, str(path))
                self._start = file.tell()
                size = file.seek(0, 2)
        except OSError as error:
            raise unreadable(path, error) from error
        if len(shape) != 2 or shape[1] < 1:
            raise InputError(f"{path}: has the shape {list(shape)}: one row for each vector is wanted, [N, E]")
        self.number, self.dim = shape
        if self.dim > LONGEST:
            raise InputError(f"{path}: vectors of {self.dim} numbers, more than the limit of {LONGEST}")
        wanted = self._start + self.number * self.dim * self.dtype.itemsize
        if size != wanted:
            how = "is cut off" if size < wanted else "goes on after its end"
            raise InputError(f"{path}: {how}: {size} bytes, not {wanted}; copy or write it again")

    def __len__(self) -> int:
        return self.number

    def parts(self) -> Iterator[npt.NDArray[np.floating]]:
        """Yield the rows in parts [n, E]. Raises InputError."""
        step = max(1, _PART_BYTES // (self.dim * self.dtype.itemsize))
        try:
            with open_regular(self.path) as file:
                file.seek(self._start)
                for start in range(0, self.number, step):
                    rows = min(step, self.number - start)
                    part = np.fromfile(file, self.dtype, rows * self.dim)
                    if len(part) != rows * self.dim:
                        raise InputError(f"{self.path}: has become shorter meanwhile; run it again")
                    yield part.reshape(rows, self.dim)
        except OSError as error:
            raise unreadable(self.path, error) from error


def vector_from(source: BinaryIO | Path) -> tuple[npt.NDArray[np.float32], str]:
    """Read one vector, as `read_vector` does, from a file or a stream; return it and the name of the source.

    Raises InputError.
    """
    if not isinstance(source, Path):
        said = getattr(source, "name", None)
        name = said.strip("<>") if isinstance(said, str) else "the stream"
        return read_vector(source, name), name
    try:
        with open_regular(source) as file:
            return read_vector(file, str(source)), str(source)
    except OSError as error:
        raise unreadable(source, error) from error


def read_vector(file: BinaryIO, name: str) -> npt.NDArray[np.float32]:
    """Read a vector, stored as [E] or [1, E]; return it as float32 [E] of length 1.

    `name` is for messages. Raises InputError.
    """
    shape, dtype = _header(file, name)
    if len(shape) not in (1, 2) or 0 in shape or (len(shape) == 2 and shape[0] != 1):
        raise InputError(f"{name}: has the shape {list(shape)}: one vector is wanted, [E] or [1, E]")
    if shape[-1] > LONGEST:
        raise InputError(f"{name}: a vector of {shape[-1]} numbers, more than the limit of {LONGEST}")
    data = file.read(shape[-1] * dtype.itemsize)
    if len(data) < shape[-1] * dtype.itemsize:
        raise InputError(f"{name}: is cut off; copy or write it again")
    vector: npt.NDArray[np.float32] = unit(np.frombuffer(data, dtype)[None], name, 0)[0]
    return vector


def unit(rows: npt.NDArray[np.floating], name: str, first: int) -> npt.NDArray[np.float32]:
    """Scale rows [n, E] to length 1. Raises InputError for a row without a direction; rows count from `first`."""
    with np.errstate(invalid="ignore"):  # NumPy warns of some kinds of NaN
        largest = np.abs(rows.astype(np.float64)).max(axis=1, keepdims=True)
    for row in np.flatnonzero(~np.isfinite(largest[:, 0]) | (largest[:, 0] == 0)):
        what = "is zero" if largest[row] == 0 else "holds a number that is not finite"
        raise InputError(f"{name}: row {first + row} {what}: it has no direction; compute it again, or leave it out")
    wide = rows / largest  # so that no square overflows or underflows
    units: npt.NDArray[np.float32] = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return units


def header(rows: int, dim: int) -> bytes:
    """Return the npy header of a little-endian float16 array [rows, dim]."""
    file = BytesIO()
    npy_format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)})
    return file.getvalue()


def _header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read the shape and dtype of a floating-point array, stored row by row. Raises InputError."""
    try:
        version = npy_format.read_magic(file)
        length = file.read(2 if version == (1, 0) else 4)
        if int.from_bytes(length, "little") > _LONGEST_HEADER:
            raise ValueError
        shape, by_columns, dtype = _HEADERS[version](BytesIO(length + file.read(int.from_bytes(length, "little"))))
    except OSError:
        raise
    except Exception as error:  # NumPy raises many types for a damaged header; KeyError: another version
        raise InputError(f"{name}: is no npy file; {_ADVICE}") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise InputError(f"{name}: holds {dtype}; {_ADVICE}")
    if any(length < 0 for length in shape):
        raise InputError(f"{name}: is damaged; {_ADVICE}")
    if by_columns and len(shape) == 2 and min(shape) > 1:
        raise InputError(f"{name}: is stored by columns; save it with numpy.ascontiguousarray")
    return shape, dtype
