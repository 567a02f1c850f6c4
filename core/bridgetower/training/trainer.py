"""Train a BridgeTower: batch after batch, with a schedule, a bound on the gradient, and a state that can be resumed.

Batch -> objective.backward -> sum over processes -> clip -> AdamW -> StepReport
"""

import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from bridgetower.errors import BridgeTowerError, DivergedError, ResourceError
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.resources import out_of_memory
from bridgetower.training.batch import Batch
from bridgetower.training.distributed import ONE_RANK, Ranks, sum_gradients
from bridgetower.training.objective import Losses, backward
from bridgetower.training.optimiser import freeze, make_optimiser, schedule
from bridgetower.training.recipe import Recipe
from bridgetower.training.state import RunState

MAX_LOGIT_SCALE = math.log(100)  # CLIP's bound: beyond it the contrastive loss grows unstable
_SAVES_COST = 20  # a save is due after so many times the time that the last one took, at the earliest


@dataclass(frozen=True, slots=True)
class StepReport:
    """The result of one optimisation step. Losses are means over the batch, in nats; None without their head."""

    step: int  # finished steps, from 1
    itc: float | None
    itm: float | None
    mlm: float | None
    learning_rate: float  # of the towers
    gradient_norm: float  # before it was cut
    pairs: int  # in the batch of all processes
    seconds: float  # with the wait for the batch
    memory: int | None  # bytes: the most so far, on the GPU or of this process; None if the system does not tell

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs, with pairs a second."""
        return {**asdict(self), "pairs_per_second": self.pairs / self.seconds if self.seconds else None}


def train(
    model: BridgeTower,
    batches: Callable[[int], Iterable[Batch]],
    recipe: Recipe,
    *,
    mask_id: int,
    maskable: Tensor,
    seed: int,
    state: RunState | None = None,
    save_every: float = 300.0,
    pauses: Callable[[int], bool] = lambda step: False,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ONE_RANK,
) -> Generator[StepReport]:
    """Train the model in place, on the device where it is, up to step `recipe.steps`, and yield a report after each.

    `mask_id` is the id of `<mask>`; `maskable` float [V] is the weight of a word in choosing masks, 0 = never.
    `batches(step)` returns the batches from `step` on; it is called once, when the state has been loaded.

    A run with a `state` goes on from it, and ends with the same bits as one that was never interrupted. It is saved:

    - when the caller asks for the next report: `save_every` seconds after the last time, or later where a save takes
      more than a twentieth of that (0: after each step); after the last step; and where `should_stop` says so;
    - before the report of a step after which the caller `pauses`, for longer than a step takes;
    - after the last whole step, where an error ends the run. An error of the caller between two steps counts where it
      is thrown in: `with telling(train(...)) as reports`.

    Raises DivergedError, ResourceError, UsageError where processes see different folders, and the errors of `state`.
    """
    freeze(model, recipe)
    optimiser = make_optimiser(model, recipe)
    rates = [group["lr"] for group in optimiser.param_groups]
    device = device_of(model)
    step = 0
    if state is not None:
        step = state.load(model, optimiser)
        ranks.require_same(f"{step} {state.run}", state.file.parent, device)
    keeper = _Keeper(model, optimiser, step, state if ranks.rank == 0 else None, save_every)
    with keeper, _closing(batches(step)) as source:
        began = time.monotonic()
        for batch in source if step < recipe.steps else ():
            model.train()
            factor = schedule(step, recipe)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            with _memory_advice(recipe, len(batch.pixels)):
                losses = backward(
                    model, batch.to(device), recipe, mask_id=mask_id, maskable=maskable, seed=seed, step=step,
                    ranks=ranks,
                )  # fmt: skip
                sum_gradients(model, ranks)
                norm = _clip(model, recipe, losses, step)
            with _memory_advice(recipe), keeper.changing():
                optimiser.step()
                _bound_logit_scale(model)
                step = keeper.step = step + 1
            optimiser.zero_grad(set_to_none=True)
            if pauses(step):
                keeper.save()
            yield StepReport(
                step, losses.itc, losses.itm, losses.mlm, recipe.learning_rate * factor, norm, batch.true_of.shape[1],
                time.monotonic() - began, most_memory(device),
            )  # fmt: skip
            stops = step == recipe.steps or ranks.anywhere(should_stop(), device)
            if stops or keeper.is_due():
                keeper.save()
            if stops:
                break
            began = time.monotonic()
    model.eval()


@contextmanager
def telling(reports: Generator[StepReport]) -> Iterator[Iterator[StepReport]]:
    """Tell the training of an error of the block that reads its reports, and end it with the block."""
    with closing(reports):
        try:
            yield reports
        except Exception as error:
            reports.throw(error)
            raise


class _Keeper:
    """Saves the state of a run where it is due, and at an error, if the run has one. A context manager."""

    def __init__(
        self, model: BridgeTower, optimiser: torch.optim.Optimizer, step: int, state: RunState | None, every: float
    ) -> None:
        self._model, self._optimiser, self._state, self._every = model, optimiser, state, every
        self.step = self._saved = step  # finished steps
        self._saved_at = time.monotonic()
        self._cost = 0.0  # seconds that the last save took
        self._whole = True  # the weights are those after a step, and the optimiser is as well

    def is_due(self) -> bool:
        every = max(self._every, _SAVES_COST * self._cost) if self._every else 0
        return time.monotonic() - self._saved_at >= every

    def save(self) -> None:
        if self._state is not None:
            began = time.monotonic()
            self._state.save(self._model, self._optimiser, self.step)
            self._saved, self._saved_at = self.step, time.monotonic()
            self._cost = self._saved_at - began

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark the block in which weights and optimiser change: what an error leaves of it is no state."""
        self._whole = False
        yield
        self._whole = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """Save what an error would lose. Where that fails, the message of the error tells what is lost."""
        if error is None or not isinstance(error, Exception) or self._state is None or self.step == self._saved:
            return
        if self._whole:
            self._optimiser.zero_grad(set_to_none=True)  # memory may be short
            with suppress(Exception):
                self.save()
        if self.step > self._saved and isinstance(error, BridgeTowerError):
            error.args = (f"{error}; the last state on the disk is of step {self._saved}, not {self.step}",)


