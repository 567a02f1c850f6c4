"""Export an index as files that any program reads: vectors as npy, all else as lines of JSON.

docs/export-format.md has the form. One committed state is read, whatever a writer does meanwhile. The files are written
into a temporary folder beside the target, which is renamed to it when all files are complete and on the disk. If the
target exists, the temporary folder is inside it, and the files are moved up at the end.
"""

import hashlib
import json
import os
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bridgetower.errors import DamagedIndexError, OutputError, UsageError
from bridgetower.files import npy
from bridgetower.files.atomic import is_vacant, new_folder
from bridgetower.files.os_errors import writing
from bridgetower.index.catalog.rows import Entry
from bridgetower.index.reader import IndexReader
from bridgetower.records import File, OnProgress, quiet

FORMAT = "bridgetower-export"
VERSION = 2
INDEX, VECTORS, IMAGES, SKIPPED, QUERIES = "index.json", "vectors.npy", "images.jsonl", "skipped.jsonl", "queries.npy"
_REPORT_EVERY = 1024  # images


@dataclass(frozen=True, slots=True)
class Exported:
    """Counts of an export."""

    folder: Path
    images: int  # orphans included
    orphans: int
    files: int  # files that lead to an image
    skipped: int  # files
    bytes: int


def export(reader: IndexReader, folder: Path, *, on_progress: OnProgress = quiet) -> Exported:
    """Write the whole index into `folder`, new or empty; its files appear only when all are complete.

    `on_progress(done, total)` counts images. Raises UsageError where `folder` is not empty or lies in the folder of the
    index, OutputError where it cannot be written, StoreError where the index is damaged.
    """
    folder = Path(os.path.realpath(folder))
    if folder.is_relative_to(os.path.realpath(reader.directory)):
        raise UsageError(f"{folder}: it lies in the folder of the index, which holds its own files only; give another")
    with writing(folder, OutputError):
        if folder.exists() and not is_vacant(folder):
            raise UsageError(f"{folder}: it is there already and not empty; give a new folder")
    with new_folder(folder, (VECTORS, IMAGES, SKIPPED, QUERIES, INDEX), OutputError) as unfinished:
        return _write(reader, folder, unfinished, on_progress)


def _write(reader: IndexReader, folder: Path, unfinished: Path, on_progress: OnProgress) -> Exported:
    summary, queries = reader.summary(), reader.catalog.queries()
    total, dim = summary.images + summary.orphans, summary.fingerprint.dim
    files: list[_HashedFile] = []

    def create(name: str) -> AbstractContextManager[_HashedFile]:
        files.append(_HashedFile(unfinished / name, folder / name))
        return files[-1]

    rows = 0
    with create(VECTORS) as vectors, create(IMAGES) as images:
        vectors.write(npy.header(total, dim))
        for entry in reader.catalog.entries():
            vectors.write(entry.vector)
            images.write(_line(_image(rows, entry)))
            rows += 1
            if rows % _REPORT_EVERY == 0 or rows == total:
                on_progress(rows, total)
    if rows != total:
        raise DamagedIndexError(reader.directory, f"it holds {rows} images and counts {total}")
    with create(SKIPPED) as skipped:
        for file, reason in reader.catalog.skipped_files():
            skipped.write(_line(_file(file) | {"decoding": file.decoding, "reason": reason}))
    if queries:
        with create(QUERIES) as texts:
            texts.write(npy.header(len(queries), dim) + b"".join(queries))
    described = {
        "format": FORMAT,
        "version": VERSION,
        "separator": os.sep,
        "fingerprint": asdict(summary.fingerprint),
        "images": total,
        "orphans": summary.orphans,
        "files": summary.files,
        "skipped": summary.skipped,
        "queries": len(queries),
        "roots": [{"path": str(root.path), "scanned_at": root.scanned_at} for root in summary.roots],
        "sha256": {file.name: file.sha256.hexdigest() for file in files},
    }
    with create(INDEX) as index:
        index.write((json.dumps(described, indent=2) + "\n").encode("ascii"))
    size = sum(file.size for file in files)
    return Exported(folder, total, summary.orphans, summary.files, summary.skipped, size)


def _image(row: int, entry: Entry) -> dict[str, Any]:
    return {
        "row": row,
        "hash": entry.hash.hex(),
        "width": entry.width,
        "height": entry.height,
        "taken_at": entry.taken_at,
        "decoding": entry.decoding,
        "paths": [_file(file) for file in entry.files],
    }


def _file(file: File) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "taken_at": file.taken_at,
        "metadata": file.metadata,
    }


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode("ascii") + b"\n"


class _HashedFile:
    """A file that is written once, and hashed on the way. Errors name `place`, its path after the export."""

    def __init__(self, path: Path, place: Path) -> None:
        self.name, self._place = path.name, place
        self.size, self.sha256 = 0, hashlib.sha256()
        with writing(place, OutputError):
            self._file = path.open("xb", buffering=1 << 20)

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes) -> None:
        with writing(self._place, OutputError):
            self._file.write(data)
        self.size += len(data)
        self.sha256.update(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):
                self._file.close()
            return
        with writing(self._place, OutputError), self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
