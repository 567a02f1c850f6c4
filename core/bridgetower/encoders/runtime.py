"""The device and the precision to compute in. PyTorch is imported when there is something to choose."""

from dataclasses import dataclass

from bridgetower.errors import UsageError
from bridgetower.records import DEVICES, INT8, PRECISIONS

BATCH_SIZE = 16  # pictures, on a CPU


@dataclass(frozen=True, slots=True)
class Runtime:
    """The device and precision of the network, and the reason for them."""

    device: str  # "cpu", "cuda" or "mps"
    precision: str  # "fp32", "bf16" or "int8"
    reason: str

    @property
    def batch_size(self) -> int:
        """How many pictures are worth encoding and committing together."""
        return 8 * BATCH_SIZE if self.device == "cuda" else BATCH_SIZE

    @property
    def default_depth(self) -> int:
        """How many candidates are worth verifying where nobody says how many."""
        return 20 if self.device == "cpu" else 100


def choose_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Settle "auto": the best device there is, and bf16 where it computes in it natively, else fp32.

    Raises UsageError for names that are unknown, for a device that this machine does not have, and for int8 where it
    is not possible.
    """
    import torch

    from bridgetower.network import int8

    if device not in DEVICES or precision not in PRECISIONS:
        raise UsageError(f"device is one of {', '.join(DEVICES)}; precision is one of {', '.join(PRECISIONS)}")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto" and precision == INT8:
        device = "cpu"
    elif device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if there[name])
    elif not there[device]:
        raise UsageError(f"device {device}: this machine, or this build of PyTorch, has none; use --device auto")
    if precision == INT8 and not (device == "cpu" and int8.is_possible()):
        if device == "cpu":
            raise UsageError("precision int8: not possible on this processor; use --precision auto")
        raise UsageError(f"precision int8: not possible on {device}; use --device cpu, or --precision auto")
    if precision != "auto":
        return Runtime(device, precision, f"{precision}: as asked")
    if device == "cuda":
        return Runtime(device, "bf16", "bf16: the GPU computes in it")
    if device == "mps":
        return Runtime(device, "fp32", "fp32: bf16 is not proven on this device")
    capabilities = torch.cpu.get_capabilities()
    for name in ("amx_bf16", "avx512_bf16", "bf16"):  # the last on Arm
        if capabilities.get(name):
            return Runtime(device, "bf16", f"bf16: the processor has {name}")
    return Runtime(device, "fp32", "fp32: the processor has no bf16 instructions")


def precision_for(family: str, precision: str) -> str:
    """`precision` for adding to an index of this family: where it is "auto", one of the family."""
    return INT8 if family == INT8 and precision == "auto" else precision
