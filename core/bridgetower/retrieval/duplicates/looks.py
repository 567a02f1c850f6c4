"""Look at pictures whose vectors are near, and tell which of them show the same view.

Near vectors alone do not tell: two different scenes may be nearer than a picture and its crop.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from bridgetower.errors import PictureError
from bridgetower.files.content import read
from bridgetower.pictures.decode import MAX_PIXELS
from bridgetower.pictures.likeness.compare import MOST_STRETCH, are_same
from bridgetower.pictures.likeness.grids import SIDE, Grid, GridPool
from bridgetower.prefetch import ahead, workers
from bridgetower.records import OnProgress, Refused, Skipped, quiet
from bridgetower.retrieval.duplicates.near import Pairs
from bridgetower.retrieval.duplicates.there import Content

_AHEAD = 8  # pictures
_AT_ONCE = 512  # pairs


def same_views(
    contents: Sequence[Content], pairs: Pairs, on_progress: OnProgress = quiet
) -> tuple[Pairs, list[Skipped]]:
    """Return those of the pairs of contents that show the same view, and the pictures that could not be read.

    Each picture is decoded once, in a worker process, and takes 12 kB until the end. `on_progress(done, total)` counts
    pictures. Raises ProcessError, ResourceError.
    """
    alike = [have_like_shapes(contents[kept], contents[other]) for kept, other, _ in pairs.rows()]
    pairs = pairs.of(np.flatnonzero(alike))
    needed = np.unique(np.concatenate([pairs.kept, pairs.other]))
    kept, others = np.searchsorted(needed, pairs.kept), np.searchsorted(needed, pairs.other)
    ready = np.searchsorted(others, np.arange(len(needed)), side="right")  # pairs, when so many pictures were seen
    grids = np.zeros((len(needed), SIDE, SIDE, 3), np.uint8)
    seen, same = np.zeros(len(needed), np.bool_), np.zeros(len(kept), np.bool_)
    skipped, done = [], 0
    for number, found in enumerate(looks([contents[place] for place in needed.tolist()])):
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            grids[number], seen[number] = found, True
        if ready[number] - done >= _AT_ONCE or number == len(needed) - 1:
            some = np.arange(done, ready[number])
            some = some[seen[kept[some]] & seen[others[some]]]
            same[some] = are_same(grids, kept[some], others[some])
            done = int(ready[number])
        on_progress(number + 1, len(needed))
    return pairs.of(np.flatnonzero(same)), skipped


def have_like_shapes(one: Content, other: Content) -> bool:
    """Whether the one may be a crop of the other by the shapes of the pictures."""
    wide, narrow = one.width * other.height, other.width * one.height
    return max(wide, narrow) <= MOST_STRETCH * min(wide, narrow)


def looks(contents: Sequence[Content]) -> Iterator[Grid | Skipped]:
    """Yield the grid of each content, or why there is none, in order. Raises ProcessError, ResourceError."""
    if not contents:
        return
    most = max(MAX_PIXELS, *(content.width * content.height for content in contents))  # an index may allow more

    # The pool is closed before the threads, so that a thread that waits for a process ends at once.
    with workers() as threads, GridPool(max_pixels=most) as pool:

        def look(content: Content) -> Grid | Skipped:
            path = content.files[0].path
            try:
                found = pool.grid(read(path))
            except PictureError as error:
                return Skipped(path, error.reason)
            return Skipped(path, found.reason) if isinstance(found, Refused) else found

        yield from ahead(threads, look, contents, _AHEAD)
