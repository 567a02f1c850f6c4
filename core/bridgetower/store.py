"""The index directory: one writer, any number of readers, one commit point.

    Writer   holds the lock; commits batches to the manifest; publishes the vector file that is derived from it
    Store    one committed state, from open to close; never waits for the writer and changes nothing

Both belong to the thread that opened them. Layout, invariants and the order of a commit: docs/index-format.md.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from bridgetower.disk import explained
from bridgetower.errors import DamagedIndexError, NoIndexError, StoreError
from bridgetower.features import FeatureCache
from bridgetower.lock import Lock
from bridgetower.manifest import Entry, Known, Manifest, Sweep, Tuning
from bridgetower.published import Published, codes_bytes, codes_path, vectors_path
from bridgetower.records import EVERYTHING, FOREIGN, INT8, File, Filter, Fingerprint, Photo, Skipped
from bridgetower.schema import FORMAT_VERSION

# numpy and FAISS take longer to import than most commands take to run: `bridgetower.vectors` is imported in the
# methods that touch a vector, so that `bt status` pays for neither.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.neighbours import Neighbours

__all__ = [
    "Candidate",
    "Entry",
    "Known",
    "Neighbour",
    "NewImage",
    "Root",
    "Store",
    "Summary",
    "Sweep",
    "Tuning",
    "Writer",
    "is_index",
    "made_by",
    "require_ours",
    "require_place",
]

_MANIFEST = "manifest.sqlite"
_LOCK = "writer.lock"
_FEATURES = "features"

# A new vector file is published when more than 1/16 of the images are not in the old one at the end of a run, or more
# than 1/2, and more than 8192, in the middle of one: readers stay fast, and all publishing together stays linear.
_UNCOVERED_AT_END = 16
_UNCOVERED_MEANWHILE = 2
_UNCOVERED_MIN = 8192

_PRUNED_AT_ONCE = 4096  # images that are removed in one transaction
_READERS = "a search that is still running needs the old state: the next `bt prune` gives its space back"
_NEAREST_AT_FIRST = 100  # images that are recalled together, then four times as many

# What makes vectors comparable, and what to call it. The names of a model are not part of it: the same weights in a
# copied folder, or in a newer release of the package, are the same model.
_COMPARED = {
    "weights_sha256": "weights",
    "config_sha256": "configuration",
    "preprocessing": "preprocessing",
    "preprocessing_version": "preprocessing version",
    "precision_family": "precision family",
    "dim": "vector length",
}


@dataclass(frozen=True, slots=True, eq=False)
class NewImage:
    """Content that the index does not have yet, encoded."""

    hash: bytes  # SHA-256 of the file's bytes
    width: int  # upright pixels
    height: int
    taken_at: int | None  # unix seconds
    vector: "NDArray[np.floating]"  # [E], unit length; of float16 the very numbers are stored


class Neighbour(NamedTuple):
    """One candidate of the recall stage."""

    image: int  # image id
    similarity: float  # cosine in [-1, 1], higher is better


class Candidate(NamedTuple):
    """An image with all that leads to it."""

    content: bytes  # hash of it
    photos: tuple[Photo, ...]  # its files, as the index knows them, sorted by the bytes of their paths
    similarity: float  # cosine in [-1, 1], higher is better


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or file that was given to be indexed."""

    path: Path
    files: int  # that lead to an image
    scanned_at: int | None  # unix seconds of the last complete scan


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
    reasons: tuple[tuple[str, int], ...]  # why, and how many; the most frequent ten
    roots: tuple[Root, ...]
    bytes_on_disk: int
    generation: int  # of the vector file; 0: none was published yet
    tuning: Tuning | None  # how it is searched; None: exactly
    vectors_file: bool  # it is there
    uncovered: int  # images that each search reads from the manifest, because the vector file does not hold them


def require_place(directory: Path) -> None:
    """Raise StoreError where no index can stand because something else does; a damaged one may. Changes nothing."""
    with explained(directory):
        if not directory.exists():
            return
        if not directory.is_dir():
            raise StoreError(f"{directory}: a file, not a folder: name another place with --index DIR")
        names = {entry.name for entry in directory.iterdir()}
    if _MANIFEST not in names and names - {_LOCK}:
        raise StoreError(f"{directory}: holds other files and no index: name another place with --index DIR")


