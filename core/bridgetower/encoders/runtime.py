"""Choose the device and the precision of the network. PyTorch is imported on the first choice."""

from dataclasses import dataclass

from bridgetower.errors import UsageError
from bridgetower.records import DEVICES, INT8, PRECISIONS

BATCH_SIZE = 16  # pictures, on the CPU


@dataclass(frozen=True, slots=True)
class Runtime:
    """The device and precision of the network, and the reason for them."""

    device: str  # "cpu", "cuda" or "mps"
    precision: str  # "fp32", "bf16" or "int8"
    reason: str

    @property
    def batch_size(self) -> int:
        """The best number of pictures to encode and commit together."""
        return 8 * BATCH_SIZE if self.device == "cuda" else BATCH_SIZE

    @property
    def default_depth(self) -> int:
        """The number of candidates to verify unless the caller chooses one."""
        return 20 if self.device == "cpu" else 100


def is_on_every_machine(device: str, precision: str) -> bool:
    """Return whether `choose_runtime` cannot fail; imports nothing."""
    return device in ("auto", "cpu") and precision != INT8


def choose_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Replace "auto" by the best device present, and by bf16 if this device computes in it natively, else fp32.

    Raises UsageError for an unknown name, an absent device, or if int8 is not possible.
    """
    import torch

    from bridgetower.network import int8

    if device not in DEVICES or precision not in PRECISIONS:
        raise UsageError(f"device is one of {', '.join(DEVICES)}; precision is one of {', '.join(PRECISIONS)}")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto" and precision == INT8:
        device = "cpu"
    elif device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if present[name])
    elif not present[device]:
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
    """Return the precision for adding to an index of a family: "auto" becomes "int8" for the family "int8"."""
    return INT8 if family == INT8 and precision == "auto" else precision
