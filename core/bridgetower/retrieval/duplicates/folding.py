"""Fold the hits of a search: a hit that shows the same view as a better one is counted with that one."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.vectors.catalog_vectors import unpacked
from bridgetower.pictures.likeness.compare import are_same
from bridgetower.pictures.likeness.grids import Grid
from bridgetower.records import Hit, Skipped
from bridgetower.retrieval.duplicates.groups import NEAR
from bridgetower.retrieval.duplicates.looks import have_like_shapes, looks
from bridgetower.retrieval.duplicates.near import NOISE, similarities
from bridgetower.retrieval.duplicates.there import Content, There, content_of

_AT_ONCE = 16  # hits, whose pictures are looked at together


class _Known(NamedTuple):
    """The content and the vector of a hit, as the index has them."""

    content: Content
    vector: npt.NDArray[np.float32]  # [E]


@dataclass(slots=True)
class _Row:
    hit: Hit
    known: _Known | None
    near: "list[_Row]" = field(default_factory=list)  # those before it whose vectors are near, nearest first
    like: list[Path] = field(default_factory=list)
    stays: bool = False


class Folded:
    """The hits of a search in rows. The best-ranked of those that show the same view stays.

    Two hits are like each other by the rule of `bt duplicates`. A hit whose file has changed, or is in the cloud only,
    is like no other.
    """

    def __init__(self, catalog: Catalog, hash_of: Callable[[Path], str], hits: Iterator[Hit]) -> None:
        """`hash_of` returns the SHA-256 of a hit, in hexadecimal digits, by its path."""
        self._catalog, self._hash_of, self._hits = catalog, hash_of, hits
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []  # of all pages
        self._grids: dict[bytes, Grid | None] = {}  # by the hash of the content

    def take(self, number: int) -> list[Hit]:
        """Return the next rows; fewer than `number` only at the end.

        All hits before the first one of the next row are counted. A hit that is like a row that was returned before is
        left out. Raises StoreError, ProcessError, ResourceError.
        """
        begin = len(self._rows)
        while self._waiting or self._fetch(begin + number - len(self._rows)):
            hit = self._waiting[0].hit
            if (row := self._like(self._waiting[0])) is not None:
                row.like.append(hit.path)
            elif len(self._rows) - begin == number:
                break
            else:
                self._waiting[0].stays = True
                self._rows.append(self._waiting[0])
            self._waiting.popleft()
        return [replace(row.hit, like=tuple(row.like)) for row in self._rows[begin:]]

    def _fetch(self, rows: int) -> bool:
        """Let the next hits wait, at least as many as `rows` that are wanted, once their pictures were looked at.

        Return whether there are any.
        """
        self._waiting.extend(_Row(hit, self._find(hit)) for hit in islice(self._hits, max(_AT_ONCE, rows)))
        known = [(row, row.known) for row in (*self._rows, *self._waiting) if row.known is not None]
        vectors = np.array([one.vector for _, one in known], np.float32)  # [n, E]
        needed: dict[bytes, Content] = {}
        for place, (row, one) in enumerate(known):
            if row.stays:
                continue
            for at in _nearest(vectors[:place], vectors[place]):
                other, its = known[at]
                if have_like_shapes(one.content, its.content):
                    row.near.append(other)
                    needed |= {content.hash: content for content in (one.content, its.content)}
        contents = [content for hash, content in needed.items() if hash not in self._grids]
        for content, found in zip(contents, looks(contents), strict=True):
            self._grids[content.hash] = None if isinstance(found, Skipped) else found
        return bool(self._waiting)

    def _find(self, hit: Hit) -> _Known | None:
        entry = self._catalog.entry(bytes.fromhex(self._hash_of(hit.path)))
        content = content_of(entry, entry.files, There())
        return None if content is None else _Known(content, unpacked(self._catalog, [entry.vector])[0])

    def _like(self, row: _Row) -> _Row | None:
        """Return the nearest row that shows the same view; the best-ranked of several that are as near."""
        return next((other for other in row.near if other.stays and self._are_same(row.known, other.known)), None)

    def _are_same(self, *pair: _Known | None) -> bool:
        contents = [known.content for known in pair if known is not None]
        contents.sort(key=lambda content: content.order)  # as `bt duplicates` compares them
        grids = [grid for content in contents if (grid := self._grids[content.hash]) is not None]
        return len(grids) == 2 and bool(are_same(np.stack(grids), np.array([0]), np.array([1]))[0])


def _nearest(vectors: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]) -> list[int]:
    """Return the places of the vectors `[n, E]` that are near to another one `[E]`, nearest first."""
    places = np.flatnonzero(vectors @ vector >= NEAR - NOISE)
    scores = similarities(vectors[places], vector[None])
    return [int(places[at]) for at in np.argsort(-scores, kind="stable") if scores[at] >= NEAR]
