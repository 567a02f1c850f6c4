"""Want of memory or of file handles is told from other failures."""

import errno
import os

import pytest
import torch

from bridgetower.resources import out_of_handles, out_of_memory, shortage


def failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        failed(errno.ENOMEM),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
        ImportError("libopenblas.so: failed to map segment from shared object"),
        OSError("libtorch_cpu.so: failed to map segment from shared object"),
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


@pytest.mark.parametrize(
    "error",
    [
        failed(errno.EMFILE),
        failed(errno.ENFILE),
        RuntimeError("unable to open file <x> in read-only mode: Too many open files (24)"),
        ImportError("libfaiss.so: cannot open shared object file: Too many open files"),
    ],
    ids=repr,
)
def test_want_of_file_handles_is_known_by_its_errors(error: Exception) -> None:
    assert out_of_handles(error)
    assert not out_of_memory(error)


@pytest.mark.parametrize("error", [failed(errno.ENOSPC), RuntimeError("size mismatch"), ValueError("out of memory")])
def test_other_failures_are_neither(error: Exception) -> None:
    assert not out_of_memory(error)
    assert not out_of_handles(error)


def test_an_error_that_was_raised_from_one_of_these_counts_as_it() -> None:
    damaged = ValueError("not a complete file")
    damaged.__cause__ = failed(errno.ENOMEM)
    assert out_of_memory(damaged)
    damaged.__cause__ = failed(errno.EMFILE)
    assert out_of_handles(damaged)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (failed(errno.EMFILE), "too many open files"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "not enough memory on the GPU: use a sm",
        ),
        (RuntimeError("can't start new thread"), "no thread can be started"),
    ],
    ids=repr,
)
def test_a_shortage_is_found_behind_what_it_led_to(error: Exception, said: str) -> None:
    wrapped = ValueError("cannot be read")
    wrapped.__cause__ = error
    for found in (shortage(error), shortage(wrapped)):
        assert found is not None and str(found).startswith(said) and "\n" not in str(found)
    assert shortage(ValueError("cannot be read")) is None
