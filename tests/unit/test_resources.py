"""Want of memory or of file handles is told from other failures."""

import errno
import os

import pytest
import torch

from bridgetower.resources import out_of_handles, out_of_memory


def failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        failed(errno.ENOMEM),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
    ],
    ids=repr,
)
def test_want_of_memory_is_known_by_its_errors(error: Exception) -> None:
    assert out_of_memory(error)
    assert not out_of_handles(error)


def test_what_pytorch_raises_where_memory_ends_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_want_of_file_handles_is_known_by_its_errors(number: int) -> None:
    assert out_of_handles(failed(number))
    assert not out_of_memory(failed(number))


@pytest.mark.parametrize("error", [failed(errno.ENOSPC), RuntimeError("size mismatch"), ValueError("out of memory")])
def test_other_failures_are_neither(error: Exception) -> None:
    assert not out_of_memory(error)
    assert not out_of_handles(error)
