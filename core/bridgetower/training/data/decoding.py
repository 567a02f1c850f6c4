"""Decode the pictures of a run in guarded processes, a bounded number ahead of the training."""

import hashlib
import os
from collections.abc import Generator, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bridgetower.errors import InputError, PictureError
from bridgetower.files.content import read
from bridgetower.pictures.decode_pool import DecodePool, error_of
from bridgetower.pictures.preprocess import Preprocessing, normalise
from bridgetower.prefetch import ahead, workers
from bridgetower.records import Refused
from bridgetower.training.data.augment import augmented, may_flip
from bridgetower.training.data.pairs import TrainingPicture

Pixels = npt.NDArray[np.float32]  # [3, H, W]
READ_AHEAD = 500 * 1000**2  # bytes of contents that may be in memory to be decoded


class Wanted(NamedTuple):
    """A picture whose pixels are wanted, and the generator for its augmentation; None for the picture as it is."""

    picture: TrainingPicture
    draw: np.random.Generator | None = None


def pixels(
    wanted: Iterable[Wanted], preprocessing: Preprocessing, *, window: int, processes: int | None = None
) -> Generator[Pixels]:
    """Yield the pixels of each picture, in order, decoded at most `window` ahead in `processes`.

    By default these are one a core, shared out among the processes of the run on this machine, as each has its own.
    Raises InputError where a file is not the one that was checked any more, ProcessError, ResourceError.
    """
    # The pool is closed before the threads, so that a thread that waits for a process ends at once.
    with workers(number=processes or _share_of_cores()) as threads, DecodePool(preprocessing) as pool:

        def decode(one: Wanted) -> Pixels:
            rgb = _square(one.picture, pool)
            if one.draw is not None:
                flips = may_flip(one.picture.captions)
                rgb = augmented(rgb, preprocessing.crop_size, one.draw, flips=flips)
            return normalise(rgb, preprocessing)

        yield from ahead(threads, decode, wanted, window, weigh=lambda one: one.picture.size, most=READ_AHEAD)


def _share_of_cores() -> int:
    """Return the number of cores for this process, of those that torchrun started on this machine."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _square(picture: TrainingPicture, pool: DecodePool) -> bytes:
    """Return uint8 [H, W, 3] of a picture. Raises InputError."""
    again = "run the same command again, which goes on from the last saved state"
    try:
        content = read(picture.path)
        if hashlib.sha256(content).digest() != picture.hash:
            raise PictureError(picture.path, "its content is another")
    except PictureError as error:
        raise InputError(f"{error}, unlike when the data was checked: restore the file, then {again}") from error
    found = pool.square(content)
    if isinstance(found, Refused):  # of a content that was decoded before: this machine is at fault
        raise InputError(f"{error_of(found, picture.path)}, unlike when the data was checked: {again}")
    return found.rgb
