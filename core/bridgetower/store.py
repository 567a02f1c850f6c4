"""The index directory: one writer, any number of readers, one commit point.

    Writer   holds the lock; commits batches to the manifest; publishes the vector file that is derived from it
    Store    one committed state, from open to close; never waits for the writer and changes nothing

Both belong to the thread that opened them. Layout, invariants and the order of a commit: docs/index-format.md.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from bridgetower.errors import DamagedError, StoreError
from bridgetower.features import FeatureCache
from bridgetower.lock import Lock
from bridgetower.manifest import FORMAT_VERSION, Known, Manifest, State, Sweep, explained
from bridgetower.records import INT8, Fingerprint, Photo, Skipped

# numpy and FAISS take longer to import than most commands take to run: `bridgetower.vectors` is imported in the
# methods that touch a vector, so that `bt status` pays for neither.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.vectors import FlatVectors, VectorIndex

__all__ = [
    "Candidate",
    "Known",
    "Neighbour",
    "NewImage",
    "Root",
    "Store",
    "Summary",
    "Sweep",
    "Writer",
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
_NEAREST_AT_FIRST = 256  # images that are recalled together, then four times as many

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
    vector: "NDArray[np.float32]"  # [E], unit length


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
        self._remove_stray()

    @classmethod
    def open(cls, directory: Path, fingerprint: Fingerprint) -> Self:
        """Open the index in `directory` to add images with this fingerprint; create it if there is none.

        Where the index has the same model under another name, it takes the new name.

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
                stored = manifest.fingerprint()
                if manifest.count_images():  # before the first, nothing is bound to the fingerprint
                    _require_same(directory, stored, fingerprint)
                if stored != fingerprint:  # the same weights by another name: that is where they are found now
                    with manifest.transaction():
                        manifest.set_fingerprint(fingerprint)
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

    def known(self, path: Path) -> Known | None:
        """What the index holds about a file; None if it was never seen."""
        return self._manifest.known(path)

    def image_id(self, hash: bytes) -> int | None:
        """The image with this content, if it was ever encoded; no file need have it any more."""
        return self._manifest.image_id(hash)

    def mark(self, path: Path) -> None:
        """Say that a scan met this file, unchanged: keeps it from `sweep`. What is committed is marked by itself."""
        self._manifest.mark(path)

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
        for photo, _ in (*files, *skipped):
            self._manifest.mark(photo.path)
        self._images += added
        self._uncovered += added
        if self._uncovered > _UNCOVERED_MIN and self._uncovered * _UNCOVERED_MEANWHILE > self._images:
            self._publish()

    def _pack(self, image: NewImage) -> bytes:
        from bridgetower.vectors import pack

        return pack(image.vector, self._dim)

    def add_root(self, root: Path) -> None:
        """Remember a folder or file that is to be indexed, before it is scanned."""
        with self._manifest.transaction():
            self._manifest.add_root(root)

    def roots(self) -> tuple[Root, ...]:
        """What was given to be indexed, sorted by path."""
        return _roots(self._manifest)

    def sweep(self, root: Path, spared: Collection[Path] = ()) -> Sweep:
        """After a *complete* scan of `root`: drop the files under it that were neither marked nor committed.

        Their vectors stay, so that a file that comes back is not encoded again. What lies at or below a path in
        `spared` stays, because the scan could not or did not look there. If nothing at all was met under `root`,
        everything stays: see `Sweep.kept`.
        """
        with self._manifest.transaction():
            swept = self._manifest.sweep(root, spared)
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

    def mend(self, files: Iterable[Path], images: Iterable[int]) -> None:
        """Count anew, and drop files, and images with all files that lead to them, in one transaction."""
        with self._manifest.transaction():
            self._manifest.recount()
            self._manifest.drop_files(files)
            self._manifest.drop_images(images)
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
            self.publish()
        else:
            self.finish()

    def publish(self) -> None:
        """Write a new vector file, whatever the present one is."""
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

    def finish(self) -> None:
        """Publish a vector file if the present one is damaged or leaves out too much. At the end of a run, also of an
        interrupted one; nothing is lost without it, but every search must then read more from the manifest."""
        state = self._manifest.state()
        if self._uncovered * _UNCOVERED_AT_END > self._images or (self._images and not self._intact(state)):
            self._publish()

    def _intact(self, state: State) -> bool:
        try:
            with open(_vectors_path(self.directory, state.generation), "rb") as file:
                return hashlib.file_digest(file, "sha256").digest() == state.vectors_sha256
        except OSError:
            return False

    def features(self) -> FeatureCache:
        """All that is kept of pictures, to be looked after."""
        return FeatureCache(self.directory / _FEATURES, 0)

    def _publish(self) -> None:
        """Write the next generation of the vector file and name it in the manifest, in the order that the format
        demands: complete and on the disk first, then its name, then the transaction."""
        from bridgetower.vectors import FlatVectors

        index = FlatVectors(self._dim)
        covered = 0
        for rows in self._manifest.vectors():
            _add(index, rows, self.directory)
            covered = rows[-1][0]
        generation = self._manifest.state().generation + 1
        path = _vectors_path(self.directory, generation)
        beside = path.with_name(path.name + ".tmp")
        with explained(path):
            try:
                with open(beside, "wb") as file:
                    sha256 = index.save(file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            os.replace(beside, path)
            _fsync_directory(self.directory)
        with self._manifest.transaction():
            self._manifest.publish(generation, covered, sha256)
        self._uncovered = 0
        self._remove_stray()

    def remove_strays(self) -> None:
        """Remove what a crash, or a search that was killed, left in the directory."""
        self._remove_stray()
        self._remove([*self._found(_MANIFEST + ".new*"), *self.features().unfinished()])

    def _remove_stray(self) -> None:
        """Remove vector files that the manifest does not name: older generations, and what a crash left."""
        named = _vectors_path(self.directory, self._manifest.state().generation)
        self._remove(path for path in self._found("vectors-*.faiss*") if path != named)

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
        self._index: VectorIndex | None = None
        # Opened now and not at the first search: from here on the writer may remove the name, but not the file.
        self._file = _open_if_there(_vectors_path(directory, self._state.generation))

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
        if self._file is not None:
            self._file.close()
        self._manifest.close()

    def vector_file(self) -> Path | None:
        """The vector file that this state names; None where none was published."""
        named = self._state.vectors_sha256 is not None
        return _vectors_path(self.directory, self._state.generation) if named else None

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
        family = self.fingerprint.precision_family
        _require_same(self.directory, self.fingerprint, replace(fingerprint, precision_family=family))

    def __len__(self) -> int:
        """Images that can be found: those that have a file."""
        return self._manifest.count_live()

    def recall(self, queries: "NDArray[np.float32]", k: int) -> list[list[Neighbour]]:
        """The most similar images for each of the unit vectors `queries` `[Q, E]`.

        Each list holds `min(k, len(self))` images, best first, ties by image id. ValueError if a query is not a unit
        vector of this index; StoreError if the manifest is damaged.
        """
        from bridgetower.vectors import require_unit

        index = self._loaded()
        require_unit(queries)
        ids, scores = index.search(queries, k)
        # Rounding to float16 can make a vector a little longer than 1; a cosine is not.
        scores = scores.clip(-1, 1)
        rows = zip(ids.tolist(), scores.tolist(), strict=True)
        return [[Neighbour(*pair) for pair in zip(*row, strict=True)] for row in rows]

    def nearest(self, query: "NDArray[np.float32]") -> Iterator[Candidate]:
        """Every image that has a file, in the order of `recall`, read on as they are asked for.

        `query` is a unit vector `[1, E]`. Raises as `recall` and `photos` do.
        """
        known, k = 0, _NEAREST_AT_FIRST
        while True:
            [neighbours] = self.recall(query, k)
            for neighbour in neighbours[known:]:
                yield Candidate(*self._manifest.content(neighbour.image), neighbour.similarity)
            if len(neighbours) < k:
                return
            known, k = k, 4 * k

    def photos(self, images: Iterable[int]) -> dict[int, tuple[Path, ...]]:
        """The files of each image, sorted by the bytes of their paths, in the order of `images`; the first one stands
        for the image. An image without a file is left out."""
        found = ((image, self._manifest.photos(image)) for image in images)
        return {image: paths for image, paths in found if paths}

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

    def summary(self) -> Summary:
        """The index at a glance; needs neither numpy nor FAISS."""
        manifest, state, counts = self._manifest, self._state, self._manifest.counts()
        vectors_file = self._file is not None
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
            vectors_file=vectors_file,
            uncovered=manifest.count_live(after=state.covered if vectors_file else 0),
        )

    def _loaded(self) -> "VectorIndex":
        """The live images of this state, ready for search: what the vector file holds of them, and the rest from the
        manifest. That rest is everything if the file is absent or damaged."""
        import numpy as np

        from bridgetower.vectors import FlatVectors

        if self._index is None:
            orphans = set(self._manifest.orphans())
            published = self._published()
            index = published or FlatVectors(self.fingerprint.dim)
            index.remove(np.array([*orphans, *self._manifest.pruned()], dtype=np.int64))
            for rows in self._manifest.vectors(after=self._state.covered if published else 0):
                _add(index, [row for row in rows if row[0] not in orphans], self.directory)
            self._require_all(index)
            self._index = index
        return self._index

    def _require_all(self, index: "VectorIndex") -> None:
        """Raise StoreError where a search would leave out an image, because what says which there are is damaged."""
        self._manifest.require_consistent()
        if len(index) != len(self):
            raise DamagedError(self.directory / _MANIFEST, f"{len(index)} images can be searched, not {len(self)}")

    def published(self) -> "FlatVectors | None":
        """What the vector file of this state holds; None where it is not there or not whole."""
        return self._published()

    def strays(self) -> list[Path]:
        """What lies in the directory and is not part of the index, sorted."""
        named = {_MANIFEST, _MANIFEST + "-wal", _MANIFEST + "-shm", _MANIFEST + "-journal", _LOCK, _FEATURES}
        named.add(_vectors_path(self.directory, self._state.generation).name)
        with explained(self.directory):
            found = [entry for entry in self.directory.iterdir() if entry.name not in named]
        return sorted([*found, *self.features().unfinished()])

    def _published(self) -> "FlatVectors | None":
        from bridgetower.vectors import FlatVectors

        if self._file is None or self._state.vectors_sha256 is None:
            return None
        with self._file:
            try:
                return FlatVectors.load(self._file, self._state.vectors_sha256, self.fingerprint.dim)
            except OSError:  # a bad block: the manifest has it all
                return None