def made_by(directory: Path) -> Fingerprint | None:
    """What the index in `directory` is bound to; None where it has no images yet, or is not there.

    Also of an index whose format a writer brings forward. Raises StoreError where it cannot be read.
    """
    with suppress(NoIndexError), closing(Manifest.read(directory.absolute() / _MANIFEST, older=True)) as manifest:
        return manifest.fingerprint() if manifest.has_images() else None
    return None


def is_index(directory: Path) -> bool:
    """Whether there is an index in `directory`, which may be damaged."""
    return (directory / _MANIFEST).exists()


def require_ours(directory: Path, made_by: Fingerprint) -> None:
    """Raise StoreError where the vectors of an index are foreign: no text or picture of ours becomes one of those."""
    if made_by.precision_family == FOREIGN:
        raise StoreError(
            f"{directory}: its vectors are foreign ({made_by.model}), bt makes none that could be compared with them: "
            "search it with --query-vector FILE, add to it with `bt import --vectors FILE`, or build another index "
            "with `bt index --index NEW PHOTOS`"
        )


class Writer:
    """The one process that changes an index, from `open` to `close`.

    What `commit` was given is on the disk when it returns; everything else in here can be interrupted at any instant.
    """

    def __init__(self, directory: Path, lock: Lock, manifest: Manifest) -> None:
        self.directory = directory
        self._lock = lock
        self._manifest = manifest
        self._dim = manifest.fingerprint().dim
        self._images = manifest.count_images()
        self._uncovered = manifest.count_images(after=manifest.state().covered)
        self.on_publish: Callable[[int, int], None] = lambda done, total: None  # images that were read, of all
        self._remove_stray()

    @classmethod
    def open(cls, directory: Path, fingerprint: Fingerprint, *, imported: bool = False) -> Self:
        """Open the index in `directory` to add images with this fingerprint; create it if there is none.

        Where the index has the same model under another name, it takes the new name, unless what is to be added is
        `imported`: the model then need not be found on this machine by the name that it had on the other.

        Raises:
            StoreError: another writer is at work, the folder holds something else, the index was made by another
                model or in another format, or the disk says no. Nothing was changed then.
        """
        directory = directory.absolute()
        require_place(directory)
        with explained(directory):
            directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(directory / _LOCK)
        try:
            manifest = Manifest.write(directory / _MANIFEST, fingerprint)
            try:
                manifest.require_consistent()
                _take(manifest, directory, fingerprint, imported=imported)
                return cls(directory, lock, manifest)
            except BaseException:
                manifest.close()
                raise
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(cls, directory: Path, *, mend: Callable[[Path], None] | None = None) -> Self:
        """Open the index in `directory` to look after it, whatever model made it.

        `mend` is called under the lock, with the path of the manifest, before that is opened; without it, a damaged one
        is refused. Raises NoIndexError where there is none, StoreError as `open` does.
        """
        directory = directory.absolute()
        path = directory / _MANIFEST
        with explained(directory):
            there = path.exists()
        if not there:
            Manifest.read(path).close()  # says that there is none
        lock = Lock(directory / _LOCK)
        try:
            if mend is not None:
                mend(path)
            manifest = Manifest.write(path)
            try:
                if mend is None:
                    manifest.require_consistent()
                return cls(directory, lock, manifest)
            except BaseException:
                manifest.close()
                raise
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def manifest(self) -> Manifest:
        """What is written to, for those who look after the index."""
        return self._manifest

    def close(self) -> None:
        """Let go of the index. Writes nothing; may be called twice."""
        self._manifest.close()
        self._lock.release()

    def take(self, fingerprint: Fingerprint) -> None:
        """Add images with this fingerprint from now on. For who opened an index with the fingerprint that it has, and
        finds the model only now: refused and remembered as by `open`."""
        _take(self._manifest, self.directory, fingerprint)
        self._dim = fingerprint.dim

    def known(self, path: Path) -> Known | None:
        """What the index holds about a file; None if it was never seen."""
        return self._manifest.known(path)

    def image_id(self, hash: bytes) -> int | None:
        """The image with this content, if it was ever encoded; no file need have it any more."""
        return self._manifest.image_id(hash)

    def meet(self, files: Iterable[File]) -> int:
        """Say what a scan meets, which keeps it from `sweep`, as being committed does; how many files that were.

        `files` are read on as they come; none is held in memory. What was said is forgotten by `close`.
        """
        return self._manifest.meet(files)

    def has_met(self, path: Path) -> bool:
        """Whether anything was met at or below `path`."""
        return self._manifest.has_met(path)

    def count_unchanged(self) -> int:
        """Files that were met as the index knows them and that lead to an image."""
        return self._manifest.count_unchanged()

    def still_skipped(self) -> Iterator[Skipped]:
        """Files that were met as they were when they were skipped, sorted by the bytes of their paths."""
        return self._manifest.still_skipped()

    def changed(self, *, retry: bool = False) -> Iterator[Photo]:
        """Files that were met and are new or have changed, sorted by the bytes of their paths; with `retry` also those
        that are still skipped. They may be committed while this goes on."""
        return self._manifest.changed(retry=retry)

    def commit(
        self,
        *,
        images: Iterable[NewImage] = (),
        files: Iterable[tuple[Photo, bytes]] = (),
        skipped: Iterable[tuple[Photo, str]] = (),
    ) -> None:
        """Store a batch: all of it or, on any error or kill, none.

        Args:
            images: new content. Content that is there already keeps its id and its vector.
            files: each file with the hash of its content, which is in the index or in `images`.
            skipped: each file that has no picture for us, with the reason. It replaces what the path was before.

        Raises:
            ValueError: a vector is not a unit vector of this index, or a file names unknown content.
            StoreError: the disk says no.
        """
        files, skipped = list(files), list(skipped)
        packed = [(image, self._pack(image)) for image in images]
        added = 0
        with self._manifest.transaction():
            for image, vector in packed:
                added += self._manifest.add_image(image.hash, image.width, image.height, image.taken_at, vector)
            for photo, hash in files:
                self._manifest.put_file(photo, hash)
            for photo, reason in skipped:
                self._manifest.put_skipped(photo, reason)
            self._manifest.touch()
        self._manifest.meet(File(os.fsencode(photo.path), -1, 0) for photo, _ in (*files, *skipped))
        self._images += added
        self._uncovered += added
        if self._uncovered > _UNCOVERED_MIN and self._uncovered * _UNCOVERED_MEANWHILE > self._images:
            self._publish()

    def _pack(self, image: NewImage) -> bytes:
        from bridgetower.vectors import pack

        return pack(image.vector, self._dim)

    def vectors(self, images: Sequence[int]) -> "Iterator[tuple[int, NDArray[np.float32]]]":
        """Ids and vectors `[E]` of images, as they were stored; what there is not is left out."""
        for rows in self._manifest.vectors_of(images):
            unpacked = _unpacked([blob for _, blob in rows], self._dim, self.directory)
            yield from zip((id for id, _ in rows), unpacked, strict=True)

    def has_queries(self) -> bool:
        """Whether there are vectors of texts by which recall is measured."""
        return bool(self._manifest.queries())

    def set_queries(self, queries: "NDArray[np.floating]") -> None:
        """Keep unit vectors of texts `[Q, E]`, by which recall is measured from now on. ValueError as `commit`."""
        from bridgetower.vectors import pack

        packed = [pack(query, self._dim) for query in queries]
        with self._manifest.transaction():
            self._manifest.set_queries(packed)

    def add_root(self, root: Path) -> None:
        """Remember a folder or file that is to be indexed, before it is scanned."""
        with self._manifest.transaction():
            self._manifest.add_root(root)

    def roots(self) -> tuple[Root, ...]:
        """What was given to be indexed, sorted by path."""
        return _roots(self._manifest)

    def root_paths(self) -> tuple[Path, ...]:
        """The same, without counting what lies in them."""
        return tuple(path for path, _ in self._manifest.roots())

    def holds(self, path: Path) -> bool:
        """Whether any picture at or below `path` is in the index."""
        return self._manifest.count_under(path) > 0

    def sweep(self, root: Path, spared: Collection[Path] = (), *, present: bool = False) -> Sweep:
        """After a *complete* scan of `root`: drop the files under it that were neither met nor committed.

        Their vectors stay, so that a file that comes back is not encoded again. What lies at or below a path in
        `spared` stays, because the scan could not or did not look there. If nothing at all was met under `root`,
        everything stays: see `Sweep.kept`; unless `present` says that what was there was left out on purpose.
        """
        with self._manifest.transaction():
            swept = self._manifest.sweep(root, spared, present=present)
            self._manifest.touch()
        return swept

    def forget(self, path: Path) -> int:
        """Drop the files and roots at or below `path` from the index; how many files that were."""
        with self._manifest.transaction():
            forgotten = self._manifest.forget(path)
            self._manifest.touch()
        return forgotten

    def forget_all(self, paths: Sequence[Path]) -> list[int]:
        """Drop the files and roots at or below each of `paths`, in one transaction; how many files each were."""
        with self._manifest.transaction():
            forgotten = [self._manifest.forget(path) for path in paths]
            self._manifest.touch()
        return forgotten

    def drop(self, files: Iterable[Path]) -> None:
        """Drop files, in one transaction."""
        with self._manifest.transaction():
            self._manifest.drop_files(files)
            self._manifest.touch()

    def mend(self, files: Iterable[Path], images: Iterable[int], roots: Iterable[Path]) -> None:
        """Count anew, and drop files, images with all files that lead to them, roots, and queries that are not whole,
        in one transaction."""
        with self._manifest.transaction():
            self._manifest.recount()
            self._manifest.drop_files(files)
            self._manifest.drop_images(images)
            self._manifest.drop_roots(roots)
            self._manifest.set_queries(self._manifest.queries())
            self._manifest.touch()

    def prune(self) -> Iterator[int]:
        """Remove the images that have no file, some at a time: how many they were, each time."""
        while True:
            with self._manifest.transaction():
                removed = self._manifest.prune(_PRUNED_AT_ONCE)
            if not removed:
                return
            yield removed

    def bytes_on_disk(self) -> int:
        """What the directory takes."""
        return _bytes_below(self.directory)

    def tidy(self) -> None:
        """Publish a vector file if the present one is damaged, or holds or leaves out too much."""
        stale = sum(1 for _ in self._manifest.pruned()) + self._manifest.count_images(self._manifest.state().covered)
        if stale * _UNCOVERED_AT_END > self._manifest.count_images():
            self._publish()
        else:
            self.finish()

    def publish(self) -> None:
        """Write a new vector file, whatever the present one is."""
        self._publish()

    def publish_anew(self) -> None:
        """The same, without taking anything from the present one, which is damaged."""
        self._remove(self._found("vectors-*"))
        self._publish()

    def compact(self) -> str | None:
        """Give what is free in the manifest back to the disk; why that was not done, or None.

        Not worth the while below a quarter of the file. Needs room for the manifest twice meanwhile.
        """
        space = self._manifest.space()
        if space.free * 4 < space.used + space.free:
            return None if self._manifest.fold() else _READERS
        if shutil.disk_usage(self.directory).free < 2 * space.used:
            return (
                "the disk has not the room that it takes to make the index smaller; new pictures will use what is free"
            )
        self._manifest.vacuum()
        return None if self._manifest.fold() else _READERS

    def wants_queries(self) -> bool:
        """Whether the index is so large, or soon will be, that recall is measured, and knows no texts for that yet."""
        from bridgetower.truth import few

        return not few(2 * self._images) and not self._manifest.queries()

    def keep_queries(self, vectors: "NDArray[np.float32]") -> None:
        """Keep vectors `[Q, E]` of texts such as people ask: recall is measured with them from now on."""
        from bridgetower.vectors import pack

        with self._manifest.transaction():
            self._manifest.set_queries(pack(vector, self._dim) for vector in vectors)

    def finish(self, *, changed: bool = True) -> None:
        """Publish a vector file if the present one is damaged or leaves out too much. At the end of a run, also of an
        interrupted one; nothing is lost without it, but every search must then read more from the manifest.

        A run that has `changed` nothing only looks whether the file is there; `bt verify` reads it, too.
        """
        intact = self._intact if changed else self._there
        if self._uncovered * _UNCOVERED_AT_END > self._images or (self._images and not intact()):
            self._publish()

    def _there(self) -> bool:
        with self._published() as files:
            return files.whole

    def _intact(self) -> bool:
        state, coded = self._manifest.state(), self._manifest.tuning() is not None
        rows = (
            state.images - self._manifest.count_images(after=state.covered) + self._manifest.count_pruned(state.covered)
        )
        with self._published() as files:
            return files.intact(state.vectors_sha256, codes_bytes(self._dim, rows) if coded else None)

    def _published(self) -> AbstractContextManager[Published]:
        coded = self._manifest.tuning() is not None
        return closing(Published(self.directory, self._manifest.state().generation, coded=coded))

    def features(self) -> FeatureCache:
        """All that is kept of pictures, to be looked after."""
        return FeatureCache(self.directory / _FEATURES, 0)

    def _publish(self) -> None:
        from bridgetower.publishing import publish

        publish(self.directory, self._manifest, self.on_publish)
        self._uncovered = 0
        self._remove_stray()

    def remove_strays(self) -> None:
        """Remove what a crash, or a search that was killed, left in the directory."""
        self._remove_stray()
        self._remove([*self._found(_MANIFEST + ".new*"), *self.features().unfinished()])

    def _remove_stray(self) -> None:
        """Remove vector files that the manifest does not name: older generations, and what a crash left."""
        named = f"vectors-{self._manifest.state().generation}"
        self._remove(
            path for path in self._found("vectors-*") if path.stem != named or path.suffix not in (".faiss", ".codes")
        )

    def _found(self, pattern: str) -> list[Path]:
        with explained(self.directory):
            return list(self.directory.glob(pattern))

    @staticmethod
    def _remove(paths: Iterable[Path]) -> None:
        for path in paths:
            with suppress(OSError):  # Windows keeps a file that a reader has open: the next writer removes it
                path.unlink()


