"""The reader of an index: it holds one committed state from open to close, never waits for the writer, changes nothing.

One thread at a time uses a reader, not always the same. Layout and invariants: docs/index-format.md.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Keeping, StoreRow, Tuning
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.index.compatibility import require_ours, require_same
from bridgetower.index.directory import FEATURES, LOCK, MANIFEST, bytes_below
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.vectors.faiss.store import FaissView
from bridgetower.index.vectors.protocol import RecallStore, RecallView
from bridgetower.records import EVERYTHING, PRECISIONS, File, Filter, Fingerprint

# numpy and FAISS take longer to import than most commands take to run. So the methods that use a vector import
# `float16`, and `faiss_store` imports FAISS for a search: `bt status` needs neither.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.index.checked_view import CheckedView
    from bridgetower.index.vectors.float16 import Scored


_REASONS = 10  # shown for skipped files, at most
FEATURES_BYTES = 2 * 1000**3  # capacity of the feature cache where the index does not say
_PRECISION = re.compile(rf"-({'|'.join(PRECISIONS)})-[0-9]+$")  # in the name of features, by docs/index-format.md
_FIGURE = re.compile(r"(\d+(?:[.,]\d+)*)")
_NEAREST_AT_FIRST = 100  # images in the first recall; each further one asks for four times as many


class Neighbour(NamedTuple):
    """One candidate of the recall stage."""

    image: int  # image id
    similarity: float  # cosine in [-1, 1], higher is better


class NearImage(NamedTuple):
    """An image with its files and its similarity to a query."""

    content: bytes  # its SHA-256
    files: tuple[File, ...]  # its files that pass the filter, sorted by the bytes of their paths
    similarity: float  # cosine in [-1, 1], higher is better


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or file that was given to `bt index`."""

    path: Path
    files: int  # at or below it that have an image
    scanned_at: int | None  # unix seconds of the last complete scan
    is_file: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """The features of images that the index keeps."""

    capacity: int  # bytes, of all features in the folder of the index
    under: Path | None  # only of images with a file there; None for all
    images: int
    bytes: int
    precision: str | None  # of the judge that made them; None before the first, and if the judge does not say


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of an index."""

    directory: Path
    format_version: int
    fingerprint: Fingerprint
    created_at: int  # unix seconds
    updated_at: int
    files: int  # that have an image
    images: int  # that have a file
    orphans: int  # images without a file, kept in case it comes back
    skipped: int  # files
    undated: int  # files that have an image and no date but that of the file itself
    reasons: tuple[tuple[str, int], ...]  # of skipped files, with counts; the ten most frequent; N: numbers differ
    roots: tuple[Root, ...]
    bytes_on_disk: int
    generation: int  # of the vector files; 0: none was published yet
    kept: Kept | None  # features; None if the index keeps none
    store: StoreRow | None  # the database that recalls; None: vector files
    tuning: Tuning | None  # of the approximate search; None: search is exact
    vectors_file: bool  # whether it exists
    uncovered: int  # images that the vector file lacks, so that searches read them from the manifest

    @property
    def is_exact(self) -> bool:
        """Whether a search compares the vectors of all pictures."""
        return self.tuning is None or (self.store is not None and self.tuning.effort == 0)


class IndexReader:
    """A reader of an index: it sees the last state that was committed when it was opened, until it is closed."""

    def __init__(self, directory: Path, catalog: Catalog, recall_store: RecallStore) -> None:
        self.directory, self.recall_store = directory, recall_store
        self.fingerprint = catalog.fingerprint()
        self.catalog = catalog  # public: callers query it directly
        self._state = catalog.state()
        self._tuning = catalog.tuning()
        self._keeping = catalog.keeping()
        self._vector_files = recall_store.files(directory, catalog)
        # Opened now, not at the first search: an open file stays readable after the writer removes its name.
        self._recall = _checked(recall_store.open(directory, catalog), catalog, recall_store)

    @classmethod
    def open(cls, directory: Path, recall_store: RecallStore | None = None) -> Self:
        """Open the index in `directory`. `recall_store` proposes the candidates, by default what the manifest names.

        Raises:
            NoIndexError: there is no index.
            StoreError: the index has a format that this program does not know, or is damaged.
        """
        directory, recall_store = directory.absolute(), recall_store or NamedStore()
        reader = cls._open(directory, recall_store)
        if reader.vector_files() and not reader._recall.is_there:  # a writer may just have published others
            reader.close()
            reader = cls._open(directory, recall_store)
        return reader

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
        """Close the vector files and the catalog. May be called twice."""
        self._recall.close()
        self.catalog.close()

    def vector_files(self) -> list[Path]:
        """Return the paths of the vector files that this state names."""
        return self._vector_files

    def features(self) -> FeatureCache:
        """Return the feature cache in the index, for checks and removal; it keeps nothing new."""
        return FeatureCache(self.directory / FEATURES, 0)

    def feature_cache(self, capacity: int | None, folder: Path | None = None) -> FeatureCache | None:
        """Return a feature cache of at most `capacity` bytes for the images of this index, or None.

        With `capacity` None it is that of what the index keeps, else FEATURES_BYTES; with 0 only kept features are
        used. The folder is `folder`, by default one in the index, which is not used if it is a link. Raises StoreError
        if `folder` cannot be created.
        """
        if capacity is None:
            capacity = FEATURES_BYTES if self._keeping is None or folder is not None else self._keeping.capacity
        if not capacity and self._keeping is None:
            return None
        if folder is not None and capacity:
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
        own = self.directory / FEATURES
        return FeatureCache(folder or own, capacity, kept_in=own)

    def check(self, fingerprint: Fingerprint) -> None:
        """Raise StoreError unless a query with this fingerprint can be compared with the vectors of the index.

        The precision may differ: int8 encodes texts with the same tower as fp32, and the vectors of one picture in
        both precisions have a cosine of at least 0.99.
        """
        require_ours(self.directory, self.fingerprint)
        family = self.fingerprint.precision_family
        require_same(self.directory, self.fingerprint, replace(fingerprint, precision_family=family))

    def __len__(self) -> int:
        """Return how many images have a file; only these can be found."""
        return self.catalog.count_live()

    def connect(self) -> None:
        """Connect to the store, if it is a server. Raises StoreError if it does not answer."""
        self._recall.connect()

    def recall(
        self,
        queries: "NDArray[np.float32]",
        k: int,
        within: "NDArray[np.int64] | None" = None,
        *,
        exact: bool = False,
    ) -> list[list[Neighbour]]:
        """Return the most similar images for each of the unit vectors `queries` `[Q, E]`.

        Each list holds `min(k, len(self))` images, best first, ties by image id. `within` restricts the search to these
        ascending ids `[n]` of images that have a file. Similarities are exact. The choice of images is exact in a small
        index; in a large one, `summary().tuning.recall` is the share of the exact answer that is found. With `exact`,
        the vectors of all images in the manifest are compared, and the store is not asked. Raises ValueError if a query
        is not a unit vector of this index; StoreError if the manifest is damaged, or the store breaks its protocol.
        """
        from bridgetower.index.vectors.float16 import require_unit

        require_unit(queries, self.fingerprint.dim)
        scored = self._compare_all if exact else self._recall.scored
        found = [scored(query, k, within) for query in queries]
        # Rounding to float16 can make a vector a little longer than 1, and its score with it; a cosine is at most 1.
        rows = [zip(ids.tolist(), scores.clip(-1, 1).tolist(), strict=True) for ids, scores in found]
        return [[Neighbour(*pair) for pair in row] for row in rows]

    def _compare_all(self, query: "NDArray[np.float32]", k: int, images: "NDArray[np.int64] | None" = None) -> "Scored":
        import numpy as np

        from bridgetower.index.vectors.catalog_vectors import nearest_of_all

        self.catalog.require_consistent()
        return nearest_of_all(self.catalog, query, k, np.array(list(self.catalog.orphans()), np.int64), images)

    @property
    def damage(self) -> str | None:
        """Damage of the vector files that searches met; they go on without these files. None if there is none."""
        return self._recall.damage

    def nearest(
        self, query: "NDArray[np.float32]", filter: Filter = EVERYTHING, *, exact: bool = False
    ) -> Iterator[NearImage]:
        """Yield every image with a file that passes the filter, in the order of `recall`, recalling more when needed.

        Each image comes with the files that pass. `query` is a unit vector `[1, E]`. Raises as `recall` does.
        """
        import numpy as np

        within = None
        if filter != EVERYTHING:
            within = np.fromiter(self.catalog.images_within(filter), np.int64)
        seen: set[int] = set()
        k = _NEAREST_AT_FIRST
        while True:
            [neighbours] = self.recall(query, k, within, exact=exact)
            for neighbour in neighbours:
                # An approximate search with a larger k may also find better images that the one before missed.
                if neighbour.image not in seen:
                    seen.add(neighbour.image)
                    yield NearImage(*self.catalog.content(neighbour.image, filter), neighbour.similarity)
            if len(neighbours) < k:
                return
            k *= 4

    def kept(self) -> Kept | None:
        """Return the features that the index keeps; None if it keeps none."""
        return None if self._keeping is None else _kept(self._keeping, self.features())

    def summary(self) -> Summary:
        """Return the figures of the index; needs neither numpy nor FAISS."""
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
            undated=catalog.count_undated(),
            reasons=_reasons(catalog),
            roots=_roots(catalog),
            bytes_on_disk=bytes_below(self.directory),
            generation=state.generation,
            kept=self.kept(),
            store=catalog.store(),
            tuning=self._tuning,
            vectors_file=vectors_file,
            uncovered=catalog.count_live(after=state.covered if vectors_file else 0),
        )

    def strays(self) -> list[Path]:
        """Return the paths in the directory that are not part of the index, sorted."""
        named = {MANIFEST, *(MANIFEST + suffix for suffix in ("-wal", "-shm", "-journal")), LOCK, FEATURES}
        named |= {backup_of(self.directory / MANIFEST).name, *(path.name for path in self.vector_files())}
        with explained(self.directory):
            found = [entry for entry in self.directory.iterdir() if entry.name not in named]
        return sorted([*found, *self.features().unfinished()])


def _checked(view: RecallView, catalog: Catalog, recall_store: RecallStore) -> "FaissView | CheckedView":
    """Wrap a view so that the catalog scores and checks its proposals; FaissView scores exactly itself."""
    if type(view) is FaissView:  # a subclass may propose other images, so it is checked
        return view
    from bridgetower.index.checked_view import CheckedView

    return CheckedView(view, catalog, recall_store)


def _kept(keeping: Keeping, features: FeatureCache) -> Kept:
    sizes = [file.size() for file in features.files() if file.kept and file.made_by == keeping.made_by]
    precision = _PRECISION.search(keeping.made_by or "")
    return Kept(keeping.capacity, keeping.place, len(sizes), sum(sizes), precision and precision[1])


def _roots(catalog: Catalog) -> tuple[Root, ...]:
    return tuple(
        Root(path, catalog.count_under(path), at, catalog.known(path) is not None) for path, at in catalog.roots()
    )


def _reasons(catalog: Catalog) -> tuple[tuple[str, int], ...]:
    """Return the most frequent reasons of skipped files; reasons that differ only in numbers count as one."""
    alike: dict[tuple[str, ...], list[list[str]]] = {}
    numbers: Counter[tuple[str, ...]] = Counter()
    for reason, number in catalog.reasons():
        parts = _FIGURE.split(reason)  # every second part is a number
        form = tuple(parts[::2])
        alike.setdefault(form, []).append(parts)
        numbers[form] += number
    return tuple(
        ("".join(same[0] if len(set(same)) == 1 else "N" for same in zip(*alike[form], strict=True)), number)
        for form, number in numbers.most_common(_REASONS)
    )
