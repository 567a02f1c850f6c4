"""The settings of training that do not depend on the data."""

from dataclasses import dataclass
from typing import Literal

Freeze = Literal["none", "towers", "text", "vision"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training run. Defaults follow the retrieval fine-tuning recipe of the paper."""

    steps: int
    learning_rate: float = 5e-6
    new_factor: float = 5.0  # on the learning rate of the cross-modal encoder and the heads
    warmup: float = 0.05  # share of the steps
    decay: float = 1.0  # share of the steps, at the end, in which the rate falls to 0; at most all after warm-up
    weight_decay: float = 0.01  # not on biases, norms and other vectors
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    clip_norm: float = 1.0
    mask_share: float = 0.15  # of the tokens of a text that may be masked
    maskings: float = 1.0  # masked copies per text: 0.5 masks the first half of a batch, 2.0 each text twice
    single_share: float = 0.0  # of the masked copies in which only one word is masked
    easy_share: float = 0.0  # of the ITM negatives, drawn less strictly by ITC: easy pairs have to be learned, too
    mlm_weight: float = 1.0  # of the MLM loss in the sum; ITC and ITM have 1
    micro_batch: int | None = None  # pictures that a process computes at once; None for its whole part of a batch
    freeze: Freeze = "none"  # the towers whose weights stay as they are; their dropout is off
    gradient_checkpointing: bool = False  # computes each layer twice, and keeps only its input in between
    precision: Precision = "bf16"  # of products, by autocast; the weights stay fp32

    def freezes(self, tower: Literal["text", "vision"]) -> bool:
        """Whether the weights of a tower stay as they are."""
        return self.freeze in (tower, "towers")