class Store:
    """An index for reading: the state that was committed last when it was opened, whole, until it is closed."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.fingerprint = manifest.fingerprint()
        self._manifest = manifest
        self._state = manifest.state()
        self._neighbours: Neighbours | None = None
        self._tuning = manifest.tuning()
        # Opened now and not at the first search: from here on the writer may remove the names, but not the files.
        self._files = Published(directory, self._state.generation, coded=self._tuning is not None)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the index in `directory`.

        Raises:
            NoIndexError: there is none.
            StoreError: it has a format that this program does not know, or it is damaged.
        """
        directory = directory.absolute()
        manifest = Manifest.read(directory / _MANIFEST)
        try:
            return cls(directory, manifest)
        except BaseException:
            manifest.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the state. May be called twice."""
        self._files.close()
        self._manifest.close()

    def vector_files(self) -> list[Path]:
        """The derived files that this state names."""
        if self._state.vectors_sha256 is None:
            return []
        generation = self._state.generation
        codes = [codes_path(self.directory, generation)] if self._tuning is not None else []
        return [vectors_path(self.directory, generation), *codes]

    def published(self) -> Published:
        """The same, opened anew: what a search has read is closed."""
        return Published(self.directory, self._state.generation, coded=self._tuning is not None)

    def features(self) -> FeatureCache:
        """All that is kept of pictures, to be looked after."""
        return FeatureCache(self.directory / _FEATURES, 0)

    def feature_cache(self, capacity: int) -> FeatureCache | None:
        """Where the features of this index's pictures may be kept, in at most `capacity` bytes; None for 0."""
        return FeatureCache(self.directory / _FEATURES, capacity) if capacity else None

    def check(self, fingerprint: Fingerprint) -> None:
        """Raise StoreError unless a query with this fingerprint can be compared with the vectors of the index.

        Its precision may be another: texts are encoded by the same tower in int8 as in fp32, and what a picture that is
        searched for becomes is within a cosine of 0.99.
        """
        require_ours(self.directory, self.fingerprint)
        family = self.fingerprint.precision_family
        _require_same(self.directory, self.fingerprint, replace(fingerprint, precision_family=family))

    def __len__(self) -> int:
        """Images that can be found: those that have a file."""
        return self._manifest.count_live()

    def recall(
        self, queries: "NDArray[np.float32]", k: int, within: "NDArray[np.int64] | None" = None
    ) -> list[list[Neighbour]]:
        """The most similar images for each of the unit vectors `queries` `[Q, E]`.

        Each list holds `min(k, len(self))` images, best first, ties by image id; of `within` only, ids `[n]` of
        images that have a file, ascending, if that is said. Similarities are exact. Which images it are is exact for
        few of them; for many, `summary().tuning` says how much of the exact answer is found. ValueError if a query is
        not a unit vector of this index; StoreError if the manifest is damaged.
        """
        from bridgetower.neighbours import Neighbours
        from bridgetower.vectors import require_unit

        require_unit(queries, self.fingerprint.dim)
        self._neighbours = self._neighbours or Neighbours(self._manifest, self._files)
        found = [self._neighbours.search(query, k, within) for query in queries]
        # Rounding to float16 can make a vector a little longer than 1; a cosine is not.
        rows = [zip(ids.tolist(), scores.clip(-1, 1).tolist(), strict=True) for ids, scores in found]
        return [[Neighbour(*pair) for pair in row] for row in rows]

    @property
    def damage(self) -> str | None:
        """What the searches found wrong with the vector file, which they then did without; None if nothing."""
        return None if self._neighbours is None else self._neighbours.damage

    def nearest(self, query: "NDArray[np.float32]", filter: Filter = EVERYTHING) -> Iterator[Candidate]:
        """Every image that has a file that passes the filter, in the order of `recall`, read on as they are asked for.

        Candidates have those files only. `query` is a unit vector `[1, E]`. Raises as `recall` and `photos` do.
        """
        import numpy as np

        within = None
        if filter != EVERYTHING:
            within = np.fromiter(self._manifest.images_within(filter), np.int64)
        seen: set[int] = set()
        k = _NEAREST_AT_FIRST
        while True:
            [neighbours] = self.recall(query, k, within)
            for neighbour in neighbours:
                # A wider search among many images may find one that should have come before.
                if neighbour.image not in seen:
                    seen.add(neighbour.image)
                    yield Candidate(*self._manifest.content(neighbour.image, filter), neighbour.similarity)
            if len(neighbours) < k:
                return
            k *= 4

    def photos(self, images: Iterable[int]) -> dict[int, tuple[Path, ...]]:
        """The files of each image, sorted by the bytes of their paths, in the order of `images`; the first one stands
        for the image. An image without a file is left out."""
        found = ((image, self._manifest.photos(image)) for image in images)
        return {image: paths for image, paths in found if paths}

    def holds(self, path: Path) -> bool:
        """Whether any picture at or below `path` is in the index."""
        return self._manifest.count_under(path) > 0

    def image_id(self, hash: bytes) -> int | None:
        """The image with this content, if it was ever encoded; no file need have it any more."""
        return self._manifest.image_id(hash)

    def vector(self, image: int) -> "NDArray[np.float32]":
        """The vector `[E]` of an image, with the float16 values that were stored; KeyError if there is none."""
        blob = self._manifest.vector(image)
        if blob is None:
            raise KeyError(image)
        vector: NDArray[np.float32] = _unpacked([blob], self.fingerprint.dim, self.directory)[0]
        return vector

    @property
    def manifest(self) -> Manifest:
        """The state as the manifest holds it, for those who look after the index."""
        return self._manifest

    def skipped(self) -> Iterator[Skipped]:
        """The files that were passed over, sorted by the bytes of their paths."""
        return self._manifest.skipped()

    def entries(self) -> Iterator[Entry]:
        """Every image with its files, orphans included, in the order in which they were added.

        StoreError where a row is not as it was written.
        """
        return self._manifest.entries()

    def skipped_files(self) -> Iterator[tuple[Photo, str]]:
        """As `skipped`, with sizes and times. StoreError where a row is not as it was written."""
        return self._manifest.skipped_files()

    def queries(self) -> list[bytes]:
        """Vectors of texts by which recall is measured, each `[E]` of little-endian float16."""
        return self._manifest.queries()

    def summary(self) -> Summary:
        """The index at a glance; needs neither numpy nor FAISS."""
        manifest, state, counts = self._manifest, self._state, self._manifest.counts()
        vectors_file = self._files.whole
        return Summary(
            directory=self.directory,
            format_version=FORMAT_VERSION,
            fingerprint=self.fingerprint,
            created_at=state.created_at,
            updated_at=state.updated_at,
            files=counts.files,
            images=counts.images,
            orphans=counts.orphans,
            skipped=counts.skipped,
            reasons=manifest.reasons(limit=10),
            roots=_roots(manifest),
            bytes_on_disk=_bytes_below(self.directory),
            generation=state.generation,
            tuning=self._tuning,
            vectors_file=vectors_file,
            uncovered=manifest.count_live(after=state.covered if vectors_file else 0),
        )

    def strays(self) -> list[Path]:
        """What lies in the directory and is not part of the index, sorted."""
        named = {_MANIFEST, _MANIFEST + "-wal", _MANIFEST + "-shm", _MANIFEST + "-journal", _LOCK, _FEATURES}
        named |= {path.name for path in self.vector_files()}
        with explained(self.directory):
            found = [entry for entry in self.directory.iterdir() if entry.name not in named]
        return sorted([*found, *self.features().unfinished()])


