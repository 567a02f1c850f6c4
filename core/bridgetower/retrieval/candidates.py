"""Recall: propose the pictures of an index in the order of their similarity to a vector.

Files of one folder and stem are a pair if one is raw and the other is not, or one HEIF and the other JPEG: the camera
has written one picture twice. Files that pairs connect are one shot: the first of them is a candidate, the others are
not.
"""

import os
import stat
from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bridgetower.encoders.protocol import Vectors
from bridgetower.files.regular_files import has_stub, is_in_cloud
from bridgetower.files.walk import HEIF_EXTENSIONS, RAW_EXTENSIONS
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Entry
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import is_away
from bridgetower.moments import shown
from bridgetower.records import EVERYTHING, Candidate, File, Filter, Hit, Skipped

_JPEG_EXTENSIONS = frozenset([".jpg", ".jpeg", ".jpe", ".jfif"])

_RESTART_EVERY = 256  # pictures that are passed over before recall starts again without their folder, which is slow
_MOST_AWAY = 100  # such folders that recall leaves out: each is a condition of an SQL query


class Candidates:
    """The pictures of an index by similarity, each under the first of its files that exists, one of each pair.

    A file whose content is in the cloud only counts where the picture has no other, and so does one that iCloud has
    left a stub for.
    A picture whose files are gone, or may not be accessed, is no candidate: the next one takes its place. Where many
    are gone from an indexed folder that is now empty, as if its disk is not mounted, recall leaves out the rest of that
    folder.
    """

    def __init__(
        self,
        reader: IndexReader,
        query: Vectors,
        filter: Filter = EVERYTHING,
        first: Collection[Path] = (),
        *,
        without: Iterable[bytes] = (),
        exact: bool = False,
    ) -> None:
        """`query` is a unit vector float32 [1, E]. Of several files of a picture, those in `first` come first.
        `without` are the SHA-256 of pictures that are left out, with their shots. With `exact`, the vectors of all
        pictures are compared.

        The methods may raise StoreError.
        """
        self._catalog = reader.catalog
        self._recalled = _Recalled(reader, query, filter, first, exact=exact)
        self._steps = 0  # of `_recalled`, so far
        self._last = _Step(None, 0, 0, 0)
        self._taken: dict[Path, Path] = {}  # the candidate of each shot, by the first file of the shot
        self._second: dict[Path, list[Candidate]] = {}  # others of shots, by the path of the candidate
        self._returned: list[Candidate] = []  # seconds whose first could not be read
        self._shots: dict[Path, list[Path]] = {}  # by the path of a candidate
        self._facts: dict[Path, dict[str, Any]] = {}  # of described hits
        known = [self._catalog.entry(content) for content in without if self._catalog.image_id(content) is not None]
        self._left_out = {self._shot(file.path)[0] for entry in known for file in entry.files}

    def fork(self) -> "Candidates":
        """Return a copy that takes the same candidates from here on. Recall, and the search for files, is shared."""
        other = copy(self)
        other._taken, other._returned = dict(self._taken), list(self._returned)
        other._second = {path: list(others) for path, others in self._second.items()}
        return other

    @property
    def gone(self) -> int:
        """How many pictures were passed over, as none of their files exists; without those in `away`."""
        return self._last.gone

    @property
    def barred(self) -> list[Skipped]:
        """The pictures that were passed over, as no access is possible: one file of each."""
        return self._recalled.barred[: self._last.barred]

    @property
    def away(self) -> list[Path]:
        """The indexed folders, met so far, that are empty or missing now."""
        return self._recalled.away[: self._last.away]

    def take(self, number: int) -> list[Candidate]:
        """Return the next candidates; fewer than `number` only at the end of the index."""
        taken: list[Candidate] = []
        while len(taken) < number and (candidate := self._next()) is not None:
            shot = self._shot(candidate.path)
            if shot[0] in self._left_out:
                continue
            first = self._taken.setdefault(shot[0], candidate.path)
            if first == candidate.path:
                taken.append(candidate)
            else:
                self._second.setdefault(first, []).append(candidate)
        return taken

    def _shot(self, path: Path) -> list[Path]:
        """Return the files of the index that are one shot with a file, sorted by their bytes; at least that file."""
        if path not in self._shots:
            left, shot = {*self._catalog.same_stem(path)} - {path}, [path]
            for member in shot:
                partners = [other for other in left if are_pair(member, other)]
                shot += partners
                left.difference_update(partners)
            self._shots[path] = sorted(shot, key=os.fsencode)
        return self._shots[path]

    def replace_unreadable(self, paths: Iterable[Path]) -> None:
        """Let the others of their shots be candidates in the place of these, which could not be read."""
        for path in paths:
            if self._taken.get(key := self._shot(path)[0]) == path:
                del self._taken[key]
            self._returned += self._second.pop(path, [])

    def described(self, hit: Hit) -> Hit:
        """Return a hit of a candidate with what the index knows of its picture."""
        if hit.path not in self._facts:
            entry = self._catalog.entry(self._recalled.contents[hit.path])
            self._facts[hit.path] = _facts(entry, hit.path, self._shot(hit.path))
        return replace(hit, **self._facts[hit.path])

    def hash_of(self, path: Path) -> str:
        """Return the SHA-256, in 64 hexadecimal digits, that the content of a candidate had when it was indexed."""
        return self._recalled.contents[path].hex()

    def _next(self) -> Candidate | None:
        """Return the next picture that is there, whether or not it is the second of a pair; None at the end."""
        if self._returned:
            return self._returned.pop(0)
        self._last = self._recalled.step(self._steps)
        self._steps += 1
        return self._last.candidate


