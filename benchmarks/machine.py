"""The machine: what it is, and how fast it multiplies matrices, which is the limit of everything measured here."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from bridgetower.encoders.runtime import choose_runtime
from bridgetower.network import int8

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def describe(device: str) -> dict[str, object]:
    """What figures depend on, for a person to read beside them."""
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return facts | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _processor() -> str:
    """Its name, and the instructions that decide about speed."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    wanted = ("avx512_f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "arm_bf16")
    there = torch.cpu.get_capabilities()
    return " ".join([name, *(feature for feature in wanted if there.get(feature))])


def precisions(device: str) -> tuple[str, ...]:
    """Those that the device has instructions for."""
    if device == "cuda":
        return "fp32", "bf16"
    bf16 = choose_runtime(device).precision == "bf16"
    return ("fp32", *(["bf16"] if bf16 else []), *(["int8"] if int8.is_possible() else []))


def product(precision: str, device: str, side: int) -> Callable[[], None] | None:
    """A function that multiplies two square matrices [side, side]: 2 x side^3 operations, the GEMM ceiling.

    As a linear layer, because that is what the network consists of. int8 is the product alone: uint8 by int8 to
    float32, without rounding the inputs. None where this machine has no such thing.
    """
    x, weight = torch.randn(side, side), torch.randn(side, side)
    if precision in _DTYPES:
        x, weight = (tensor.to(device, _DTYPES[precision]) for tensor in (x, weight))
        return _timed_to_the_end(lambda: F.linear(x, weight), device)
    if device != "cpu" or not int8.is_possible():
        return None
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int64)
    packed = torch.ops.onednn.qlinear_prepack((weight * 30).to(torch.int8), None)
    rounded = (x * 15 + 64).to(torch.uint8)
    given: Any = (rounded, 1.0, 64, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "none")
    return _timed_to_the_end(lambda: torch.ops.onednn.qlinear_pointwise(*given), device)


def _timed_to_the_end(run: Callable[[], object], device: str) -> Callable[[], None]:
    @torch.inference_mode()
    def finished() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    return finished
