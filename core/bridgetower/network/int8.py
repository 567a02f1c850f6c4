"""Linear layers in int8: weights are rounded once, inputs at each call.

Each row of a weight matrix has its own scale, and so has each picture or pair of the input, so that its numbers do not
depend on the others of its batch. Activations are applied inside the product. Everything but the weights and inputs of
these layers (norms, attention, biases, sums) stays fp32.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.layers import Activation, Linear

# Instructions that multiply int8 without an intermediate sum in int16. On other processors inputs are rounded to
# 7 bits, so that a sum of two products fits into int16.
_FULL_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")

# The operation that oneDNN applies to the outputs of a product: name, arguments, algorithm.
_POST_OPERATIONS: dict[Activation | None, tuple[str, list[float], str]] = {
    None: ("none", [], "none"),
    F.gelu: ("gelu", [], "none"),
    F.silu: ("swish", [], "none"),
}


class QuantizedLinear(nn.Module):
    """An int8 version of a `Linear` of the network, for the CPU."""

    weight: Tensor  # int8 [out, in]
    scale: Tensor  # float32 [out]; a weight is its int8 value times the scale of its row
    bias: Tensor  # float32 [out]

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self._packed_rows: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    @classmethod
    def of(cls, linear: Linear) -> "QuantizedLinear":
        """Round the weights to nearest, with the largest magnitude of each row at 127."""
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        return cls(rounded, scale, linear.bias.detach().float())

    @classmethod
    def blank(cls, linear: Linear) -> "QuantizedLinear":
        """Return a layer of the same shape on the meta device, which takes no memory."""
        rows = linear.out_features
        weight = torch.empty(rows, linear.in_features, dtype=torch.int8, device="meta")
        return cls(weight, torch.empty(rows, device="meta"), torch.empty(rows, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] -> float32 [..., out]."""
        return self.part(x, 0, len(self.weight))

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """[..., in] -> the activation of [..., out]."""
        return self.part(x, 0, len(self.weight), activation)

    def part(self, x: Tensor, start: int, stop: int, activation: Activation | None = None) -> Tensor:
        """Compute only the outputs `start` to `stop`: [..., in] -> [..., stop - start]."""
        if (start, stop) not in self._packed_rows:  # on first use, so that unused layers are never read from the disk
            self._packed_rows[start, stop] = self._pack(slice(start, stop))
        if x.dim() == 2:
            return self._product(x, start, stop, activation)
        if len(x) == 1:
            return self._product(x[0], start, stop, activation)[None]
        return torch.stack([self._product(item, start, stop, activation) for item in x])

    def _product(self, x: Tensor, start: int, stop: int, activation: Activation | None) -> Tensor:
        """Compute outputs of one picture or pair: [N, in] -> [N, stop - start]."""
        weight, scale, zeros, bias = self._packed_rows[start, stop]
        least, greatest = (float(bound) for bound in x.aminmax())
        if not math.isfinite(greatest - least):  # no scale fits; the caller checks for NaN
            return x.new_full((*x.shape[:-1], stop - start), math.nan)
        x_scale, zero_point, quantized = _quantized(x, least, greatest)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(quantized, x_scale, zero_point, weight, scale, zeros, bias),
            *(1.0, 0, torch.float32),  # the output is not rounded
            *_POST_OPERATIONS[activation],  # on each output while it is in a register
        )
        return y

    def _pack(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return these rows of the weights in the memory layout of the processor, with scale, zero points and bias."""
        scale = self.scale[rows].contiguous()
        packed = torch.ops.onednn.qlinear_prepack(self.weight[rows].contiguous(), None)
        return packed, scale, torch.zeros(len(scale), dtype=torch.int64), self.bias[rows].contiguous()


def _quantized(x: Tensor, least: float, greatest: float) -> tuple[float, int, Tensor]:
    """float32 between two bounds -> scale, zero point, and values uint8 of the same shape."""
    least, greatest = min(least, 0.0), max(greatest, 1e-30)
    scale = (greatest - least) / (254 if processor_is_wide() else 126)  # one less: the zero point is rounded, too
    zero_point = round(-least / scale)
    # One pass: the conversion to uint8 truncates, so adding 0.5 before it rounds.
    return scale, zero_point, torch.add(torch.tensor(zero_point + 0.5), x, alpha=1 / scale).to(torch.uint8)


def quantize(network: BridgeTower, convert: Callable[[Linear], QuantizedLinear] = QuantizedLinear.of) -> None:
    """Replace each `Linear` of the four sections below, which pictures pass through.

    The text tower stays fp32: packing its weights in every process would take longer than int8 saves on the dozen
    tokens of a query. Poolers and heads stay fp32: they take little time, and scores depend on them directly.
    """
    sections = (network.vision_tower, network.image_transforms, network.text_stream, network.image_stream)
    for section in sections:
        for module in list(section.modules()):
            for name, child in module.named_children():
                if isinstance(child, Linear):
                    setattr(module, name, convert(child))


def is_possible() -> bool:
    """Return whether this build of PyTorch computes in int8 on this processor."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    operators = has_onednn and hasattr(torch.ops.onednn, "qlinear_pointwise")
    return operators and bool(torch.cpu.get_capabilities().get("avx2"))


@cache
def processor_is_wide() -> bool:
    """Return whether the processor multiplies full int8; otherwise inputs are rounded to 7 bits."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _FULL_INT8)
