"""Linear layers in int8: weights rounded once, inputs as they come.

Each row of a weight matrix has a scale of its own, each input tensor has one scale for all of it. What is neither a
weight nor an input of such a layer (norms, attention, biases, sums, the text tower) stays fp32.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bridgetower.model import BridgeTower, Linear

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
        self._packed: dict[tuple[int, int], torch.ScriptObject] = {}

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
        rows = (start, stop)
        if rows not in self._packed:  # on first use: a layer that is never used is never read
            self._packed[rows] = self._pack(slice(*rows))
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed[rows], not processor_is_wide())
        return y

    def _pack(self, rows: slice) -> torch.ScriptObject:
        """The weights in the order in which the processor wants them."""
        # Tensors that know their scale will leave PyTorch some day: `is_possible` will say so.
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
        weight = torch._make_per_channel_quantized_tensor(
            self.weight[rows], self.scale[rows].double(), torch.zeros(len(self.scale[rows]), dtype=torch.int64), 0
        )
        packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(weight, self.bias[rows])
        return packed


def quantize(network: BridgeTower, convert: Callable[[Linear], QuantizedLinear] = QuantizedLinear.of) -> None:
    """Replace each `Linear` through which pictures pass.

    The text tower stays as it is: the dozen tokens of a query would not earn the time that packing its weights takes
    in every process. So do heads and poolers, which have no `Linear`: they cost little and decide.
    """
    sections = (network.vision_tower, network.image_transforms, network.text_stream, network.image_stream)
    for section in sections:
        for module in list(section.modules()):
            for name, child in module.named_children():
                if isinstance(child, Linear):
                    setattr(module, name, convert(child))


def is_possible() -> bool:
    """Whether this build of PyTorch computes in int8 on this processor."""
    operators = hasattr(torch.ops.quantized, "linear_dynamic") and hasattr(torch, "_make_per_channel_quantized_tensor")
    return operators and torch.backends.quantized.engine in ("x86", "fbgemm", "onednn")


def processor_is_wide() -> bool:
    """Whether the processor multiplies int8 in full; inputs are rounded to 7 bits where it does not."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _WIDE)
