"""The processes of one training run, each with its share of the pictures of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor, nn

from bridgetower.errors import ProcessError, UsageError
from bridgetower.torchrun import place

# For the longest that the first process works alone: it looks at all pictures, and saves the state. torchrun ends the
# others where one fails.
_PATIENCE = timedelta(days=1)
# Texts in the errors of Gloo and NCCL where another process, or the way to it, is gone.
_LOST = ("connection", "broken pipe", "timed out", "socket", "remote process exited")
_BUCKET = 1 << 24  # numbers that travel in one message


@dataclass(frozen=True, slots=True)
class Ranks:
    """The place of this process among those of the run."""

    rank: int = 0
    size: int = 1

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sum of a tensor that each process has with one shape."""
        if self.size > 1:
            numbers = numbers.contiguous()
            with _others():
                torch.distributed.all_reduce(numbers)
        return numbers

    def anywhere(self, here: bool, device: torch.device) -> bool:
        """Return whether something is so in any process, so that all of them do the same."""
        return here if self.size == 1 else bool(self.sum(torch.tensor(float(here), device=device)).item())

    def agree(self, text: str, device: torch.device) -> bool:
        """Return whether all processes have the same text; all of them get the same answer."""
        own = torch.tensor(list(sha256(text.encode()).digest()), device=device)
        return not self.anywhere(not torch.equal(self.sum(own.clone()), own * self.size), device)

    def require_same(self, found: str, folder: Path, device: torch.device) -> None:
        """Raise UsageError, in all processes, unless they have found the same in the folder of the run."""
        if not self.agree(found, device):
            raise UsageError(
                f"{folder}: the folder is not the same for all processes, or the data are not: the run needs a disk "
                "that all of them share"
            )

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process, and in the others when it is done there."""
        if self.rank > 0:
            _wait()
        yield
        if self.rank == 0 and self.size > 1:
            _wait()


ONE_RANK = Ranks()


def join(device: str) -> Ranks:
    """Join the processes of a run that torchrun started; without it this process is the only one.

    `device` is "cuda", where each process gets a GPU of its own machine, or "cpu". Raises UsageError.
    """
    if place()[1] == 1:
        return ONE_RANK
    own = None
    if device == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        # Some launchers let each process see only a GPU of its own.
        if local >= there and (there > 1 or "CUDA_VISIBLE_DEVICES" not in os.environ):
            raise UsageError(f"more processes on this machine than its {there} GPUs: use a smaller --nproc-per-node")
        own = torch.device("cuda", local % there)
        torch.cuda.set_device(own)
    elif device != "cpu":
        raise UsageError(f"--device {device}: only one process can train on it; use --device cpu, or no torchrun")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if own else "gloo", timeout=_PATIENCE, device_id=own)
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())


def leave(ranks: Ranks) -> None:
    """Wait for the other processes of the run, and part from them."""
    if ranks.size > 1:
        _wait()
        torch.distributed.destroy_process_group()


def _wait() -> None:
    with _others():
        torch.distributed.barrier()


@contextmanager
def _others() -> Iterator[None]:
    """Raise ProcessError where another process is gone: PyTorch raises a RuntimeError for all that goes wrong."""
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error).lower() for text in _LOST):
            raise
        raise ProcessError(
            "another process of the run ended, or cannot be reached: see its message; the same command goes on from "
            "the last state"
        ) from error


def sum_gradients(model: nn.Module, ranks: Ranks) -> None:
    """Replace each gradient by its sum over the processes.

    A parameter keeps the gradient None if it has none in any process, because AdamW would let its weight decay.
    """
    if ranks.size == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    there = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=parameters[0].device)
    bucket: list[Tensor] = []
    for parameter, anywhere in zip(parameters, ranks.sum(there).tolist(), strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
                _sum_in_place(bucket, ranks)
                bucket = []
    _sum_in_place(bucket, ranks)


def _sum_in_place(gradients: list[Tensor], ranks: Ranks) -> None:
    if gradients:
        summed = ranks.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(summed, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
