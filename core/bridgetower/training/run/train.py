"""Train: drive the steps of a run, validate, keep the best model, log, and go on where a run was interrupted."""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from bridgetower.inputs import listener
from bridgetower.records import quiet
from bridgetower.resources import shortages
from bridgetower.training.batch import Batch
from bridgetower.training.data.batches import Batches
from bridgetower.training.distributed import leave
from bridgetower.training.run.held_out import HeldOutPictures
from bridgetower.training.run.log import RunLog, has_tensorboard
from bridgetower.training.run.model import Keeping, load
from bridgetower.training.run.prepare import Prepared
from bridgetower.training.state import RunState
from bridgetower.training.trainer import StepReport, telling, train
from bridgetower.training.validation import Validation, validate


@dataclass(frozen=True, slots=True)
class TrainStart:
    """The facts about a run when the first step of this process begins."""

    step: int  # steps that were finished before
    steps: int  # in all
    eval_every: int  # steps
    parameters: int  # in all
    learning: int  # of them, those that are not frozen
    device: str
    precision: str  # with the reason for it
    processes: int
    tensorboard: bool  # whether curves are written, which needs the package
    validates: bool
    changed: tuple[str, ...]  # versions and threads that are not those the run began with: the last bits may differ


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The end of a run, or of a part of it that was stopped."""

    folder: Path  # of the model
    step: int  # finished steps
    steps: int  # in all
    best: Validation | None  # of the model in the folder; None if it is that of the last step, without validation
    finished: bool  # whether all steps are done, and the last validation
    already: bool = False  # whether the run was finished before, and nothing was done now


def train_model(
    prepared: Prepared,
    *,
    on_start: Callable[[TrainStart], object] = quiet,
    on_step: Callable[[StepReport], object] = quiet,
    on_validation: Callable[[Validation, bool], object] = quiet,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train the prepared model, or go on with its run, until the last step or until `should_stop` says so.

    The model in the folder is the best by validation, the later one of two equals; without validation the last one. It
    is complete at each instant from its first appearance on. Of several processes the first calls the listeners, and
    writes; `on_validation` also gets whether the model was kept.

    Raises DivergedError, ModelError, UsageError, InputError, OutputError, ResourceError, and LockedError where another
    process trains in the folder.
    """
    for called in (on_start, on_step, on_validation, should_stop):
        listener(called)
    folder, recipe, ranks, checkpoint = prepared.folder, prepared.recipe, prepared.ranks, prepared.checkpoint
    out, writes = folder.out, ranks.rank == 0
    with shortages(), ExitStack() as opened:
        contents = _contents(prepared)
        state = RunState(folder.state, folder.begin(contents, writes=False))
        if (done := folder.result()) is not None:  # before the lock: the folder may be read-only by now
            best = done.get("best")
            leave(ranks)
            return TrainResult(
                out, prepared.steps, prepared.steps, Validation(**best) if best else None, finished=True, already=True
            )
        if writes:
            opened.enter_context(folder.locked())
        model = load(checkpoint, prepared.settings.new_heads, prepared.settings.seed, prepared.device)
        held_out = None
        if prepared.data.validation:
            held_out = HeldOutPictures(
                prepared.data.validation, checkpoint.preprocessing, prepared.tokenizer, prepared.settings.workers
            )
        step, log, kept = 0, None, None

        def batches(first: int) -> Iterable[Batch]:
            nonlocal step, log, kept
            step = first
            start = TrainStart(
                first, recipe.steps, prepared.eval_every, sum(p.numel() for p in model.parameters()),
                sum(p.numel() for p in model.parameters() if p.requires_grad), prepared.runtime.device,
                prepared.runtime.reason, ranks.size, has_tensorboard(), held_out is not None,
                folder.changed(_machine()),
            )  # fmt: skip
            if writes:
                # Not before: a run that cannot begin leaves the folder free for other settings.
                folder.begin(contents, writes=True, machine=_machine())
                kept = Keeping(checkpoint, folder.tokenizer)
                log = opened.enter_context(RunLog(folder.log, folder.tensorboard, first, state.validated))
                log.write("start", {**asdict(start), "time": time.time()})
                on_start(start)
            return _batches(prepared)(first) if validated() else ()

        def is_due(step: int) -> bool:
            return held_out is not None and step > 0 and (step % prepared.eval_every == 0 or step == recipe.steps)

        def validated() -> bool:
            """Validate where it is due and not done, and keep the best model; False if it was stopped."""
            if held_out is None or not is_due(step) or state.validated == step:
                return True
            validation = validate(model, held_out, recipe, step=step, should_stop=should_stop, ranks=ranks)
            if validation is None:
                return False
            better = state.best is None or validation.score >= state.best.score
            if log is not None and kept is not None:
                if better:  # before the state, which tells that it is there
                    kept.keep(model, out)
                log.write("validation", {**validation.as_json(), "kept": better})
                on_validation(validation, better)
            state.best, state.validated = validation if better else state.best, step
            return True

        with telling(train(
            model, batches, recipe, mask_id=prepared.tokenizer.mask_id, maskable=prepared.maskable(),
            seed=prepared.settings.seed, state=state, save_every=prepared.settings.save_every, pauses=is_due,
            should_stop=should_stop, ranks=ranks,
        )) as reports:  # fmt: skip
            for report in reports:
                step = report.step
                if log is not None:
                    if step % prepared.settings.log_every == 0 or step == recipe.steps:
                        log.write("step", report.as_json())
                    on_step(report)
                if not validated():
                    break
        finished = step == recipe.steps and not (is_due(step) and state.validated < step)
        if log is not None and kept is not None:
            if state.best is None:
                kept.keep(model, out)
            log.write("end", {"step": step, "finished": finished})
            if finished:
                folder.finish({"step": step, "best": state.best and state.best.as_json()})
        leave(ranks)  # not after an error: torchrun ends the others when this process ends
    return TrainResult(out, step, recipe.steps, state.best, finished)


def _contents(prepared: Prepared) -> dict[str, str]:
    """Return digests of what a run begins with, beside its settings."""
    init = prepared.checkpoint
    parts = (init.weights_sha256, init.tokenizer_sha256, init.config.to_json(), init.preprocessing.to_json())
    return {"data": prepared.data.digest, "model": sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}


def _machine() -> dict[str, object]:
    """Return what may change the last bits of numbers."""
    return {"torch": torch.__version__, "numpy": np.__version__, "threads": torch.get_num_threads()}


def _batches(prepared: Prepared) -> Batches:
    data, settings = prepared.data, prepared.settings
    return Batches(
        data.streams,
        data.order,
        preprocessing=prepared.checkpoint.preprocessing,
        tokenizer=prepared.tokenizer,
        augment=settings.augment,
        rank=prepared.ranks.rank,
        ranks=prepared.ranks.size,
        processes=settings.workers,
    )
