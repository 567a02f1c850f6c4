"""Look before the first step whether the disk has room for what a run writes."""

import math
import shutil
from collections.abc import Mapping

from bridgetower.checkpoints.hub import SAFETENSORS
from bridgetower.errors import OutputError
from bridgetower.files.os_errors import writing
from bridgetower.training.optimiser import TOWERS
from bridgetower.training.recipe import Freeze
from bridgetower.training.run.folder import RunFolder

_FROZEN: dict[Freeze, tuple[str, ...]] = {"none": (), "towers": TOWERS, "text": TOWERS[:1], "vision": TOWERS[1:]}


def require_room(folder: RunFolder, shapes: Mapping[str, tuple[int, ...]], freeze: Freeze) -> None:
    """Raise OutputError where the folder of a run, which is there, has too little room for its states and its model.

    `shapes` are those of all parameters. A state is replaced as a whole, so for a moment there are two of them.
    """
    if folder.result() is not None:
        return
    numbers = {name: math.prod(shape) for name, shape in shapes.items()}
    model = 4 * sum(numbers.values())  # bytes in fp32
    learning = 4 * sum(number for name, number in numbers.items() if not name.startswith(_FROZEN[freeze]))
    needed = 2 * (model + 2 * learning) + model  # weights of all, two moments of what learns
    with writing(folder.run, OutputError):
        there = sum(file.stat().st_size for file in (folder.state, folder.out / SAFETENSORS) if file.exists())
        free = shutil.disk_usage(folder.run).free
    if free + there < needed:
        raise OutputError(
            f"{folder.out}: the run needs {_size(needed - there)} more on this disk, for two states and the model, and "
            f"{_size(free)} are free: make room, or give a folder on another disk with --out"
        )


def _size(number: int) -> str:
    return f"{number / 1e9:.3g} GB"
