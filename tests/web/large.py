"""An index of very many pictures that the demo model searches. The files are there, and none has the content it had."""

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from benchmarks.clouds import Clouds
from benchmarks.scale import BLOCK, insert_in_bulk
from bridgetower import Library
from bridgetower.index.writer import IndexWriter


class _Noise:
    """Unit vectors of no meaning, drawn block by block as `Clouds` does."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def pictures(self, block: int, number: int) -> npt.NDArray[np.float32]:
        drawn = np.random.default_rng(block).standard_normal((number, self._dim), np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
_FILES = 1_000  # of the folder to which the links of all others lead


def write_large(index: Path, like: Path, images: int, folder: Path) -> None:
    """Write an index of `images` random vectors in the format of the model that made the index `like`."""
    first = folder / "first"
    first.mkdir(parents=True)
    picture = folder / "picture.jpg"
    shutil.copyfile(min(GALLERY.glob("*.jpg")), picture)
    for number in range(_FILES):
        (first / f"{number:04d}.jpg").hardlink_to(picture)
    for number in range(images // _FILES):
        (folder / f"{number:04d}").symlink_to(first)

    def path(block: int, at: int) -> Path:
        number = block * BLOCK + at
        return folder / f"{number // _FILES:04d}" / f"{number % _FILES:04d}.jpg"

    with Library(like) as library:
        fingerprint = library.fingerprint
    assert fingerprint is not None
    shutil.rmtree(index, ignore_errors=True)
    with IndexWriter.open(index, fingerprint) as writer:
        insert_in_bulk(writer.catalog, images, cast("Clouds", _Noise(fingerprint.dim)), path)
    with IndexWriter.open(index, fingerprint) as writer:
        writer.finish()
