"""The state of a run on the disk: all that a later process needs to go on as if the run had not been interrupted.

It holds weights, optimiser, the number of finished steps, the best validation, and the step of the last one. All that
is random in training is a function of the seed and the step, so no state of a generator is kept.
"""

import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bridgetower.errors import ModelError, OutputError, UsageError
from bridgetower.files.atomic import remove_abandoned, replace_file
from bridgetower.files.os_errors import unreadable, writing
from bridgetower.resources import shortage
from bridgetower.training.validation import Validation


@dataclass(slots=True)
class RunState:
    """The state file of a run, and the best validation so far.

    `run` tells which settings and data the run has: a file of another run is refused. The caller sets `best` and
    `validated` between two steps; the next save keeps them.
    """

    file: Path
    run: str = ""
    best: Validation | None = None
    validated: int = 0  # the last step after which the model was validated

    def load(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Take weights, optimiser and `best` from the file, if there is one, and return the finished steps.

        Raises ModelError for a damaged file or one of another network, UsageError for one of another run.
        """
        remove_abandoned(self.file.parent, re.escape(self.file.name), after_s=0)
        if not self.file.exists():
            return 0
        kept = self._read()
        if kept["run"] != self.run:
            raise UsageError(
                f"{self.file}: the state of a run with other settings or other data; give another folder, or remove "
                "this file to begin again"
            )
        try:
            model.load_state_dict(kept["model"])
            optimiser.load_state_dict(kept["optimiser"])
            _copy_moments(optimiser)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"{self.file}: the state of another network; give another folder, or remove this file to begin again"
            ) from error
        self.best = Validation(**kept["best"]) if kept["best"] else None
        self.validated = int(kept["validated"])
        return int(kept["step"])

    def _read(self) -> dict[str, Any]:
        try:
            with zipfile.ZipFile(self.file) as parts:  # PyTorch writes check sums, and reads without looking at them
                if (damaged := parts.testzip()) is not None:
                    raise ValueError(f"wrong check sum of {damaged}")
            # Mapped, so that only the copy in the model and the optimiser takes memory.
            kept = torch.load(self.file, map_location="cpu", weights_only=True, mmap=True)
            if kept.keys() != {"run", "step", "best", "validated", "model", "optimiser"}:
                raise ValueError("other keys")
        except Exception as error:  # the reader raises errors of many kinds for damaged files
            if (lack := shortage(error)) is not None:
                raise lack from error
            if isinstance(error, OSError):
                raise unreadable(self.file, error, ModelError) from error
            raise ModelError(
                f"{self.file}: damaged: put a copy of it back, or remove it to begin again from the first step"
            ) from error
        state: dict[str, Any] = kept
        return state

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Replace the file, in one step that survives a power cut. Raises OutputError; the old file then stays."""
        state = {
            "run": self.run,
            "step": step,
            "best": self.best and asdict(self.best),
            "validated": self.validated,
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        with writing(self.file, OutputError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.file, lambda unfinished: _write(state, unfinished))


def _copy_moments(optimiser: torch.optim.Optimizer) -> None:
    """Let the optimiser have its tensors for itself: it took those of the file, which then stayed open."""
    for moments in optimiser.state.values():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor):
                moments[name] = value.clone()


def _write(state: dict[str, Any], file: Path) -> None:
    with file.open("wb") as opened:
        try:
            torch.save(state, opened)
        except RuntimeError as error:  # the writer of PyTorch reports a failed write in its own way
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