def _roots(manifest: Manifest) -> tuple[Root, ...]:
    return tuple(Root(path, manifest.count_under(path), at) for path, at in manifest.roots())


def _add(index: "FlatVectors", rows: list[tuple[int, bytes]], directory: Path) -> None:
    """Add images as the manifest holds them."""
    import numpy as np

    ids = np.array([id for id, _ in rows], dtype=np.int64)
    vectors = _unpacked([blob for _, blob in rows], index.dim, directory)
    try:
        index.add(ids, vectors)
    except ValueError as error:
        raise DamagedError(directory / _MANIFEST, str(error)) from error


def _unpacked(blobs: list[bytes], dim: int, directory: Path) -> "NDArray[np.float32]":
    from bridgetower.vectors import unpack

    try:
        return unpack(blobs, dim)
    except ValueError as error:
        raise DamagedError(directory / _MANIFEST, str(error)) from error


def _require_same(directory: Path, stored: Fingerprint, given: Fingerprint) -> None:
    differing = [field for field in _COMPARED if getattr(stored, field) != getattr(given, field)]
    if not differing:
        return
    if differing == ["preprocessing"]:
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
        f"{way_out} with `bt index --index NEW PHOTOS`"
    )


def _vectors_path(directory: Path, generation: int) -> Path:
    return directory / f"vectors-{generation}.faiss"


def _open_if_there(path: Path) -> BufferedReader | None:
    try:
        return open(path, "rb")
    except OSError:  # absent or unreadable: the manifest has it all
        return None


def _bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # a file that a writer removed meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _fsync_directory(directory: Path) -> None:
    """Make a rename durable; Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
