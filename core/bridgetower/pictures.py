"""Picture files -> pixels for the encoder, where a picture is wanted at once and no look-ahead pays."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.decode import decode, read
from bridgetower.errors import PictureError
from bridgetower.preprocess import Preprocessing, preprocess
from bridgetower.records import Skipped

PICTURES_AT_ONCE = 32  # that are held in memory together


def load(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """A picture file as float32 [3, H, W]. Raises PictureError."""
    return preprocess(decode(read(path), path).image, preprocessing)


def load_readable(
    paths: Sequence[Path], preprocessing: Preprocessing, skipped: list[Skipped]
) -> tuple[list[Path], npt.NDArray[np.float32]]:
    """The pictures that can be read and their pixels float32 [B, 3, H, W]; the others are added to `skipped`."""
    there: list[Path] = []
    pixels = []
    for path in paths:
        try:
            pixels.append(load(path, preprocessing))
            there.append(path)
        except PictureError as error:
            skipped.append(Skipped(path, error.reason))
    side = preprocessing.crop_size
    return there, np.stack(pixels) if pixels else np.zeros((0, 3, side, side), np.float32)


def in_batches(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """`paths` in order, at most PICTURES_AT_ONCE at a time."""
    for start in range(0, len(paths), PICTURES_AT_ONCE):
        yield paths[start : start + PICTURES_AT_ONCE]
