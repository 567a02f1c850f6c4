"""Safetensors files: open reads the headers, tensors are memory-mapped on demand, writing replaces a whole file."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bridgetower.errors import ModelError
from bridgetower.files.atomic import replace_file

_MOST_TENSORS = 100_000  # in all files together; the deepest configuration that we accept has fewer


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file; only its header has been read."""

    shape: tuple[int, ...]
    dtype: str  # as in the header: F32, BF16, I64, ...
    read: Callable[[], Tensor]  # memory-mapped


def open_tensors(files: Iterable[Path], rename: Callable[[str], str] = lambda key: key) -> dict[str, StoredTensor]:
    """Return every tensor of the files, by its name after `rename`. A file is closed with its last tensor.

    Raises ModelError, also if two tensors have the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        try:
            file: Any = safe_open(path, framework="pt")
            keys = file.keys()
            if len(tensors) + len(keys) > _MOST_TENSORS:
                raise ModelError(f"{path}: holds more tensors than any network has; fetch it again")
            for key in keys:
                header = file.get_slice(key)
                require_new(rename(key), tensors, path)
                tensors[rename(key)] = StoredTensor(
                    tuple(header.get_shape()), header.get_dtype(), partial(file.get_tensor, key)
                )
        except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError if mapping fails
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file, which is replaced as a whole. Raises OSError."""
    try:
        replace_file(path, lambda file: save_file(dict(tensors), file, metadata={"format": "pt"}))
    except SafetensorError as error:  # wraps errors of the file system, such as a full disk
        raise OSError(str(error)) from error


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor of any type, as in memory."""
    array = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array.data)
