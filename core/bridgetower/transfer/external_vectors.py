"""Read and check vectors of another model, each with the path of its picture, and read the pictures."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bridgetower.errors import InputError, PictureError
from bridgetower.files import jsonl, npy
from bridgetower.files.content import read
from bridgetower.files.npy import Rows
from bridgetower.index.catalog.rows import Known
from bridgetower.index.writer import NewImage
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.extra import needed
from bridgetower.records import DECODING_VERSION, File
from bridgetower.transfer.path_map import PathMapper

MAX_QUERIES = 256  # vectors of texts that are kept


class ExternalVectors:
    """Vectors of another model [N, E], and the paths of their N pictures."""

    def __init__(self, vectors: Rows, paths: Path, queries: Rows | None, moved: PathMapper) -> None:
        self.vectors = vectors
        self._paths, self._queries, self.moved = paths, queries, moved

    def check(self, report: Callable[[int], None]) -> None:
        """Check everything but the pictures. Raises InputError. `report` gets the number of each row."""
        jsonl.require_once(self._paths, lambda: ([("path", os.fsencode(path))] for path, _ in self.rows()), report)
        self.texts()

    def rows(self) -> Iterator[tuple[Path, npt.NDArray[np.float32]]]:
        """Yield every path with its unit vector, float32 [E]. Raises InputError."""
        for row, (path, vector) in enumerate(zip_longest(jsonl.lines(self._paths, self._path), _units(self.vectors))):
            if path is None or vector is None:
                how = f"ends after {row} lines" if path is None else f"goes on after {row} lines"
                raise InputError(
                    f"{self._paths}: {how}; {self.vectors.path} has {len(self.vectors)} rows, one for each"
                )
            yield path, vector

    def _path(self, number: int, row: Any) -> Path:
        path = row if isinstance(row, str) else jsonl.field(row, "path", str)
        if not path:
            raise ValueError("the path is empty")
        return Path(self.moved(path, below=self._paths.parent))

    def texts(self) -> list[npt.NDArray[np.float32]]:
        """Return at most MAX_QUERIES unit vectors [E] of texts. Raises InputError."""
        if self._queries is None:
            return []
        if self._queries.dim != self.vectors.dim:
            raise InputError(
                f"{self._queries.path}: vectors of length {self._queries.dim}, those of the pictures have "
                f"{self.vectors.dim}; give vectors of texts by the same model"
            )
        return [vector for vector, _ in zip(_units(self._queries), range(MAX_QUERIES), strict=False)]


@dataclass(frozen=True, slots=True)
class Seen:
    """A file with its foreign vector; exactly one of `image`, `known` and `reason` is not None."""

    file: File
    vector: npt.NDArray[np.float32]  # [E]
    image: NewImage | None = None  # the content, if the file was read now
    known: int | None = None  # the image, if the index knows the file unchanged
    reason: str | None = None  # why it was skipped
    lasting: bool = False  # the cause is the content, and the index does not know it yet


def see(row: tuple[Path, npt.NDArray[np.float32], Known | None]) -> Seen:
    """Read the picture of a vector, unless the index knows its file unchanged."""
    path, vector, known = row
    file, unchanged = File(path, 0, 0), False
    try:
        status = path.stat()
        file = File.of(path, status)
        unchanged = known is not None and known.file.is_unchanged(file)
    except (OSError, ValueError):
        pass  # `read` raises with a better message
    if known is not None and unchanged and not _may_read(known):
        return Seen(file, vector, known=known.image, reason=known.reason)
    try:
        data = read(path)
    except PictureError as error:
        return Seen(file, vector, reason=error.reason)
    try:
        decoded = decode(data, path, min_side=1, convert=False)  # whether it is a picture, and how large
    except PictureError as error:
        lasting = not isinstance(error.__cause__, MemoryError)
        return Seen(file, vector, reason=error.reason, lasting=lasting)
    content = hashlib.sha256(data).digest()
    size = decoded.width, decoded.height
    # How the other program decoded it is not known.
    return Seen(file, vector, NewImage(content, *size, decoded.taken_at, vector, decoding=0))


def _may_read(known: Known) -> bool:
    """Return whether a file that was skipped may be read now: its extra is installed, or its reader is newer."""
    extra = needed(known.reason)
    older = known.file.decoding is not None and known.file.decoding < DECODING_VERSION
    return older or (extra is not None and extra.is_installed())


def _units(rows: Rows) -> Iterator[npt.NDArray[np.float32]]:
    """Yield each row [E], scaled to length 1. Raises InputError for a row without a direction."""
    first = 0
    for part in rows.parts():
        yield from npy.unit(part, str(rows.path), first)
        first += len(part)
