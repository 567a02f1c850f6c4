"""The machine: what it is, and how fast it multiplies matrices, which is the limit of everything measured here."""

import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

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


def product(precision: str, device: str, side: int) -> Callable[[], None] | None:
    """A function that multiplies two square matrices [side, side]: 2 x side^3 operations, the GEMM ceiling.

    As a linear layer, because that is what the network consists of; int8 as PyTorch's dynamically quantised one, whose
    activations are float outside. None where this build of PyTorch has no such thing.
    """
    x, weight = torch.randn(side, side), torch.randn(side, side)
    if precision in _DTYPES:
        x, weight = (tensor.to(device, _DTYPES[precision]) for tensor in (x, weight))
        return _timed_to_the_end(lambda: F.linear(x, weight), device)
    if precision == "int8" and device == "cpu" and torch.backends.quantized.engine != "none":
        from torch.ao.nn.quantized.dynamic import Linear
        from torch.ao.quantization import default_dynamic_qconfig

        layer = nn.Linear(side, side)
        layer.qconfig = default_dynamic_qconfig  # type: ignore[assignment]
        with warnings.catch_warnings(action="ignore"):  # it will be replaced by torchao some day
            quantised = Linear.from_float(layer)
        return _timed_to_the_end(lambda: quantised(x), device)
    return None


def _timed_to_the_end(run: Callable[[], object], device: str) -> Callable[[], None]:
    @torch.inference_mode()
    def finished() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    return finished
