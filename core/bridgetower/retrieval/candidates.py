"""Recall: the pictures of an index in the order of their similarity to a vector, as far as anyone asks."""

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from bridgetower.encoders.protocol import Judge, RecallEncoder, Texts, Vectors
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import is_away
from bridgetower.records import EVERYTHING, Candidate, File, Filter, Skipped

_FEW_AWAY = 256  # pictures that are passed over one by one: a search that begins again without a folder takes longer
_MOST_APART = 100  # folders that are left out of a search: each is a condition of a query


class Candidates:
    """The pictures of an index by similarity, each under the first of its files that is there.

    A picture whose files are gone, or may not be looked at, is no candidate: the next one takes its place. Where many
    are gone from a folder that was indexed and in which nothing at all is now, as where a disk is not mounted, nothing
    else of that folder is looked for.
    """

    def __init__(self, reader: IndexReader, query: Vectors, filter: Filter = EVERYTHING) -> None:
        """`query` is a unit vector [1, E]. Taking from it may raise StoreError."""
        self._store, self._query, self._filter = reader, query, filter
        self._nearest = reader.nearest(query, filter)
        self._met: set[bytes] = set()  # content
        self._looked_at: set[Path] = set()  # folders that were indexed
        self._lost = 0  # pictures that were passed over, as they lie in folders that are away
        self.gone = 0  # others that were passed over, as none of their files is there
        self.barred: list[Skipped] = []  # the same, as what may be there cannot be looked at: one file of each
        self.away: list[Path] = []  # folders that were indexed and in which nothing is

    def take(self, number: int) -> list[Candidate]:
        """The next pictures; fewer than `number` only at the end of the index."""
        taken: list[Candidate] = []
        while len(taken) < number and (image := next(self._nearest, None)) is not None:
            if image.content in self._met:
                continue
            self._met.add(image.content)
            there = _first_there(image.photos)
            if there is None:
                self._pass_over(image.photos)
            elif isinstance(there, Skipped):
                self.barred.append(there)
            else:
                content = image.content if _is_unchanged(there) else None
                taken.append(Candidate(there.path, image.similarity, content))
        return taken

    @cached_property
    def _folders(self) -> frozenset[Path]:
        """Those that were indexed, or files of which were."""
        catalog = self._store.catalog
        roots = (root for root, _, whole in catalog.root_rows() if whole)
        return frozenset(root if catalog.known(root) is None else root.parent for root in roots)

    def _pass_over(self, photos: Iterable[File]) -> None:
        """Count a picture none of whose files is there."""
        around = {folder for photo in photos for folder in photo.path.parents if folder in self._folders}
        self.away += sorted(filter(is_away, around - self._looked_at))
        self._looked_at |= around
        if around.isdisjoint(self.away):
            self.gone += 1
            return
        self._lost += 1
        apart = tuple(self.away[:_MOST_APART])
        if self._lost % _FEW_AWAY == 0 and self._filter.apart != apart:
            self._filter = replace(self._filter, apart=apart)
            self._nearest = self._store.nearest(self._query, self._filter)  # from the beginning


def recall_vector(encoder: RecallEncoder, judge: Judge | None, text: str, encoded: Texts | None) -> Vectors:
    """The unit vector [1, E] of a text; where one object plays both roles, `encoded` by the judge has it already."""
    one: object = encoder
    if encoded is not None and encoded.vectors is not None and judge is one:
        return encoded.vectors
    return encoder.embed_texts([text])


def _first_there(photos: Iterable[File]) -> File | Skipped | None:
    """The first file that is there; if there is none, one that cannot be looked at."""
    barred = None
    for photo in photos:
        try:
            if stat.S_ISREG(os.stat(photo.path).st_mode):
                return photo
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            barred = barred or Skipped(photo.path, error.strerror or str(error))
    return barred


def _is_unchanged(photo: File) -> bool:
    try:
        status = photo.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (photo.size, photo.mtime_ns)
