"""Read and check the files that `export` wrote. docs/export-format.md has the form."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bridgetower.errors import InputError
from bridgetower.files import jsonl
from bridgetower.files.npy import Rows
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular
from bridgetower.index.vectors.float16 import LENGTH_TOLERANCE
from bridgetower.records import FOREIGN, LARGEST, File, Fingerprint
from bridgetower.transfer.export import FORMAT, IMAGES, INDEX, QUERIES, SKIPPED, VECTORS, VERSION
from bridgetower.transfer.path_map import PathMapper

LARGEST_INDEX = 64 * 1000**2  # bytes of index.json, which is read into memory as a whole
_NUMBERS = ("preprocessing_version", "dim")  # fields of a fingerprint; the other fields are text
_OPTIONAL = "tokenizer_sha256"  # missing in exports of older indexes
_VERSIONS = (1, VERSION)  # that are read; version 1 has no decodings, and no dates of files


@dataclass(frozen=True, slots=True)
class Image:
    """A line of images.jsonl."""

    hash: bytes
    width: int
    height: int
    taken_at: int | None
    decoding: int
    files: tuple[File, ...]


class Export:
    """A folder that `export` wrote."""

    def __init__(self, folder: Path, moved: PathMapper) -> None:
        """Read index.json and the header of the vectors. Raises InputError."""
        self._folder, self.moved = folder, moved
        index = folder / INDEX
        advice = "give a folder that `bt export` has written"
        try:
            with open_regular(index) as file:
                text = file.read(LARGEST_INDEX + 1)
            if len(text) > LARGEST_INDEX:
                raise InputError(f"{index}: larger than {LARGEST_INDEX / 1e6:g} MB; {advice}")
            described = json.loads(text)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{index}: no such file; {advice}") from error
        except OSError as error:
            raise unreadable(index, error) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{index}: is not JSON; {advice}") from error
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise InputError(f"{index}: is not of an export; {advice}")
        self._version = described.get("version")
        if self._version not in _VERSIONS or not isinstance(self._version, int):
            reads = " and ".join(map(str, _VERSIONS))
            raise InputError(f"{index}: export of version {self._version!s:.9}, this bt reads {reads}; update bt")
        try:
            moved.separator = jsonl.field(described, "separator", str)
            if moved.separator not in ("/", "\\"):
                raise ValueError('"separator" is neither a slash nor a backslash')
            self.fingerprint = _fingerprint(jsonl.field(described, "fingerprint", dict))
            self._number = {name: jsonl.integer(described, name) for name in ("images", "skipped", "queries")}
            self.roots = [Path(moved(jsonl.field(root, "path", str))) for root in jsonl.field(described, "roots", list)]
            self._sums = jsonl.field(described, "sha256", dict)
            needed = {VECTORS, IMAGES, SKIPPED} | ({QUERIES} if self._number["queries"] else set())
            if set(self._sums) != needed:
                raise ValueError(f'"sha256" does not name {", ".join(sorted(needed))}')
        except ValueError as error:
            raise InputError(f"{index}: {error}") from error
        self.vectors = self._array(VECTORS, self._number["images"])

    def _array(self, name: str, number: int) -> Rows:
        rows = Rows(self._folder / name)
        if (rows.number, rows.dim, rows.dtype) != (number, self.fingerprint.dim, np.dtype("<f2")):
            raise InputError(
                f"{rows.path}: holds {rows.dtype} [{rows.number}, {rows.dim}], not the float16 [{number}, "
                f"{self.fingerprint.dim}] that {INDEX} speaks of; copy all files of one export"
            )
        return rows

    def check(self, report: Callable[[int], None]) -> None:
        """Read all files, and raise InputError for the first fault. `report` gets the number of each image."""
        for name, expected in self._sums.items():
            if _sha256(self._folder / name) != expected:
                raise InputError(f"{self._folder / name}: is not as it was exported; copy or export it again")
        jsonl.require_once(self._folder / IMAGES, lambda: (self._keys(image) for image, _ in self.rows()), report)
        skipped = sum(1 for _ in self.skipped())
        if skipped != self._number["skipped"]:
            raise InputError(f"{self._folder / SKIPPED}: {skipped} lines, not {self._number['skipped']}; export again")
        self.queries()

    def _keys(self, image: Image) -> list[tuple[str, bytes]]:
        return [("content", image.hash), *(("path", os.fsencode(file.path)) for file in image.files)]

    def rows(self) -> Iterator[tuple[Image, npt.NDArray[np.floating]]]:
        """Yield every image with its vector, float16 [E]. Raises InputError."""
        for row, (image, vector) in enumerate(zip_longest(self._images(), _unit_vectors(self.vectors))):
            if image is None or vector is None:
                how = f"ends after {row} lines" if image is None else f"goes on after {row} lines"
                raise InputError(
                    f"{self._folder / IMAGES}: {how}; {VECTORS} has {len(self.vectors)} rows, one for each"
                )
            yield image, vector

    def _images(self) -> Iterator[Image]:
        return jsonl.lines(self._folder / IMAGES, self._image)

    def _image(self, number: int, row: Any) -> Image:
        if jsonl.integer(row, "row") != number - 1:
            raise ValueError(f'"row" is not {number - 1}')
        digits = jsonl.field(row, "hash", str)
        hash = bytes.fromhex(digits) if set(digits) <= set("0123456789abcdef") and len(digits) == 64 else None
        if hash is None:
            raise ValueError('"hash" is not a SHA-256 in 64 hexadecimal digits')
        size = jsonl.integer(row, "width"), jsonl.integer(row, "height")
        files = tuple(self._file(file) for file in jsonl.field(row, "paths", list))
        return Image(hash, *size, _taken_at(row), self._decoding(row), files)

    def _file(self, row: Any, decoding: int | None = None) -> File:
        path = Path(self.moved(jsonl.field(row, "path", str)))
        size, mtime_ns = jsonl.integer(row, "size"), jsonl.integer(row, "mtime_ns", least=-LARGEST)
        if self._version == 1:
            return File(path, size, mtime_ns, metadata=0, decoding=decoding)
        metadata = jsonl.integer(row, "metadata")
        return File(path, size, mtime_ns, taken_at=_taken_at(row), metadata=metadata, decoding=decoding)

    def _decoding(self, row: Any) -> int:
        return 0 if self._version == 1 else jsonl.integer(row, "decoding")

    def skipped(self) -> Iterator[tuple[File, str]]:
        """Yield every skipped file with the reason. Raises InputError."""
        return jsonl.lines(
            self._folder / SKIPPED,
            lambda number, row: (self._file(row, self._decoding(row)), jsonl.field(row, "reason", str)),
        )

    def queries(self) -> npt.NDArray[np.floating]:
        """Return the vectors of texts, float16 [Q, E]; empty where the index had none. Raises InputError."""
        if not self._number["queries"]:
            return np.empty((0, self.fingerprint.dim), np.float16)
        return np.stack(list(_unit_vectors(self._array(QUERIES, self._number["queries"]))))


def _taken_at(row: Any) -> int | None:
    return None if row.get("taken_at") is None else jsonl.integer(row, "taken_at", least=-LARGEST)


def _fingerprint(row: dict[str, Any]) -> Fingerprint:
    known = [field.name for field in fields(Fingerprint) if field.name != _OPTIONAL or row.get(_OPTIONAL) is not None]
    kinds = {name: int if name in _NUMBERS else str for name in known}
    values: dict[str, Any] = {name: jsonl.field(row, name, kind) for name, kind in kinds.items()}
    for name, value in values.items():
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f'"{name}" is not plain text')
    if not values["model"].strip():
        raise ValueError('"model" is empty')
    if values["precision_family"] != FOREIGN:  # foreign vectors: only the name of their model is known
        for name in ("weights_sha256", "config_sha256", *values.keys() & {_OPTIONAL}):
            if not re.fullmatch("[0-9a-f]{64}", values[name]):
                raise ValueError(f'"{name}" is not a SHA-256 in 64 hexadecimal digits')
    if not (0 < values["dim"] <= LARGEST and abs(values["preprocessing_version"]) <= LARGEST):
        raise ValueError('a number in "fingerprint" is out of range')
    return Fingerprint(**values)


def _unit_vectors(rows: Rows) -> Iterator[npt.NDArray[np.floating]]:
    """Yield each row [E]. Raises InputError for a row that is no unit vector."""
    first = 0
    for part in rows.parts():
        with np.errstate(invalid="ignore"):  # NumPy warns of some kinds of NaN
            lengths = np.linalg.norm(part.astype(np.float64), axis=1)
        for row in np.flatnonzero(~(np.abs(lengths - 1) <= 2 * LENGTH_TOLERANCE))[:1]:
            raise InputError(f"{rows.path}: row {first + row} has length {lengths[row]:.4f}, not 1; export again")
        yield from part
        first += len(part)


def _sha256(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(file, error) from error
