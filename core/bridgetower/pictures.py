"""Picture files -> pixels for the encoder, where a picture is wanted at once and no look-ahead pays."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.decode import decode, read
from bridgetower.errors import PictureError
from bridgetower.preprocess import Preprocessing, preprocess
from bridgetower.records import Skipped

# Pictures that are encoded together: more gain nothing on a CPU, and progress is told after each such batch.
PICTURES_AT_ONCE = 4


def load(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """A picture file as float32 [3, H, W]. Raises PictureError."""
    return preprocess(decode(read(path), path).image, preprocessing)


def readable(
    paths: Iterable[Path], preprocessing: Preprocessing, skipped: list[Skipped]
) -> Iterator[tuple[list[Path], npt.NDArray[np.float32]]]:
    """The pictures that can be read, in order, in batches of at most PICTURES_AT_ONCE: paths and float32 [B, 3, H, W].

    The others are added to `skipped` as they are met.
    """
    there, pixels = [], []
    for path in paths:
        try:
            pixels.append(load(path, preprocessing))
        except PictureError as error:
            skipped.append(Skipped(path, error.reason))
            continue
        there.append(path)
        if len(there) == PICTURES_AT_ONCE:
            yield there, np.stack(pixels)
            there, pixels = [], []
    if there:
        yield there, np.stack(pixels)