def _roots(manifest: Manifest) -> tuple[Root, ...]:
    return tuple(Root(path, manifest.count_under(path), at) for path, at in manifest.roots())


def _unpacked(blobs: list[bytes], dim: int, directory: Path) -> "NDArray[np.float32]":
    from bridgetower.vectors import unpack

    try:
        return unpack(blobs, dim)
    except ValueError as error:
        raise DamagedIndexError(directory / _MANIFEST, str(error)) from error


def _take(manifest: Manifest, directory: Path, fingerprint: Fingerprint, *, imported: bool = False) -> None:
    stored = manifest.fingerprint()
    bound = bool(manifest.count_images())  # before the first, nothing is bound to the fingerprint
    if bound:
        _require_same(directory, stored, fingerprint, imported=imported)
    # The same weights by another name: that is where they are found now, unless it says where another machine has them.
    if stored != fingerprint and not (bound and imported):
        with manifest.transaction():
            manifest.set_fingerprint(fingerprint)


def _require_same(directory: Path, stored: Fingerprint, given: Fingerprint, *, imported: bool = False) -> None:
    differing = [field for field in _COMPARED if getattr(stored, field) != getattr(given, field)]
    if not differing:
        return
    if not imported:
        require_ours(directory, stored)
    if imported:
        way_out = "import into another place"
    elif differing == ["preprocessing"]:
        way_out = f"use preprocessing {stored.preprocessing}, or build another index"
    elif differing == ["precision_family"]:
        precision = INT8 if stored.precision_family == INT8 else "auto"
        way_out = f"use precision {precision}, or build another index"
    elif stored.model != given.model:
        way_out = "use that model, or build another index"
    else:
        way_out = "this has changed since; build a new index in another place"
    others = "those that it makes now" if stored.model == given.model else f"those of {given.model}"
    differences = "; ".join(
        f"{_COMPARED[field]} {getattr(stored, field)!s:.16}, not {getattr(given, field)!s:.16}" for field in differing
    )
    raise StoreError(
        f"{directory}: made by model {stored.model}, whose vectors cannot be compared with {others} ({differences}): "
        + (f"{way_out} with --index NEW" if imported else f"{way_out} with `bt index --index NEW PHOTOS`")
    )


def _bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # a file that a writer removed meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
