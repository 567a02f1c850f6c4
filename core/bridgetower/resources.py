"""Failures for want of a resource of this machine: the program is right, and so is the file that it reads."""

import errno
from collections.abc import Iterator

from bridgetower.errors import ResourceError

# How PyTorch says it, which raises a RuntimeError for everything, and what says why a library cannot be loaded.
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "failed to map segment")
_NO_HANDLES = ("too many open files",)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or one that led to it, says that there is too little memory, of this process or of the GPU."""
    return any(map(_says_no_memory, causes(error)))


def out_of_handles(error: BaseException) -> bool:
    """Whether `error`, or one that led to it, says that this process, or the system, may open no more files."""
    return any(map(_says_no_handles, causes(error)))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, then what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _says_no_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or _says(error, (errno.ENOMEM,), _NO_MEMORY)


def _says_no_handles(error: BaseException) -> bool:
    return _says(error, (errno.EMFILE, errno.ENFILE), _NO_HANDLES)


def _says(error: BaseException, numbers: tuple[int, ...], texts: tuple[str, ...]) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return isinstance(error, OSError | RuntimeError | ImportError) and any(text in str(error).lower() for text in texts)


def shortage(error: BaseException) -> ResourceError | None:
    """The error to raise instead of `error` if it, or one that led to it, is want of a resource; else None."""
    if out_of_handles(error):
        return ResourceError("too many open files: close other programs, or raise the limit (`ulimit -n`)")
    if any(_says_no_memory(cause) and "cuda" in str(cause).lower() for cause in causes(error)):
        return ResourceError("not enough memory on the GPU: use a smaller batch, or the processor (`--device cpu`)")
    if out_of_memory(error):
        return ResourceError("not enough memory: close other programs, or raise the limit (`ulimit -v`)")
    if any(isinstance(cause, RuntimeError) and str(cause) == "can't start new thread" for cause in causes(error)):
        return ResourceError("no thread can be started: raise the limit of memory or of processes (`ulimit -u`)")
    return None
