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
from bridgetower.retrieval.duplicates.near import similarities
from bridgetower.retrieval.duplicates.there import Content, There, content_of

_AT_ONCE = 16  # hits, whose pictures are looked at together


class _Known(NamedTuple):
    """What the index knows of a hit."""

    content: Content
    vector: npt.NDArray[np.float32]  # [E]


@dataclass(slots=True)
class _Row:
    hit: Hit
    known: _Known | None
    like: list[Path] = field(default_factory=list)


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
        while self._waiting or self._fetch():
            hit = self._waiting[0].hit
            if (row := self._like(self._waiting[0])) is not None:
                row.like.append(hit.path)
            elif len(self._rows) - begin == number:
                break
            else:
                self._rows.append(self._waiting[0])
            self._waiting.popleft()
        return [replace(row.hit, like=tuple(row.like)) for row in self._rows[begin:]]

    def _fetch(self) -> bool:
        """Let the next hits wait, once their pictures were looked at; return whether there are any."""
        self._waiting.extend(_Row(hit, self._find(hit)) for hit in islice(self._hits, _AT_ONCE))
        known = [row.known for row in (*self._rows, *self._waiting) if row.known is not None]
        near = {
            at for other in range(len(known)) for one in self._near(known[other], known[:other]) for at in (one, other)
        }
        needed = [known[at].content for at in sorted(near) if known[at].content.hash not in self._grids]
        for content, found in zip(needed, looks(needed), strict=True):
            self._grids[content.hash] = None if isinstance(found, Skipped) else found
        return bool(self._waiting)

    def _find(self, hit: Hit) -> _Known | None:
        entry = self._catalog.entry(bytes.fromhex(self._hash_of(hit.path)))
        content = content_of(entry, entry.files, There())
        return None if content is None else _Known(content, unpacked(self._catalog, [entry.vector])[0])

    def _near(self, known: _Known, others: list[_Known]) -> dict[int, float]:
        """Return the places of those of the others whose vectors are near, and whose shapes are alike."""
        if not others:
            return {}
        scores = similarities(np.stack([other.vector for other in others]), known.vector[None])
        return {
            at: score
            for at, score in enumerate(scores.tolist())
            if score >= NEAR and have_like_shapes(known.content, others[at].content)
        }

    def _like(self, row: _Row) -> _Row | None:
        """Return the nearest row that shows the same view; the best-ranked of several that are as near."""
        if row.known is None:
            return None
        rows = [(other, other.known) for other in self._rows if other.known is not None]
        near = self._near(row.known, [known for _, known in rows])
        for at in sorted(near, key=lambda at: (-near[at], at)):
            other, known = rows[at]
            if self._are_same(row.known.content, known.content):
                return other
        return None

    def _are_same(self, one: Content, other: Content) -> bool:
        first, second = sorted((one, other), key=lambda content: content.order)  # as `bt duplicates` compares them
        grids = [grid for content in (first, second) if (grid := self._grids[content.hash]) is not None]
        return len(grids) == 2 and bool(are_same(np.stack(grids), np.array([0]), np.array([1]))[0])
