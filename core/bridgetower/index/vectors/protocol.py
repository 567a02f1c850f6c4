"""The seam for recall: which images of an index are nearest to a vector. No engine is imported here.

A store holds what is derived from the manifest, and can be made from it at any time. It proposes candidates; their
scores are those of the vectors in the manifest, whichever store stands here: the reader computes them. `FaissStore` is
the default: files beside the manifest, in this process.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.records import OnProgress

if TYPE_CHECKING:  # it takes longer to import than most commands take to run
    import numpy as np
    from numpy.typing import NDArray


class RecallView(Protocol):
    """A store as one committed state names it, from `RecallStore.open` to `close`.

    It is used by one thread at a time, not always the same, and closed by any.
    """

    @property
    def is_there(self) -> bool:
        """Whether all that the state names is there. Searches do without what is not, more slowly."""
        ...

    @property
    def damage(self) -> str | None:
        """The damage that searches have met so far, and done without; None if there is none."""
        ...

    def search(
        self, query: "NDArray[np.float32]", k: int, images: "NDArray[np.int64] | None" = None
    ) -> "NDArray[np.int64]":
        """Ids of the images nearest to a unit vector `[E]`: at least `k` of those that have a file, or all.

        In any order, each once, k >= 1. Only of `images` `[n]`, n >= 1, ascending, which all have a file, if that is
        given. Images that were added since the store was published count, too: the catalog has their vectors. Raises
        StoreError.
        """
        ...

    def close(self) -> None:
        """Let go of it. May be called twice."""
        ...


class RecallStore(Protocol):
    """Where recall happens. `directory` is that of the index; all raise StoreError."""

    def open(self, directory: Path, catalog: Catalog) -> RecallView:
        """The view of a state, for searching; `catalog` stays open as long."""
        ...

    def files(self, directory: Path, catalog: Catalog) -> list[Path]:
        """The files in `directory` that the state names."""
        ...

    def publish(self, directory: Path, catalog: CatalogWriter, on_progress: OnProgress) -> None:
        """Bring it up to date with the manifest, durably, then have the manifest name it, in one transaction.

        `on_progress(done, total)` counts images.
        """
        ...

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        """Whether what the state names is there, and with `whole` also as it was written, as far as is quickly told."""
        ...

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        """In what it differs from the manifest, looking at everything; nothing where it was not published yet.

        A writer may be at work: what it has published since this state is no difference.
        """
        ...

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        """Remove what the state does not name; `everything`: also what it names, which is damaged."""
        ...
