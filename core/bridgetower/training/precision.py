"""In which precision, and with which attention kernels, training computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bridgetower.training.recipe import Precision


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute products in a precision, and attention with the kernels for it: a pass without gradients."""
    with attention(device, precision), autocast(device, precision):
        yield


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which the forward pass computes products in a precision. The backward pass follows it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def attention(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute attention in bf16 on the CPU as two plain products; other attention stays as it is.

    There, forward and backward of the flash kernel take 1.3 times as long in bf16 for 325 tokens, and 6 times for 37.
    In fp32 it is as fast at 37 and nearly twice as fast at 325, and it keeps less, so PyTorch may choose it. The
    backward pass belongs into the block, because layers that are computed again must keep the same tensors.
    """
    if device.type != "cpu" or precision == "fp32":
        yield
        return
    reduces = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # for the CPU too
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduces)
