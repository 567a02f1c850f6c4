"""The place of this process among those that torchrun started, from its environment; imports no PyTorch."""

import os

from bridgetower.errors import UsageError


def place() -> tuple[int, int]:
    """Return the rank of this process and the number of processes: 0 of 1 without torchrun.

    Raises UsageError for an environment that is not that of torchrun.
    """
    size, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "")
    if size == "1":
        return 0, 1
    complete = all(name in os.environ for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))
    if not (complete and size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        raise UsageError(
            "the variables WORLD_SIZE and RANK are not as torchrun sets them: unset them, or start the command with "
            "torchrun"
        )
    return int(rank), int(size)
