"""Linear layers in int8: weights rounded once, inputs as they come.

Each row of a weight matrix has a scale of its own, each input tensor has one scale for all of it: what becomes of a
picture depends a little on those that are computed with it. What is neither a weight nor an input of such a layer
(norms, attention, biases, sums, the text tower) stays fp32.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.layers import Linear

# Instructions that multiply int8 without an intermediate sum in int16. Where there are none, inputs are rounded to
# 7 bits, so that two products fit into it.
_WIDE = ("avx512_vnni", "avx_vnni", "amx_int8")


class QuantizedLinear(nn.Module):
    """A `Linear` of the network, to compute with on a CPU."""

    weight: Tensor  # int8 [out, in]
    scale: Tensor  # float32 [out]; a weight is its int8 times the scale of its row
    bias: Tensor  # float32 [out]

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self._parts: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    @classmethod
    def of(cls, linear: Linear) -> "QuantizedLinear":
        """Round the weights: to nearest, the largest of a row to 127."""
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        return cls(rounded, scale, linear.bias.detach().float())

    @classmethod
    def blank(cls, linear: Linear) -> "QuantizedLinear":
        """The same in shape, without memory: on the meta device."""
        rows = linear.out_features
        weight = torch.empty(rows, linear.in_features, dtype=torch.int8, device="meta")
        return cls(weight, torch.empty(rows, device="meta"), torch.empty(rows, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] -> float32 [..., out]."""
        return self.part(x, 0, len(self.weight))

    def part(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs `start` to `stop` alone: [..., in] -> [..., stop - start]."""
        if (start, stop) not in self._parts:  # on first use: a layer that is never used is never read
            self._parts[start, stop] = self._packed(slice(start, stop))
        weight, scale, zeros, bias = self._parts[start, stop]
        least, greatest = (float(bound) for bound in x.aminmax())
        if not math.isfinite(greatest - least):  # no scale is fit for that; whoever gets the result will say so
            return x.new_full((*x.shape[:-1], stop - start), math.nan)
        x_scale, zero_point, quantized = _quantized(x, least, greatest)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(quantized, x_scale, zero_point, weight, scale, zeros, bias),
            *(1.0, 0, torch.float32),  # what comes out is not rounded
            *("none", [], "none"),  # nothing is done to it, either
        )
        return y

    def _packed(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The weights in the order in which the processor wants them, and what belongs to them."""
        scale = self.scale[rows].contiguous()
        packed = torch.ops.onednn.qlinear_prepack(self.weight[rows].contiguous(), None)
        return packed, scale, torch.zeros(len(scale), dtype=torch.int64), self.bias[rows].contiguous()


def _quantized(x: Tensor, least: float, greatest: float) -> tuple[float, int, Tensor]:
    """float32 between two bounds -> scale, zero point, and uint8 of the same shape."""
    least, greatest = min(least, 0.0), max(greatest, 1e-30)
    scale = (greatest - least) / (254 if processor_is_wide() else 126)  # one to spare: the zero point is rounded, too
    zero_point = round(-least / scale)
    # One pass: what is cut off after a half was added, is rounded.
    return scale, zero_point, torch.add(torch.tensor(zero_point + 0.5), x, alpha=1 / scale).to(torch.uint8)


def quantize(network: BridgeTower, convert: Callable[[Linear], QuantizedLinear] = QuantizedLinear.of) -> None:
    """Replace each `Linear` through which pictures pass.

    These are the four sections below. The text tower stays as it is: the dozen tokens of a query would not earn the
    time that packing its weights takes in every process. So do poolers and heads: they cost little and decide.
    """
    sections = (network.vision_tower, network.image_transforms, network.text_stream, network.image_stream)
    for section in sections:
        for module in list(section.modules()):
            for name, child in module.named_children():
                if isinstance(child, Linear):
                    setattr(module, name, convert(child))


def is_possible() -> bool:
    """Whether this build of PyTorch computes in int8 on this processor."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    operators = has_onednn and hasattr(torch.ops.onednn, "qlinear_pointwise")
    return operators and bool(torch.cpu.get_capabilities().get("avx2"))


@cache
def processor_is_wide() -> bool:
    """Whether the processor multiplies int8 in full; inputs are rounded to 7 bits where it does not."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _WIDE)
