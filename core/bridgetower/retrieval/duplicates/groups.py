"""Put duplicates into groups: of equal files, and of pictures that show the same view.

Similar pictures are taken in the order in which they would be kept. Each joins the nearest of the kept ones that shows
the same view, or is kept itself. So every member of a group is like the kept one: a chain of pictures, each a little
like the next, is no group. The files of one shot, raw and JPEG, stay together and are no duplicates of each other.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bridgetower.errors import UsageError
from bridgetower.files.patterns import glob
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import known_places
from bridgetower.inputs import AnyPath, ResolvedPlace, flag, number, places
from bridgetower.moments import shown
from bridgetower.records import Filter, OnProgress, Skipped, quiet
from bridgetower.retrieval.duplicates.looks import same_views
from bridgetower.retrieval.duplicates.near import EXACT_MOST, Pairs, near_pairs, near_through_store
from bridgetower.retrieval.duplicates.result import Duplicate, DuplicateGroup, Duplicates, Likeness
from bridgetower.retrieval.duplicates.there import Content, contents_there, shots

NEAR = 0.85  # least similarity of vectors at which pictures are looked at


@dataclass(frozen=True, slots=True)
class DuplicatesRequest:
    """The kinds of duplicates to find, and where. Raises UsageError for values that cannot be, or not together."""

    similarity: float = NEAR
    under: AnyPath | Iterable[AnyPath] | None = None
    not_under: AnyPath | Iterable[AnyPath] = ()
    equal: bool = True
    similar: bool = True
    _under: Sequence[ResolvedPlace] = field(init=False, repr=False, default=())
    _not_under: Sequence[ResolvedPlace] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        number("similarity", self.similarity, least=-1, most=1)
        if not flag("equal", self.equal) and not flag("similar", self.similar):
            raise UsageError("neither equal nor similar: nothing to look for")
        if self.under is not None:
            object.__setattr__(self, "_under", places("under", self.under, glob))
            if not self._under:
                raise UsageError("under names no place: give at least one, or leave it out")
        object.__setattr__(self, "_not_under", places("not_under", self.not_under, glob))

    def filter_in(self, reader: IndexReader) -> Filter:
        """Return the places as the index has them. Raises UnknownPlaceError."""
        catalog = reader.catalog
        return Filter(under=known_places(self._under, catalog), not_under=known_places(self._not_under, catalog))


def duplicates(
    reader: IndexReader, request: DuplicatesRequest, on_progress: OnProgress = quiet, on_look: OnProgress = quiet
) -> Duplicates:
    """Return the groups of duplicates of an index.

    `on_progress(done, total)` counts vectors that are compared, `on_look(done, total)` pictures that are looked at.
    Raises UnknownPlaceError, StoreError, ProcessError, ResourceError.
    """
    there = contents_there(reader, request.filter_in(reader))
    contents, skipped = there.contents, list[Skipped]()
    groups: list[DuplicateGroup] = []
    if request.equal:
        groups += sorted(map(_equal, (one for one in contents if len(one.files) > 1)), key=_by_path)
    if request.similar and contents:
        if len(contents) <= EXACT_MOST:
            pairs = near_pairs(there.vectors, request.similarity, on_progress)
        else:
            reader.connect()
            pairs = near_through_store(reader, np.array(there.images), there.vectors, request.similarity, on_progress)
        shot_of = shots(contents)
        pairs, skipped = same_views(contents, _between(shot_of, pairs), on_look)
        groups += sorted(_similar(contents, shot_of, pairs), key=_by_path)
    return Duplicates(
        groups=tuple(groups),
        pictures=len(contents),
        skipped=tuple(skipped),
        gone=there.gone,
        changed=there.changed,
        barred=tuple(there.barred),
        in_cloud=there.in_cloud,
    )


def _between(shot_of: list[int], pairs: Pairs) -> Pairs:
    """Return the pairs of different shots."""
    shot = np.array(shot_of)
    return pairs.of(np.flatnonzero(shot[pairs.kept] != shot[pairs.other]))


def _equal(content: Content) -> DuplicateGroup:
    """Return the group of the files of one content."""
    keep, *others = (_member(content, 1.0, [file.path], place) for place, file in enumerate(content.files))
    return DuplicateGroup(Likeness.EQUAL, keep, tuple(others))


def _similar(contents: list[Content], shot_of: list[int], pairs: Pairs) -> Iterator[DuplicateGroup]:
    """Yield the groups of shots by pairs of contents that show the same view."""
    members: dict[int, list[Content]] = defaultdict(list)
    for place, content in enumerate(contents):
        members[shot_of[place]].append(content)
    for keep, others in grouped((shot_of[kept], shot_of[other], likeness) for kept, other, likeness in pairs.rows()):
        one, *rest = (
            _member(members[shot][0], likeness, [file.path for content in members[shot] for file in content.files])
            for shot, likeness in ((keep, 1.0), *others)
        )
        yield DuplicateGroup(Likeness.SIMILAR, one, tuple(rest))


def grouped(pairs: Iterable[tuple[int, int, float]]) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """Yield each kept number with the others of its group, ascending, and their similarities.

    `pairs` are of numbers, of which the lower one would be kept, and the similarity; in any order, either way round.
    """
    near: dict[int, dict[int, float]] = defaultdict(dict)
    for one, other, similarity in pairs:
        low, high = min(one, other), max(one, other)
        near[high][low] = max(similarity, near[high].get(low, -1.0))
    others: dict[int, list[tuple[int, float]]] = {}
    joined: set[int] = set()
    for high in sorted(near):
        kept = [(-similarity, low) for low, similarity in near[high].items() if low not in joined]
        if kept:
            similarity, low = min(kept)
            joined.add(high)
            others.setdefault(low, []).append((high, -similarity))
    yield from others.items()


def _member(content: Content, similarity: float, paths: Sequence[Path], place: int = 0) -> Duplicate:
    """Return a file of a content, by its place, as a member of a group; `paths` are all that belong to it."""
    file = content.files[place]
    return Duplicate(
        path=file.path,
        similarity=similarity,
        size=file.size,
        width=content.width,
        height=content.height,
        taken_at=shown(content.dates[place]),
        hash=content.hash.hex(),
        paths=tuple(paths),
    )


def _by_path(group: DuplicateGroup) -> bytes:
    return os.fsencode(group.keep.path)
