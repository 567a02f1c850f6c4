"""An index of very many pictures that the demo model searches. All files are there, some with the content they had."""

import hashlib
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
REAL = 3_000  # pictures whose file has its content, so that thumbnails are fetched and decoded
_FILES = 1_000  # of a folder


def write_large(index: Path, like: Path, images: int, folder: Path) -> None:
    """Write an index of `images` random vectors in the format of the model that made the index `like`."""
    pictures = [file.read_bytes() for file in sorted(GALLERY.glob("*.jpg"))]

    def path_of(number: int) -> Path:
        return folder / f"{number // _FILES:04d}" / f"{number % _FILES:04d}.jpg"

    def content_of(number: int) -> bytes:  # bytes after the end of a JPEG picture are no part of it
        return pictures[number % len(pictures)] + number.to_bytes(4, "big")

    def hash_of(number: int) -> bytes:
        return hashlib.sha256(content_of(number)).digest() if number < REAL else number.to_bytes(32, "big")

    for number in range(REAL):
        file = path_of(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content_of(number))
    for number in range(REAL, images, _FILES):
        path_of(number).parent.symlink_to(folder / "0000")

    def path(block: int, at: int) -> Path:
        return path_of(block * BLOCK + at)

    with Library(like) as library:
        fingerprint = library.fingerprint
    assert fingerprint is not None
    shutil.rmtree(index, ignore_errors=True)
    with IndexWriter.open(index, fingerprint) as writer:
        insert_in_bulk(writer.catalog, images, cast("Clouds", _Noise(fingerprint.dim)), path, hash_of)
    with IndexWriter.open(index, fingerprint) as writer:
        writer.finish()
