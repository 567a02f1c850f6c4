"""Safetensors files: open reads the headers, tensors are memory-mapped on demand, writing replaces a whole file.

Opening a file, its bytes, and its tensors in NumPy need no PyTorch.
"""

import json
import mmap
import struct
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from bridgetower.errors import ModelError
from bridgetower.files.atomic import replace_file

if TYPE_CHECKING:
    from torch import Tensor

_MOST_TENSORS = 100_000  # in all files together; the deepest configuration that we accept has fewer
# As safetensors calls them -> as PyTorch calls them, and bytes.
_TYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I8": ("int8", 1),
}


class _MappedFile:
    """A file that is mapped, and closed with the last array or tensor of it."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:  # private and writable, as PyTorch wants its memory, but never written
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def header(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return where the bytes of the tensors begin, and the entry of each tensor, of a file that was checked."""
        (length,) = struct.unpack_from("<Q", self.map)
        header: dict[str, dict[str, Any]] = json.loads(self.map[8 : 8 + length])
        header.pop("__metadata__", None)
        return 8 + length, header

    def let_go(self, start: int, stop: int) -> None:
        """Take the whole pages of a range of bytes out of the memory of this process; the next read maps them again."""
        first, last = -(-start // mmap.PAGESIZE), stop // mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            with suppress(OSError, ValueError):
                self.map.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """The shape of a tensor, and its type."""

    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it: F32, BF16, I64, ...


@dataclass(frozen=True, slots=True)
class StoredTensor(TensorHeader):
    """A tensor in a file; only its header has been read."""

    file: _MappedFile
    start: int  # of its bytes in the file
    stop: int

    def bytes(self) -> memoryview:
        """Return its bytes, memory-mapped."""
        return memoryview(self.file.map)[self.start : self.stop]

    def tensor(self) -> "Tensor":
        """Return the tensor, memory-mapped."""
        import torch

        dtype = getattr(torch, _TYPES[self.dtype][0])
        if self.start == self.stop:
            return torch.empty(self.shape, dtype=dtype)
        count = (self.stop - self.start) // _TYPES[self.dtype][1]
        return torch.frombuffer(self.file.map, dtype=dtype, count=count, offset=self.start).view(self.shape)

    def array(self, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float32]:
        """Return the tensor, or these rows [n] of it, in float32; the whole of a float32 file is memory-mapped."""
        kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.dtype]
        stored = np.frombuffer(self.bytes(), kind).reshape(self.shape)
        if rows is not None:
            stored = stored[rows]
        if self.dtype == "BF16":  # the upper half of a float32
            return (stored.astype("<u4") << 16).view("<f4")
        return stored.astype(np.float32, copy=False)

    def let_go(self) -> None:
        """Free its memory, all but the pages that it shares with other tensors; arrays and tensors of it stay valid."""
        self.file.let_go(self.start, self.stop)


def open_tensors(files: Iterable[Path], rename: Callable[[str], str] = lambda key: key) -> dict[str, StoredTensor]:
    """Return every tensor of the files, by its name after `rename`. A file is closed with its last tensor.

    Raises ModelError, also if two tensors have the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="np"):  # checks the whole header
                pass
            file = _MappedFile(path)
            start, header = file.header()
            if len(tensors) + len(header) > _MOST_TENSORS:
                raise ModelError(f"{path}: holds more tensors than any network has; fetch it again")
            for key, entry in header.items():
                require_new(rename(key), tensors, path)
                first, last = entry["data_offsets"]
                tensors[rename(key)] = StoredTensor(
                    tuple(entry["shape"]), entry["dtype"], file, start + first, start + last
                )
        except (SafetensorError, OSError, RuntimeError, ValueError, struct.error, LookupError) as error:
            # RuntimeError if mapping fails; the last two if the file was replaced after it was checked
            raise ModelError(
                f"{path}: not a complete safetensors file ({first_line(error)}); fetch it again"
            ) from error
    return tensors


def require_new(key: str, known: Container[str], path: Path) -> None:
    """Raise ModelError if a tensor of `path` has the name of another tensor, in this file or another."""
    if key in known:
        raise ModelError(f"{path}: holds {key:.200} a second time; fetch the whole checkpoint again")


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error, or its type if the message is empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Write tensors to a file, which is replaced as a whole. Raises OSError."""
    from safetensors.torch import save_file

    try:
        replace_file(path, lambda file: save_file(dict(tensors), file, metadata={"format": "pt"}))
    except SafetensorError as error:  # wraps errors of the file system, such as a full disk
        raise OSError(str(error)) from error