def device_of(model: nn.Module) -> torch.device:
    """Return the device on which a network computes."""
    return next(model.parameters()).device


def _clip(model: BridgeTower, recipe: Recipe, losses: Losses, step: int) -> float:
    """Cut the gradient of all parameters to the greatest length, and return its length. Raises DivergedError."""
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm))
    given = {name: getattr(losses, name) for name in ("itc", "itm", "mlm")}
    wrong = [name.upper() for name, value in given.items() if value is not None and not math.isfinite(value)]
    if wrong or not math.isfinite(norm):
        what = f"loss ({', '.join(wrong)})" if wrong else "gradient"
        precision = "" if recipe.precision == "fp32" else " or --precision fp32"
        raise DivergedError(
            f"training diverged: in step {step + 1} the {what} is not a finite number; begin again in another folder, "
            f"with a lower --lr than {recipe.learning_rate:g}{precision}"
        )
    return norm


def _bound_logit_scale(model: BridgeTower) -> None:
    if model.itc_head is not None:
        with torch.no_grad():
            model.itc_head.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


@contextmanager
def _memory_advice(recipe: Recipe, pictures: int | None = None) -> Iterator[None]:
    """Raise ResourceError if the block runs out of memory; it names what takes less.

    The block computes the gradients of so many pictures; None where it is the optimiser, whose moments take the same
    memory however many they are.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        what, less = "for the moments of the optimiser", []
        if pictures is not None:
            at_once = min(recipe.micro_batch or pictures, pictures)
            what = f"to train on {at_once} picture{'' if at_once == 1 else 's'} at once"
            less = [f"--micro-batch {at_once // 2}"] if at_once > 1 else []
            less += ["--gradient-checkpointing"] if not recipe.gradient_checkpointing else []
        ways = [f"the same command with {' and '.join(less)} goes on from the last state"] if less else []
        ways += ["a new run can take --freeze towers"] if recipe.freeze != "towers" else []
        raise ResourceError(f"not enough memory {what}: {'; '.join(ways) or 'take a smaller model'}") from error


@contextmanager
def _closing(batches: Iterable[Batch]) -> Iterator[Iterable[Batch]]:
    """Close a generator of batches at the end of the block: it may hold processes that decode."""
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()


def most_memory(device: torch.device) -> int | None:
    """Return the most bytes that were in use so far: on a GPU by PyTorch, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