class _Step(NamedTuple):
    """A picture that is there, and how many were passed over up to it; at the end of the index no picture."""

    candidate: Candidate | None
    gone: int
    barred: int
    away: int  # folders


class _Recalled:
    """The pictures of an index that are there, by similarity. Each is recalled once, however often it is asked for."""

    def __init__(
        self, reader: IndexReader, query: Vectors, filter: Filter, first: Collection[Path], *, exact: bool
    ) -> None:
        self._reader, self._query, self._filter, self._exact = reader, query, filter, exact
        self._not_under, self._first = filter.not_under, first
        self._nearest = reader.nearest(query, filter, exact=exact)
        self._steps: list[_Step] = []
        self._seen: set[bytes] = set()  # by content
        self._checked: set[Path] = set()  # indexed folders
        self._in_away = 0  # pictures that were passed over, as their folders are away
        self._gone = 0  # other pictures that were passed over, as none of their files exists
        self.contents: dict[Path, bytes] = {}  # of the candidates
        self.barred: list[Skipped] = []
        self.away: list[Path] = []

    def step(self, place: int) -> _Step:
        """Return a step, by its place from 0; from the end of the index on, the last one."""
        while place >= len(self._steps) and not (self._steps and self._steps[-1].candidate is None):
            candidate = self._next()
            self._steps.append(_Step(candidate, self._gone, len(self.barred), len(self.away)))
        return self._steps[min(place, len(self._steps) - 1)]

    def _next(self) -> Candidate | None:
        """Return the next picture that is there; None at the end."""
        while (image := next(self._nearest, None)) is not None:
            if image.content in self._seen:
                continue
            self._seen.add(image.content)
            there = _first_present(sorted(image.files, key=lambda file: file.path not in self._first))
            if there is None:
                self._count_missing(image.files)
            elif isinstance(there, Skipped):
                self.barred.append(there)
            else:
                file, in_cloud = there
                self.contents[file.path] = image.content
                content = image.content if _is_unchanged(file) else None
                return Candidate(file.path, image.similarity, content, in_cloud=in_cloud)
        return None

    @cached_property
    def _folders(self) -> frozenset[Path]:
        """The folders that were indexed, or that hold a file indexed by its own path."""
        catalog = self._reader.catalog
        roots = (root for root, _, whole in catalog.root_rows() if whole)
        return frozenset(root if catalog.known(root) is None else root.parent for root in roots)

    def _count_missing(self, files: Iterable[File]) -> None:
        """Count a picture none of whose files exists."""
        around = {folder for file in files for folder in file.path.parents if folder in self._folders}
        self.away += sorted(filter(is_away, around - self._checked))
        self._checked |= around
        if around.isdisjoint(self.away):
            self._gone += 1
            return
        self._in_away += 1
        not_under = (*self._not_under, *self.away[:_MOST_AWAY])
        if self._in_away % _RESTART_EVERY == 0 and self._filter.not_under != not_under:
            self._filter = replace(self._filter, not_under=not_under)
            # From the start; `_seen` skips repeats.
            self._nearest = self._reader.nearest(self._query, self._filter, exact=self._exact)


class _Present(NamedTuple):
    file: File
    in_cloud: bool


def picture_with(catalog: Catalog, hash: bytes) -> Hit | None:
    """Return the picture of an index with this content, under the first of its files that exists; None if it has none.

    Raises StoreError.
    """
    if catalog.image_id(hash) is None or not (entry := catalog.entry(hash)).files:
        return None
    there = _first_present(entry.files)
    path = there.file.path if isinstance(there, _Present) else entry.files[0].path
    return Hit(path, None, None, verified=False, **_facts(entry, path, ()))


def _facts(entry: Entry, path: Path, shot: Iterable[Path]) -> dict[str, Any]:
    """Return what the index knows of the picture of a hit."""
    dates = {file.path: file.taken_at for file in entry.files}
    return {
        "taken_at": shown(entry.taken_at if dates[path] is None else dates[path]),
        "width": entry.width,
        "height": entry.height,
        "hash": entry.hash.hex(),
        "paths": (path, *sorted({*dates, *shot} - {path}, key=os.fsencode)),
    }


def _first_present(files: Iterable[File]) -> _Present | Skipped | None:
    """Return the first file that exists; else the first whose content is in the cloud; else the first that cannot be
    accessed, with the reason."""
    barred, remote = None, None
    for file in files:
        try:
            status = os.stat(file.path)
        except (FileNotFoundError, NotADirectoryError):
            in_cloud = has_stub(file.path)
        except OSError as error:
            barred = barred or Skipped(file.path, error.strerror or str(error))
            continue
        else:
            in_cloud = is_in_cloud(status)
            if stat.S_ISREG(status.st_mode) and not in_cloud:
                return _Present(file, in_cloud=False)
        if in_cloud:
            remote = remote or _Present(file, in_cloud=True)
    return remote or barred


def are_pair(one: Path, other: Path) -> bool:
    """Return whether two files of one folder and stem are one picture."""
    kinds = {one.suffix.lower(), other.suffix.lower()}
    if len(kinds) == 1 or "" in kinds:
        return False
    return len(kinds & RAW_EXTENSIONS) == 1 or bool(kinds & HEIF_EXTENSIONS and kinds & _JPEG_EXTENSIONS)


def _is_unchanged(file: File) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return False
    return file.is_unchanged(File.of(file.path, status))
