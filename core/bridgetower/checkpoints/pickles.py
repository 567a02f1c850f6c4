"""Read pickled PyTorch weights without running code, and without trusting the sizes that they declare.

    file -> functions that it would call -> tensors, memory-mapped -> one safetensors file
            (plain tensors only)            (the caller checks their shapes)

A pickle is a program, so it may only call functions that make plain tensors. A tensor in it may declare more elements
than the file holds. So before tensors are copied, the elements of each must be distinct in memory, and the declared
bytes of all tensors must not greatly exceed the size of the files.
"""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bridgetower.checkpoints.safetensors_files import TensorHeader, first_line, require_new, write_tensors
from bridgetower.errors import ModelError

_MOST_BYTES = 10_000_000  # of the pickle itself, which holds names and shapes; the numbers are stored separately
_LEGACY_PICKLES = 5  # pickles in one file of the format before PyTorch 1.6
_ALLOWED_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch \w+Storage"
)
_MOST_DECLARED = 2  # declared bytes per byte of the files; tied word embeddings count twice
_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}


def open_pickles(files: Iterable[Path], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Return every tensor of the files, by its name after `rename`, memory-mapped where the format allows.

    Raises ModelError, also if two tensors have the same name.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        for key, tensor in _unpickle(path).items():
            require_new(rename(key), tensors, path)
            tensors[rename(key)] = tensor
    return tensors


def stored(tensors: Mapping[str, Tensor]) -> dict[str, TensorHeader]:
    """Describe tensors like those of a safetensors file."""
    return {
        key: TensorHeader(tuple(tensor.shape), _DTYPES.get(tensor.dtype, str(tensor.dtype)))
        for key, tensor in tensors.items()
    }


def write(target: Path, tensors: Mapping[str, Tensor], files: Iterable[Path]) -> None:
    """Write tensors of these files as safetensors. Raises ModelError if they declare too many bytes; OSError."""
    files = list(files)
    for key, tensor in tensors.items():
        if not _has_distinct_elements(tensor):
            raise ModelError(
                f"{files[0]}: {key} is larger than the numbers that the file holds of it; get this checkpoint as "
                "safetensors, or from a source that you trust"
            )
    claimed, held = sum(t.numel() * t.itemsize for t in tensors.values()), sum(file.stat().st_size for file in files)
    if claimed > _MOST_DECLARED * held:
        raise ModelError(
            f"{files[0]}: its tensors claim {claimed} bytes, the weight files hold {held}; get this checkpoint as "
            "safetensors, or from a source that you trust"
        )
    write_tensors(target, dict(_without_sharing(tensors)))


def _unpickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # the format since PyTorch 1.6
        if not all(map(_ALLOWED_GLOBALS.fullmatch, _globals_of(path, zipped))):
            raise pickle.UnpicklingError
        with warnings.catch_warnings(action="ignore"):  # problems also raise exceptions
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: damaged, or it holds more than plain tensors: sparse or quantised ones, or perhaps Python code, "
            "which was not run; get this checkpoint as safetensors, or from a source that you trust"
        ) from error
    except Exception as error:  # torch raises many types for a damaged file
        raise ModelError(f"{path}: not a complete PyTorch file ({first_line(error)}); fetch it again") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ModelError(f"{path}: it holds no plain mapping of tensors; get this checkpoint as safetensors")
    return content


def _globals_of(path: Path, zipped: bool) -> Iterator[str]:
    """Yield each global that a file refers to, as "module name". Raises ValueError and others for a damaged file."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise ValueError("its records are compressed, which PyTorch never does")
            [listing] = [record for record in records if re.fullmatch(r"[^/]+/data\.pkl", record.filename)]
            with archive.open(listing) as opened:
                beginning = io.BytesIO(opened.read(_MOST_BYTES))
    else:
        with path.open("rb") as file:
            beginning = io.BytesIO(file.read(_MOST_BYTES))
    for _ in range(1 if zipped else _LEGACY_PICKLES):
        for operation, argument, _ in pickletools.genops(beginning):
            if operation.name in ("GLOBAL", "STACK_GLOBAL"):
                yield str(argument)


def _has_distinct_elements(tensor: Tensor) -> bool:
    """Return whether all elements have distinct memory; those of an expanded tensor share it."""
    extent = 1  # elements that the dimensions so far span
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride < extent:
                return False
            extent += stride * (size - 1)
    return True


def _without_sharing(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield contiguous tensors, copied where two share memory (tied ones do), because safetensors refuses that."""
    seen: set[int] = set()
    for key, tensor in tensors.items():
        plain = tensor.detach().resolve_neg().contiguous()
        memory = plain.untyped_storage().data_ptr()
        yield key, plain.clone() if memory in seen else plain
        seen.add(memory)
