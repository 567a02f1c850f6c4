"""The log of a run: JSON lines, and curves for TensorBoard where it is installed."""

import json
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bridgetower.errors import OutputError
from bridgetower.files.atomic import replace_file
from bridgetower.files.os_errors import writing
from bridgetower.files.regular_files import open_own, open_own_descriptor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_CURVES = ("step", "validation")  # events with numbers that change


def has_tensorboard() -> bool:
    """Whether curves for TensorBoard can be written."""
    return _writer() is not None


@cache
def _writer() -> "type[SummaryWriter] | None":
    """Return what writes curves; None where TensorBoard, or one of the many packages behind it, cannot be imported."""
    with suppress(Exception):  # of a broken installation: it is no reason not to train
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    return None


class RunLog:
    """The log of a run from a step on; later lines of a process that was killed are cut off. A context manager."""

    def __init__(self, file: Path, tensorboard: Path, step: int, validated: int) -> None:
        """`step` is the number of finished steps, `validated` the last validation of them. Raises OutputError."""
        self._path = file
        with writing(file, OutputError):
            file.parent.mkdir(parents=True, exist_ok=True)
            _cut(file, step, validated)
            self._file = open(file, "ab", buffering=0, opener=open_own_descriptor)  # noqa: SIM115 - until `close`
            writer = _writer()
            self._curves = writer(str(tensorboard), purge_step=step + 1) if writer is not None else None

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Add an event, with its "step" among the values. Raises OutputError."""
        with writing(self._path, OutputError):
            self._file.write(json.dumps({"event": event, **values}).encode() + b"\n")
            if self._curves is not None and event in _CURVES:
                for name, value in values.items():
                    if name != "step" and isinstance(value, float):
                        self._curves.add_scalar(f"{event}/{name}", value, values["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._file.close()
        if self._curves is not None:
            # An error of the run is told, not one that it led to here.
            with writing(self._path, OutputError), suppress(Exception) if kind is not None else nullcontext():
                self._curves.close()


def _cut(file: Path, step: int, validated: int) -> None:
    """Drop lines of steps and validations that are done again, and lines that a killed process left unfinished."""
    try:
        with open_own(file) as opened:
            lines = opened.readlines()
    except FileNotFoundError:
        return
    kept = [line for line in lines if _stays(line, step, validated)]
    if kept != lines:
        replace_file(file, lambda unfinished: unfinished.write_bytes(b"".join(kept)))


def _stays(line: bytes, step: int, validated: int) -> bool:
    try:
        told = json.loads(line)
        last = validated if told["event"] == "validation" else step
        return bool(told["step"] <= last) and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError):
        return False
