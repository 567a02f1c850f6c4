"""Failures for want of a resource of this machine: the program is right, and so is the file that it reads."""

import errno

_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory")  # how PyTorch says it


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that there is too little memory, of this process or of the GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return any(text in str(error).lower() for text in _NO_MEMORY)
    return isinstance(error, MemoryError)


def out_of_handles(error: BaseException) -> bool:
    """Whether `error` says that this process, or the system, may open no more files."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
