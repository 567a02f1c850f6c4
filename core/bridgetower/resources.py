"""Recognise errors that mean a lack of memory, file handles or threads, not a defect of the program or of a file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from bridgetower.errors import BridgeTowerError, ResourceError

# Texts in the errors of PyTorch, which raises RuntimeError for everything, and of libraries that fail to load.
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "failed to map segment",
    "cublas_status_alloc_failed",
)
_NO_HANDLES = ("too many open files",)


def out_of_memory(error: BaseException) -> bool:
    """Return whether `error` or a cause of it is a lack of memory, of this process or of the GPU."""
    return any(map(_lacks_memory, causes(error)))


def out_of_handles(error: BaseException) -> bool:
    """Return whether `error` or a cause of it means that this process or the system can open no more files."""
    return any(map(_lacks_handles, causes(error)))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error`, then the error that it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or _matches(error, (errno.ENOMEM,), _NO_MEMORY)


def _lacks_handles(error: BaseException) -> bool:
    return _matches(error, (errno.EMFILE, errno.ENFILE), _NO_HANDLES)


def _matches(error: BaseException, numbers: tuple[int, ...], texts: tuple[str, ...]) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return isinstance(error, OSError | RuntimeError | ImportError) and any(text in str(error).lower() for text in texts)


def shortage(error: BaseException) -> ResourceError | None:
    """Return the error to raise instead if `error` or a cause of it is a lack of a resource, else None."""
    if out_of_handles(error):
        return ResourceError("too many open files: close other programs, or raise the limit (`ulimit -n`)")
    if any(_lacks_memory(cause) and "cuda" in str(cause).lower() for cause in causes(error)):
        return ResourceError("not enough memory on the GPU: use a smaller batch, or the processor (`--device cpu`)")
    if out_of_memory(error):
        return ResourceError("not enough memory: close other programs, or raise the limit (`ulimit -v`)")
    if any(isinstance(cause, RuntimeError) and str(cause) == "can't start new thread" for cause in causes(error)):
        return ResourceError("no thread can be started: raise the limit of memory or of processes (`ulimit -u`)")
    return None


@contextmanager
def shortages() -> Iterator[None]:
    """Raise ResourceError if the block runs out of memory, handles or threads."""
    try:
        yield
    except Exception as error:
        if isinstance(error, BridgeTowerError) or (lack := shortage(error)) is None:
            raise
        raise lack from error
