"""The contents of an index whose files are there, ordered by the rule that says which of several is kept.

A content is kept before another one if it is camera raw and the other is not; then if it has more pixels; then more
bytes, as it lost less when it was encoded; then the older date; then the shorter path. Of files with one content, the
date and the path decide. The date is when the picture was taken, else the time of the file.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.files.regular_files import has_stub, is_in_cloud
from bridgetower.files.walk import RAW_EXTENSIONS
from bridgetower.index.catalog.rows import Entry
from bridgetower.index.reader import IndexReader
from bridgetower.index.vectors.catalog_vectors import unpacked
from bridgetower.records import EVERYTHING, File, Filter, Skipped
from bridgetower.retrieval.candidates import are_pair

_Key = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Content:
    """A content with the files that have it: there, unchanged since they were indexed, the one to keep first."""

    hash: bytes  # its SHA-256
    width: int  # upright pixels
    height: int
    dates: tuple[int | None, ...]  # of each file: seconds since 1970 on the clock where the picture was taken
    files: tuple[File, ...]

    @property
    def order(self) -> tuple[int, int, int, _Key]:
        """The key that sorts what is kept first."""
        file = self.files[0]
        is_raw = file.path.suffix.lower() in RAW_EXTENSIONS
        return -is_raw, -self.width * self.height, -file.size, _key(file, self.dates[0])


@dataclass(slots=True)
class There:
    """The contents that are there, those to be kept first, and what was passed over."""

    contents: list[Content] = field(default_factory=list)
    images: list[int] = field(default_factory=list)  # their ids
    vectors: npt.NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, 0), np.float16))  # [n, E]
    gone: int = 0  # pictures none of whose files exists
    changed: int = 0  # files that have changed since they were indexed
    in_cloud: int = 0  # files
    barred: list[Skipped] = field(default_factory=list)  # files that cannot be accessed


def contents_there(reader: IndexReader, filter: Filter = EVERYTHING) -> There:
    """Return the contents with a file that passes the filter and is there. Raises StoreError."""
    catalog, there = reader.catalog, There()
    passing = None if filter == EVERYTHING else set(catalog.paths_within(filter))
    found: list[tuple[Content, int, bytes]] = []
    for image, entry in zip(sorted(catalog.image_ids()), catalog.entries(), strict=True):
        files = [file for file in entry.files if passing is None or os.fsencode(file.path) in passing]
        if files and (content := content_of(entry, files, there)) is not None:
            found.append((content, image, entry.vector))
    found.sort(key=lambda one: one[0].order)
    there.contents, there.images = [content for content, _, _ in found], [image for _, image, _ in found]
    if found:
        blobs, step = [vector for _, _, vector in found], 4096
        parts = (unpacked(catalog, blobs[start : start + step]) for start in range(0, len(blobs), step))
        there.vectors = np.concatenate([part.astype(np.float16) for part in parts])
    return there


def content_of(entry: Entry, files: Iterable[File], there: There) -> Content | None:
    """Return a content with those of its files that are there, and count the others in `there`; None if none is."""
    kept: dict[object, File] = {}
    passed_over = there.changed, there.in_cloud, len(there.barred)
    for file in sorted(files, key=lambda file: _key(file, _date(file, entry))):
        if (identity := _look(file, there)) is not None:
            kept.setdefault(identity, file)
    if not kept:
        there.gone += passed_over == (there.changed, there.in_cloud, len(there.barred))
        return None
    dates = tuple(_date(file, entry) for file in kept.values())
    return Content(entry.hash, entry.width, entry.height, dates, tuple(kept.values()))


def _look(file: File, there: There) -> object:
    """Return what tells a file from others, the same for all names of one file; None, counted, if it does not count.

    A second name of a file, by a link, is no duplicate: who removes what it names loses the picture.
    """
    try:
        status = os.stat(file.path)
    except (FileNotFoundError, NotADirectoryError):
        there.in_cloud += has_stub(file.path)
        return None
    except OSError as error:
        there.barred.append(Skipped(file.path, error.strerror or str(error)))
        return None
    if is_in_cloud(status):
        there.in_cloud += 1
    elif not (stat.S_ISREG(status.st_mode) and file.is_unchanged(File.of(file.path, status))):
        there.changed += 1
    else:
        return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(file.path)
    return None


def _date(file: File, entry: Entry) -> int | None:
    return entry.taken_at if file.taken_at is None else file.taken_at


def _key(file: File, taken_at: int | None) -> _Key:
    path = os.fsencode(file.path)
    return file.mtime_ns // 10**9 if taken_at is None else taken_at, len(path), path


def shots(contents: list[Content]) -> list[int]:
    """Return for each content the number of its shot: contents that a camera wrote together have one number.

    Such are raw and JPEG of one name. The number is the place of the first of them.
    """
    by_stem: dict[tuple[Path, str], list[tuple[Path, int]]] = {}
    for place, content in enumerate(contents):
        for file in content.files:
            by_stem.setdefault((file.path.parent, file.path.stem), []).append((file.path, place))
    first = list(range(len(contents)))

    def shot_of(place: int) -> int:
        while first[place] != place:
            place = first[place]
        return place

    for one, other in _pairs(by_stem.values()):
        low, high = sorted((shot_of(one), shot_of(other)))
        first[high] = low
    return [shot_of(place) for place in range(len(contents))]


def _pairs(namesakes: Iterable[list[tuple[Path, int]]]) -> Iterator[tuple[int, int]]:
    for files in namesakes:
        for number, (path, place) in enumerate(files):
            yield from ((place, other) for other_path, other in files[:number] if are_pair(path, other_path))
