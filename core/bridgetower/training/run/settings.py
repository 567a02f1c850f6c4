"""The settings of a training run, checked once."""

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from bridgetower.errors import UsageError
from bridgetower.inputs import AnyPath, lasting, model_name, own_folder
from bridgetower.records import DEVICES, Head
from bridgetower.training.recipe import Freeze

MOST_STEPS = 10**9
VAL_SHARE = 0.05
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The settings of a run, as the options of `bt train` name them. Raises UsageError.

    Paths are kept absolute. `epochs` and `steps` exclude each other, and so do the three that begin with "val"; without
    any of them there are 20 epochs, and a `val_share` of 0.05.
    """

    data: AnyPath  # a captions file of any form
    init: AnyPath  # the model that learns: a name, as everywhere
    out: AnyPath  # the folder of the result, with the run in it
    images: AnyPath | None = None  # the folder of the pictures of `data` and `val`; by default that of each file
    splits: tuple[str, ...] = ()  # of a file of Karpathy; () for all
    skip_missing: bool = False  # pictures that are not there or cannot be read are left out, not refused
    val: AnyPath | None = None  # captions of held-out pictures
    val_split: str | None = None  # part of `data` that is held out
    val_share: float | None = None  # of the pictures of `data` that are held out; 0 for none, None for VAL_SHARE
    replay: tuple[AnyPath, ...] = ()  # captions of pictures that must not be forgotten
    replay_images: AnyPath | None = None
    replay_share: float | None = None  # of each batch; with `replay` 0.5 by default
    epochs: int | None = None
    steps: int | None = None
    batch: int = 64  # pairs of a step, over all processes
    micro_batch: int | None = None  # pictures that a process computes at once
    lr: float = 5e-6
    new_factor: float = 5.0
    warmup: float = 0.05
    freeze: Freeze = "none"
    new_heads: tuple[Head, ...] = ()
    augment: bool = True
    gradient_checkpointing: bool = False
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0
    save_every: float = 300.0  # seconds
    eval_every: int | None = None  # steps; None for each epoch, or each 50 steps where an epoch has fewer
    log_every: int = 10  # steps
    workers: int | None = None  # processes that decode; None for one a processor

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("init", model_name(self.init))
        for name in ("data", "val"):
            if getattr(self, name) is not None:
                keep(name, lasting(getattr(self, name)))
        for name in ("out", "images", "replay_images"):
            if getattr(self, name) is not None:
                keep(name, own_folder(getattr(self, name)))
        keep("replay", tuple(lasting(one) for one in self.replay))
        keep("splits", tuple(self.splits))
        keep("new_heads", tuple(_head(one) for one in self.new_heads))
        self._check_numbers()
        if self.epochs is not None and self.steps is not None:
            raise UsageError("--epochs and --steps both say how long: give one of them")
        if self.epochs is None and self.steps is None:
            keep("epochs", 20)
        held_out = (self.val, self.val_split, self.val_share)
        if sum(given is not None for given in held_out) > 1:
            raise UsageError(
                "--val, --val-split and --val-share each say which pictures are held out: give one of them"
            )
        if self.replay_images is not None and not self.replay:
            raise UsageError("--replay-images is the folder of the pictures of --replay: give --replay, too")
        if self.replay_share is not None and not self.replay:
            raise UsageError("--replay-share is the share of the pairs of --replay: give --replay, too")
        if self.replay and self.replay_share is None:
            keep("replay_share", 0.5)
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise UsageError(f"--micro-batch {self.micro_batch} is more than --batch {self.batch}: give at most that")
        for name, allowed in (("freeze", get_args(Freeze)), ("precision", PRECISIONS), ("device", DEVICES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"--{name} {getattr(self, name)}: give one of {', '.join(allowed)}")

    def _check_numbers(self) -> None:
        for name, least, most in (
            ("epochs", 1, MOST_STEPS), ("steps", 1, MOST_STEPS), ("batch", 2, 2**20), ("micro_batch", 1, 2**20),
            ("seed", 0, 2**63 - 1), ("eval_every", 1, MOST_STEPS), ("log_every", 1, MOST_STEPS), ("workers", 1, 1024),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (type(value) is int and least <= value <= most):
                raise UsageError(f"{_option(name)} {value}: give a whole number from {least} to {most}")
        for name, valid, wanted in (
            ("val_share", self.val_share is None or 0 <= self.val_share < 1, "from 0 to less than 1"),
            ("replay_share", self.replay_share is None or 0 < self.replay_share < 1, "between 0 and 1"),
            ("warmup", 0 <= self.warmup <= 1, "from 0 to 1"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("new_factor", 0 < self.new_factor < math.inf, "above 0"),
            ("save_every", 0 < self.save_every < math.inf, "above 0"),
        ):
            if not valid:
                raise UsageError(f"{_option(name)} {getattr(self, name)}: give a number {wanted}")

    def deciding(self) -> dict[str, Any]:
        """Return the settings on which the result depends, by the names of their options, as plain values.

        Files and the model are not named, because they may be moved: their contents are compared besides.
        """
        told = {_option(f.name): _plain(getattr(self, f.name)) for f in fields(self) if f.name not in _WITHOUT_EFFECT}
        return {**told, "--val-share": self.share_held_out}

    @property
    def share_held_out(self) -> float:
        """The share of the pictures of `data` to validate on, also where none was asked for."""
        asked = self.val is not None or self.val_split is not None
        return self.val_share if self.val_share is not None else 0.0 if asked else VAL_SHARE

    @staticmethod
    def defaults() -> dict[str, Any]:
        """Return the defaults of settings on which the result depends, by the names of their options."""
        optional = (f for f in fields(TrainSettings) if f.default is not MISSING and f.name not in _WITHOUT_EFFECT)
        return {_option(f.name): _plain(f.default) for f in optional}


# A run may go on with others: of files and the model the contents are compared, and the rest change speed, memory and
# messages. Chunks and devices change the last bits, and the chunks the words that dropout leaves out.
_WITHOUT_EFFECT = frozenset(
    "data init val replay out images replay_images micro_batch gradient_checkpointing device save_every log_every "
    "workers".split()
)
_OPTIONS = {"data": "DATA", "splits": "--split", "new_heads": "--new-head", "augment": "augmentation"}


def _option(name: str) -> str:
    return _OPTIONS.get(name, "--" + name.replace("_", "-"))


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path | Head) else value


def _head(value: object) -> Head:
    try:
        return Head(str(value))
    except ValueError:
        raise UsageError(f"--new-head {value}: give one of {', '.join(Head)}") from None
