"""Prepare a run: choose device and precision, find the model, read and check the data."""

import math
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.checkpoints.find import own_place, resolve
from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.encoders.runtime import Runtime, choose_runtime
from bridgetower.errors import MissingHeadError, UsageError
from bridgetower.inputs import AnyPath, listener
from bridgetower.network.shapes import parameter_shapes
from bridgetower.records import Head, OnProgress, Say, quiet
from bridgetower.training.data.order import slice_of
from bridgetower.training.data.prepare import Sources, TrainingData, check, list_captions
from bridgetower.training.data.report import DataReport
from bridgetower.training.distributed import Ranks, join
from bridgetower.training.recipe import Precision, Recipe
from bridgetower.training.run.folder import RunFolder
from bridgetower.training.run.model import require_new
from bridgetower.training.run.room import require_room
from bridgetower.training.run.settings import TrainSettings

_LEAST_BETWEEN = 50  # steps between two validations by default: each takes time, and may write the model


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run of which settings, model and data have been checked."""

    settings: TrainSettings
    runtime: Runtime
    ranks: Ranks
    checkpoint: Checkpoint  # the model that learns
    tokenizer: Tokenizer
    folder: RunFolder
    data: TrainingData
    steps: int
    eval_every: int  # steps

    @property
    def validates(self) -> bool:
        """Whether the model has the ITC head that validation needs."""
        return Head.ITC in {*self.checkpoint.heads, *self.settings.new_heads}

    @property
    def report(self) -> DataReport:
        """All that was found in the data."""
        return self.data.report

    @property
    def recipe(self) -> Recipe:
        """The settings of the trainer."""
        settings = self.settings
        return Recipe(
            self.steps,
            learning_rate=settings.lr,
            new_factor=settings.new_factor,
            warmup=settings.warmup,
            micro_batch=settings.micro_batch,
            freeze=settings.freeze,
            gradient_checkpointing=settings.gradient_checkpointing,
            precision=cast("Precision", self.runtime.precision),
        )

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        if self.runtime.device == "cuda":
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device(self.runtime.device)

    def maskable(self) -> Tensor:
        """Return the weight of each word in choosing masks, float [V]: all words alike, special tokens never."""
        words = torch.ones(self.checkpoint.config.text.vocab_size)
        words[[token for token in range(len(words)) if self.tokenizer.is_special(token)]] = 0.0
        return words


def prepare_training(
    settings: TrainSettings, *, on_progress: OnProgress = quiet, progress: bool = False, say: Say = quiet
) -> Prepared:
    """Check all that a run needs, before its first step. The pictures that were looked at are noted in the folder.

    `on_progress` counts pictures. `progress` and `say` are as for `resolve`, which may fetch the model. Raises
    UsageError, ModelError, InputError, OutputError, ResourceError, LockedError.
    """
    listener(on_progress), listener(say)
    runtime = choose_runtime(settings.device, settings.precision)
    place = own_place(str(settings.init))
    if place is not None and place[1] == Path(os.path.realpath(settings.out)):
        raise UsageError(f"{settings.out}: this is the folder of the --init model: give a new folder with --out")
    decided = {**settings.deciding(), "--precision": runtime.precision}
    folder = RunFolder(Path(settings.out), decided, TrainSettings.defaults())
    sources = Sources(
        Path(settings.data),
        images=_path(settings.images),
        splits=settings.splits,
        skip_missing=settings.skip_missing,
        validation=_path(settings.val),
        validation_split=settings.val_split,
        validation_share=settings.share_held_out,
        replay=tuple(map(Path, settings.replay)),
        replay_images=_path(settings.replay_images),
    )
    listed = list_captions(sources)  # may raise, so before a model is fetched
    checkpoint = resolve(str(settings.init), progress=progress, say=say)
    require_new(checkpoint, settings.new_heads)
    heads = checkpoint.heads | set(settings.new_heads)
    if not heads:
        raise MissingHeadError(f"{checkpoint.name}: it has no head that could learn: add one, with --new-head itc")
    validates = Head.ITC in heads
    if not validates and (settings.val or settings.val_split or settings.val_share):
        raise UsageError(f"{checkpoint.name}: validation needs an ITC head: add --new-head itc, or leave out --val")
    tokenizer = checkpoint.tokenizer()
    folder.make()
    config = checkpoint.config.with_contrastive_head() if Head.ITC in heads else checkpoint.config
    require_room(folder, parameter_shapes(config, frozenset(heads)), settings.freeze)
    ranks = join(runtime.device)
    slice_of(settings.batch, ranks.rank, ranks.size)  # may raise
    writes = ranks.rank == 0 and folder.result() is None
    # The first looks at the pictures, and the others read what it found.
    with ranks.first_alone(), folder.locked() if writes else nullcontext():
        data = check(
            sources if validates else replace(sources, validation_share=0.0),
            listed,
            preprocessing=checkpoint.preprocessing,
            tokenizer=tokenizer,
            batch=settings.batch,
            replay_share=settings.replay_share or 0.0,
            seed=settings.seed,
            record=folder.pictures,
            processes=settings.workers,
            on_progress=on_progress,
        )
    ranks.require_same(folder.last_writer(), folder.out, torch.device(runtime.device))
    of_epoch = data.report.steps_per_epoch
    steps = settings.steps or max(1, math.ceil((settings.epochs or 1) * of_epoch))
    return Prepared(
        settings, runtime, ranks, checkpoint, tokenizer, folder, data, steps,
        settings.eval_every or min(steps, max(_LEAST_BETWEEN, round(of_epoch))),
    )  # fmt: skip


def _path(value: AnyPath | None) -> Path | None:
    return None if value is None else Path(value)
