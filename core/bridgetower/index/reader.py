"""An index for reading: one committed state, from open to close, that never waits for the writer and changes nothing.

It is used by one thread at a time, not always the same. Layout and invariants: docs/index-format.md.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.index.compatibility import require_ours, require_same
from bridgetower.index.directory import FEATURES, LOCK, MANIFEST, bytes_below
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.vectors.faiss_store import FaissStore, FaissView
from bridgetower.index.vectors.protocol import RecallStore, RecallView
from bridgetower.records import EVERYTHING, File, Filter, Fingerprint

# numpy and FAISS take longer to import than most commands take to run: `float16` is imported in the
# methods that touch a vector, as `faiss_store` imports what it needs, so that `bt status` pays for neither.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.index.checked_view import CheckedView


_REASONS = 10  # why files were skipped
_FIGURE = re.compile(r"(\d+(?:[.,]\d+)*)")
_NEAREST_AT_FIRST = 100  # images that are recalled together, then four times as many


class Neighbour(NamedTuple):
    """One candidate of the recall stage."""

    image: int  # image id
    similarity: float  # cosine in [-1, 1], higher is better


class NearImage(NamedTuple):
    """An image with all that leads to it."""

    content: bytes  # SHA-256 of it
    photos: tuple[File, ...]  # its files, as the index knows them, sorted by the bytes of their paths
    similarity: float  # cosine in [-1, 1], higher is better


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or file that was given to be indexed."""

    path: Path
    files: int  # that lead to an image
    scanned_at: int | None  # unix seconds of the last complete scan
    is_file: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """An index at a glance."""

    directory: Path
    format_version: int
    fingerprint: Fingerprint
    created_at: int  # unix seconds
    updated_at: int
    files: int  # that lead to an image
    images: int  # that have a file
    orphans: int  # images kept for files that may come back
    skipped: int  # files
    reasons: tuple[tuple[str, int], ...]  # why, and how many; the most frequent ten, figures that differ as N
    roots: tuple[Root, ...]
    bytes_on_disk: int
    generation: int  # of the vector file; 0: none was published yet
    tuning: Tuning | None  # how it is searched; None: exactly
    vectors_file: bool  # it is there
    uncovered: int  # images that each search reads from the manifest, because the vector file does not hold them


