"""The seam for recall: find the images of an index that are nearest to a vector. No engine is imported here.

A store holds data that is derived from the manifest, and can be made from it at any time. It proposes candidates; the
reader computes their scores from the vectors in the manifest, whichever store is used. `FaissStore` is the default:
files beside the manifest, searched in this process.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bridgetower.index.catalog.reader import Catalog
from bridgetower.records import OnProgress

if TYPE_CHECKING:  # the import takes longer than most commands take to run
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.index.catalog.writer import CatalogWriter


class RecallView(Protocol):
    """A view of a store for one committed state, from `RecallStore.open` to `close`.

    One thread at a time uses it, not always the same; any may close it.
    """

    @property
    def is_there(self) -> bool:
        """Whether all data that the state names exists. Searches work without missing data, more slowly."""
        ...

    @property
    def damage(self) -> str | None:
        """The damage that searches have met so far; they go on without the damaged data. None if there is none."""
        ...

    def connect(self) -> None:
        """Connect to a store that is a server, so that a search that it cannot answer fails before any other work.

        Raises StoreError.
        """
        ...

    def search(
        self, query: "NDArray[np.float32]", k: int, images: "NDArray[np.int64] | None" = None
    ) -> "NDArray[np.int64]":
        """Return the ids of the images nearest to a unit vector `[E]`: at least `k` of those that have a file, or all.

        In any order, each id once, k >= 1. `images` `[n]`, n >= 1, ascending ids of images that have a file, restricts
        the search to these. Images that were added after `publish` count, too: the catalog has their vectors. Raises
        StoreError.
        """
        ...

    def close(self) -> None:
        """Release the view. May be called twice."""
        ...


class RecallStore(Protocol):
    """A store behind recall. `directory` is the directory of the index; all methods raise StoreError."""

    def open(self, directory: Path, catalog: Catalog) -> RecallView:
        """Return the view of a state for searches; `catalog` stays open as long as the view."""
        ...

    def files(self, directory: Path, catalog: Catalog) -> list[Path]:
        """Return the paths of the files in `directory` that the state names."""
        ...

    def require_reachable(self, directory: Path, catalog: Catalog) -> None:
        """Raise StoreError if the store cannot be written now, so that a run fails before it encodes anything."""
        ...

    def is_due(self, catalog: Catalog, uncovered: int, *, at_end: bool) -> bool:
        """Return whether `publish` is worth its cost now, at the end of a run or in the middle of one.

        `uncovered` images were added or removed since it was called last; a caller may count the added ones alone.
        """
        ...

    def publish(self, directory: Path, catalog: "CatalogWriter", on_progress: OnProgress) -> None:
        """Update the store from the manifest, durably, then name its new data in the manifest, in one transaction.

        `on_progress(done, total)` counts images.
        """
        ...

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        """Return whether the data that the state names exists and, with `whole`, passes a quick check for damage."""
        ...

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        """Yield all differences between the store and the manifest, after reading both in full; none before `publish`.

        A writer may be at work: what it has published since this state is no difference.
        """
        ...

    def vectors(
        self, directory: Path, catalog: Catalog, images: "NDArray[np.int64]"
    ) -> "Iterator[tuple[int, NDArray[np.float32]]]":
        """Yield id and vector `[E]` of these images `[n]`, as far as the store keeps vectors without loss.

        A repair takes a damaged image from here if its vector is the one that was stored.
        """
        ...

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        """Remove data that the state does not name; with `everything` also data that it names, which is damaged."""
        ...
