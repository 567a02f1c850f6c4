"""Make grids of picture files in worker processes, guarded as those of `decode_pool`."""

import sys

import numpy as np
import numpy.typing as npt

from bridgetower.pictures.decode_pool import DecodePool, Square
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Refused

SIDE = 64  # of a grid

Grid = npt.NDArray[np.uint8]  # [SIDE, SIDE, 3], upright sRGB, of the whole picture whatever its shape

_COMMAND = (sys.executable, "-P", "-m", "bridgetower.pictures.likeness.worker")


class GridPool(DecodePool):
    """Processes that make grids."""

    def __init__(self, *, max_pixels: int | None = None) -> None:
        """Set the most pixels of a picture (default MAX_PIXELS); a process starts with the first picture."""
        super().__init__(Preprocessing(SIDE, SIDE, "plain"), max_pixels=max_pixels, command=_COMMAND)

    def grid(self, content: bytes) -> Grid | Refused:
        """Return the grid of the content of a file. Threads may call it. Raises ProcessError, ResourceError."""
        found = self.square(content)
        return found if isinstance(found, Refused) else as_grid(found)


def as_grid(square: Square) -> Grid:
    """Return the answer of a process as an array."""
    return np.frombuffer(square.rgb, np.uint8).reshape(SIDE, SIDE, 3)