class IndexReader:
    """An index for reading: the state that was committed last when it was opened, whole, until it is closed."""

    def __init__(self, directory: Path, catalog: Catalog, recall_store: RecallStore) -> None:
        self.directory, self.recall_store = directory, recall_store
        self.fingerprint = catalog.fingerprint()
        self.catalog = catalog  # the state as rows: asked directly
        self._state = catalog.state()
        self._tuning = catalog.tuning()
        self._vector_files = recall_store.files(directory, catalog)
        # Opened now and not at the first search: from here on the writer may remove the names, but not the files.
        self._recall = _checked(recall_store.open(directory, catalog), catalog, recall_store)

    @classmethod
    def open(cls, directory: Path, recall_store: RecallStore | None = None) -> Self:
        """Open the index in `directory`, recalling from `recall_store`, FAISS by default.

        Raises:
            NoIndexError: there is none.
            StoreError: it has a format that this program does not know, or it is damaged.
        """
        directory, recall_store = directory.absolute(), recall_store or FaissStore()
        store = cls._open(directory, recall_store)
        if store.vector_files() and not store._recall.is_there:  # a writer may have put others in their place just now
            store.close()
            store = cls._open(directory, recall_store)
        return store

    @classmethod
    def _open(cls, directory: Path, recall_store: RecallStore) -> Self:
        catalog = Catalog.read(directory / MANIFEST)
        try:
            return cls(directory, catalog, recall_store)
        except BaseException:
            catalog.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the state. May be called twice."""
        self._recall.close()
        self.catalog.close()

    def vector_files(self) -> list[Path]:
        """The derived files that this state names."""
        return self._vector_files

    def features(self) -> FeatureCache:
        """All that is kept of pictures, to be looked after."""
        return FeatureCache(self.directory / FEATURES, 0)

    def feature_cache(self, capacity: int, folder: Path | None = None) -> FeatureCache | None:
        """Where the features of this index's pictures may be kept, in at most `capacity` bytes; None for 0.

        Without `folder` that is a folder in the index, which is not used if it is a link. Raises StoreError where
        `folder` cannot be made.
        """
        if not capacity:
            return None
        if folder is not None:
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
        return FeatureCache(folder or self.directory / FEATURES, capacity)

    def check(self, fingerprint: Fingerprint) -> None:
        """Raise StoreError unless a query with this fingerprint can be compared with the vectors of the index.

        Its precision may be another: texts are encoded by the same tower in int8 as in fp32, and what a picture that is
        searched for becomes is within a cosine of 0.99.
        """
        require_ours(self.directory, self.fingerprint)
        family = self.fingerprint.precision_family
        require_same(self.directory, self.fingerprint, replace(fingerprint, precision_family=family))

    def __len__(self) -> int:
        """Images that can be found: those that have a file."""
        return self.catalog.count_live()

    def recall(
        self, queries: "NDArray[np.float32]", k: int, within: "NDArray[np.int64] | None" = None
    ) -> list[list[Neighbour]]:
        """The most similar images for each of the unit vectors `queries` `[Q, E]`.

        Each list holds `min(k, len(self))` images, best first, ties by image id; of `within` only, ids `[n]` of
        images that have a file, ascending, if that is said. Similarities are exact. Which images it are is exact for
        few of them; for many, `summary().tuning` says how much of the exact answer is found. ValueError if a query is
        not a unit vector of this index; StoreError if the manifest is damaged, or the store does not hold its promises.
        """
        from bridgetower.index.vectors.float16 import require_unit

        require_unit(queries, self.fingerprint.dim)
        found = [self._recall.scored(query, k, within) for query in queries]
        # Rounding to float16 can make a vector a little longer than 1; a cosine is not.
        rows = [zip(ids.tolist(), scores.clip(-1, 1).tolist(), strict=True) for ids, scores in found]
        return [[Neighbour(*pair) for pair in row] for row in rows]

    @property
    def damage(self) -> str | None:
        """What the searches found wrong with the vector file, which they then did without; None if nothing."""
        return self._recall.damage

    def nearest(self, query: "NDArray[np.float32]", filter: Filter = EVERYTHING) -> Iterator[NearImage]:
        """Every image that has a file that passes the filter, in the order of `recall`, read on as they are asked for.

        Images have those files only. `query` is a unit vector `[1, E]`. Raises as `recall` does.
        """
        import numpy as np

        within = None
        if filter != EVERYTHING:
            within = np.fromiter(self.catalog.images_within(filter), np.int64)
        seen: set[int] = set()
        k = _NEAREST_AT_FIRST
        while True:
            [neighbours] = self.recall(query, k, within)
            for neighbour in neighbours:
                # A wider search among many images may find one that should have come before.
                if neighbour.image not in seen:
                    seen.add(neighbour.image)
                    yield NearImage(*self.catalog.content(neighbour.image, filter), neighbour.similarity)
            if len(neighbours) < k:
                return
            k *= 4

    def summary(self) -> Summary:
        """The index at a glance; needs neither numpy nor FAISS."""
        catalog, state, counts = self.catalog, self._state, self.catalog.counts()
        vectors_file = self._recall.is_there
        return Summary(
            directory=self.directory,
            format_version=catalog.format_version(),
            fingerprint=self.fingerprint,
            created_at=state.created_at,
            updated_at=state.updated_at,
            files=counts.files,
            images=counts.images,
            orphans=counts.orphans,
            skipped=counts.skipped,
            reasons=_reasons(catalog),
            roots=_roots(catalog),
            bytes_on_disk=bytes_below(self.directory),
            generation=state.generation,
            tuning=self._tuning,
            vectors_file=vectors_file,
            uncovered=catalog.count_live(after=state.covered if vectors_file else 0),
        )

    def strays(self) -> list[Path]:
        """What lies in the directory and is not part of the index, sorted."""
        named = {MANIFEST, *(MANIFEST + suffix for suffix in ("-wal", "-shm", "-journal")), LOCK, FEATURES}
        named |= {backup_of(self.directory / MANIFEST).name, *(path.name for path in self.vector_files())}
        with explained(self.directory):
            found = [entry for entry in self.directory.iterdir() if entry.name not in named]
        return sorted([*found, *self.features().unfinished()])


def _checked(view: RecallView, catalog: Catalog, recall_store: RecallStore) -> "FaissView | CheckedView":
    """The view of any store, scored by the catalog; that of FAISS is already."""
    if type(view) is FaissView:  # a class made from it may find others
        return view
    from bridgetower.index.checked_view import CheckedView

    return CheckedView(view, catalog, recall_store)


def _roots(catalog: Catalog) -> tuple[Root, ...]:
    return tuple(
        Root(path, catalog.count_under(path), at, catalog.known(path) is not None) for path, at in catalog.roots()
    )


def _reasons(catalog: Catalog) -> tuple[tuple[str, int], ...]:
    """Why files were skipped; reasons that differ in their figures only are one."""
    alike: dict[tuple[str, ...], list[list[str]]] = {}
    numbers: Counter[tuple[str, ...]] = Counter()
    for reason, number in catalog.reasons():
        parts = _FIGURE.split(reason)  # every second one is a figure
        form = tuple(parts[::2])
        alike.setdefault(form, []).append(parts)
        numbers[form] += number
    return tuple(
        ("".join(same[0] if len(set(same)) == 1 else "N" for same in zip(*alike[form], strict=True)), number)
        for form, number in numbers.most_common(_REASONS)
    )
