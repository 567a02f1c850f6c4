"""The seam for databases: a table that holds the vectors of one index. No driver is imported here.

A table holds a row for each image up to the last one that the manifest counts as covered: the id of the image, which is
never used twice, and its vector. All of it is derived from the manifest. `ExternalStore` decides when rows are written,
measures recall, and answers filters; an adapter only speaks to its database.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Stamp(NamedTuple):
    """Which state of the index a table belongs to. It is written with the rows of that state."""

    generation: int  # of the last publication
    pruned: int  # the last generation that removed rows which earlier states may find
    token: int = 0  # random, of the publication that wrote last: copies of an index have the same generations, not this


class Effort(NamedTuple):
    """How much a search of a table reads."""

    effort: int  # the setting of the graph or of the lists; 0: all rows are compared
    candidates: int  # rows asked for when RECALL_AT are wanted; the caller scores them exactly


class VectorTable(Protocol):
    """A table in a database, from `connect` to `close`; one thread at a time uses it, and any may close it.

    Every method raises UnreachableStoreError if the database does not answer, also after it was reached once, and
    StoreError for what the database refuses, in one line without a password. Similarity is the inner product of unit
    vectors, so a larger one is nearer.
    """

    def stamp(self) -> Stamp | None:
        """Return the stamp; None if there is no table, or none with vectors of this length."""
        ...

    def create(self, stamp: Stamp) -> None:
        """Create an empty table with this stamp in place of any that is there."""
        ...

    def drop(self) -> None:
        """Remove the table, if it is there, and all that was created with it."""
        ...

    def prepare(self, new: int) -> None:
        """Prepare to insert this number of rows: a graph is not kept where it is faster to build it afterwards."""
        ...

    def insert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], stamp: Stamp) -> None:
        """Add rows, ids `[n]` ascending and vectors `[n, E]` whose numbers are float16 values, and set the stamp.

        In one transaction where the database has them; else the stamp is set when the rows are durable.
        """
        ...

    def remove(self, ids: NDArray[np.int64], stamp: Stamp) -> None:
        """Remove the rows of these ids `[n]`, those that are there, and set the stamp.

        In one transaction where the database has them; else the stamp is set first, so that no reader takes the rest of
        the rows for those of its state.
        """
        ...

    def remove_above(self, id: int) -> None:
        """Remove the rows with larger ids: an insertion that was broken off left them."""
        ...

    def arrange(self) -> str:
        """Build what makes searches of the present rows fast, unless it is there; return it in a few words, as
        "HNSW, m 16, ef_construction 200" or "exact". Searches see all rows afterwards."""
        ...

    def compacted(self) -> bool:
        """Return whether the database has rearranged the rows by itself since `arrange`, which changes recall."""
        ...

    def efforts(self) -> Sequence[Effort]:
        """Return efforts to try for the present arrangement, ascending in cost. The last one compares all rows."""
        ...

    def search(self, query: NDArray[np.float32], k: int, effort: Effort) -> NDArray[np.int64]:
        """Return the ids of the rows that are nearest to a unit vector `[E]`: at least `min(k, count())`, each once.

        In any order. With k above RECALL_AT the setting and the candidates grow in proportion, as far as they can.
        """
        ...

    @property
    def among_most(self) -> int:
        """The largest number of ids that `search_among` takes in one call."""
        ...

    def search_among(self, query: NDArray[np.float32], k: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the exact nearest `min(k, n)` of the rows of these ascending `ids` `[n]`, comparing each of them."""
        ...

    def count(self) -> int:
        """Return the exact number of rows, as of after the last write of this process."""
        ...

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield ids `[n]` and vectors `[n, E]` of all rows, ascending by id, in batches, each row once."""
        ...

    def vectors(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the id and the vector `[E]` of the rows of these ids `[n]` that are there."""
        ...

    def close(self) -> None:
        """Close the connection. May be called twice."""
        ...
