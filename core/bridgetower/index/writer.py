"""The writer of an index: it holds the lock, commits batches, and publishes vector files that are made from them.

The order of the steps of a commit, and the effect of a kill after each: docs/index-format.md.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bridgetower.errors import DamagedIndexError, StoreError, UnreachableStoreError
from bridgetower.files.atomic import fsync_directory
from bridgetower.files.lock import Lock
from bridgetower.index.catalog.changed_files import Sweep
from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Keeping, StoreRow
from bridgetower.index.catalog.sqlite_errors import explained, size_of
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.compatibility import require_same
from bridgetower.index.directory import FEATURES, LOCK, MANIFEST, bytes_below, require_place
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.recovery import backup
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.vectors.protocol import RecallStore
from bridgetower.records import DECODING_VERSION, File, Fingerprint, OnProgress, WalkedFile, quiet

# numpy and FAISS take longer to import than a run takes that finds nothing to do. So the methods that use a vector
# import the modules that need them.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PRUNED_AT_ONCE = 4096  # images that are removed in one transaction
_LOG_IN_USE = "a search that is still running needs the old state: the next `bt prune` gives its space back"


@dataclass(frozen=True, slots=True, eq=False)
class NewImage:
    """An encoded image that the index does not have yet."""

    hash: bytes  # SHA-256 of the file's bytes
    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken
    vector: "NDArray[np.floating]"  # [E], unit length; float16 values are stored unchanged
    decoding: int = DECODING_VERSION  # that its pixels agree with


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An image whose vector stays: its pixels are the same in this decoding, or its date is read otherwise."""

    hash: bytes
    taken_at: int | None  # as read now


class IndexWriter:
    """The writer of an index, from `open` to `close`; one process at a time has one.

    When `commit` returns, its batch is on the disk. Every method may be interrupted at any instant.
    """

    def __init__(
        self, directory: Path, catalog: CatalogWriter, held: ExitStack, recall_store: RecallStore | None = None
    ) -> None:
        """Take over the resources in `held`, the lock and the catalog; if this fails, the caller keeps them."""
        self.directory, self._recall_store = directory, recall_store or NamedStore()
        self.catalog = catalog  # public for queries; changes go through the methods below
        self._dim = catalog.fingerprint().dim
        self._images = catalog.count_images()
        self._uncovered = catalog.count_images(after=catalog.state().covered)
        self.on_publish: OnProgress = quiet  # counts the images that were read, of all
        self._recall_store.clean(directory, catalog)
        self._resources = held.pop_all()

    @classmethod
    def open(
        cls,
        directory: Path,
        fingerprint: Fingerprint,
        *,
        imported: bool = False,
        recall_store: RecallStore | None = None,
    ) -> Self:
        """Open the index in `directory` to add images with this fingerprint; create the index if there is none.

        If the index has the same model under another name, it takes the new name, unless `imported` is true: imported
        vectors carry the name that their model had on another machine, which this machine may not know.

        Raises:
            StoreError: another writer is at work, the folder holds other files, the index was made by another model or
                in another format, or the disk refuses a write. Nothing was changed then.
        """
        directory = directory.absolute()
        require_place(directory)
        with explained(directory):
            missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            for folder in missing:  # else a power cut may remove the folder with all commits in it
                fsync_directory(folder.parent)
        with ExitStack() as held:
            held.callback(Lock(directory / LOCK).release)
            catalog = held.enter_context(closing(CatalogWriter.open(directory / MANIFEST, fingerprint)))
            catalog.require_consistent()
            _bind_fingerprint(catalog, directory, fingerprint, imported=imported)
            return cls(directory, catalog, held, recall_store)

    @classmethod
    def resume(
        cls,
        directory: Path,
        *,
        mend: Callable[[Path], None] | None = None,
        recall_store: RecallStore | None = None,
    ) -> Self:
        """Open the index in `directory` for maintenance, whatever model made it.

        `mend` is called under the lock, with the path of the manifest, before the manifest is opened; without `mend`, a
        damaged manifest is refused. Raises NoIndexError if there is no index; StoreError as `open` does.
        """
        directory = directory.absolute()
        path = directory / MANIFEST
        with explained(directory):
            there = path.exists()
        if not there:
            try:
                Catalog.read(path).close()  # raises NoIndexError
            except DamagedIndexError:  # the manifest is gone, and its copy is there
                if mend is None:
                    raise
        with ExitStack() as held:
            held.callback(Lock(directory / LOCK).release)
            if mend is not None:
                mend(path)
            catalog = held.enter_context(closing(CatalogWriter.open(path)))
            if mend is None:
                catalog.require_consistent()
            return cls(directory, catalog, held, recall_store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog and release the lock. Writes nothing; may be called twice."""
        self._resources.close()

    def take(self, fingerprint: Fingerprint) -> None:
        """Set the fingerprint of the images that are added from now on; raises and stores it as `open` does.

        For a caller that opened the index with its stored fingerprint, and loads the model only now."""
        _bind_fingerprint(self.catalog, self.directory, fingerprint)
        self._dim = fingerprint.dim

    def commit(
        self,
        *,
        images: Iterable[NewImage] = (),
        files: Iterable[tuple[File, bytes]] = (),
        skipped: Iterable[tuple[File, str]] = (),
        confirmed: Iterable[Confirmed] = (),
    ) -> None:
        """Store a batch: all of it or, on any error or kill, nothing.

        Args:
            images: new images. An image that the index already has keeps its id and its vector, unless they are of an
                older decoding: then the new one takes its place.
            files: each file with the hash of its image, which is in the index or in `images`.
            skipped: each file that has no image, with the reason. It replaces the old row of its path, as in `files`.
            confirmed: images that need no other vector.

        Raises:
            ValueError: a vector is not a unit vector of this index, or a file has the hash of no image.
            StoreError: the disk refuses a write.
        """
        files, skipped = list(files), list(skipped)
        packed = [(image, self._pack(image)) for image in images]
        last = self.catalog.last_image()
        with self.catalog.transaction():
            for image, vector in packed:
                size = image.width, image.height
                self.catalog.add_image(image.hash, *size, image.taken_at, image.decoding, vector)
            for same in confirmed:
                self.catalog.confirm(same.hash, same.taken_at, DECODING_VERSION)
            for file, hash in files:
                self.catalog.put_file(file, hash)
            for file, reason in skipped:
                self.catalog.put_skipped(file, reason)
            self.catalog.touch()
        self.catalog.meet(WalkedFile(os.fsencode(file.path), -1, 0) for file, _ in (*files, *skipped))
        self._images = self.catalog.count_images()
        self._uncovered += self.catalog.last_image() - last

    def publish_if_behind(self) -> None:
        """Publish in the middle of a run if the store lacks so many images that searches are slow."""
        if self._recall_store.is_due(self.catalog, self._uncovered, at_end=False):
            self.publish()

    def _pack(self, image: NewImage) -> bytes:
        from bridgetower.index.vectors.float16 import pack

        return pack(image.vector, self._dim)

    def vectors(self, images: Sequence[int]) -> "Iterator[tuple[int, NDArray[np.float32]]]":
        """Yield the ids and stored vectors `[E]` of these images; unknown ids are left out."""
        from bridgetower.index.vectors.catalog_vectors import unpacked

        for rows in self.catalog.vectors_of(images):
            vectors = unpacked(self.catalog, [blob for _, blob in rows])
            yield from zip((id for id, _ in rows), vectors, strict=True)

    def set_queries(self, queries: "NDArray[np.floating]") -> None:
        """Store unit vectors of texts `[Q, E]`, with which recall is measured from now on. ValueError as `commit`."""
        from bridgetower.index.vectors.float16 import pack

        packed = [pack(query, self._dim) for query in queries]
        with self.catalog.transaction():
            self.catalog.set_queries(packed)

    def require_store(self) -> None:
        """Raise StoreError if the store behind recall cannot be written now."""
        self._recall_store.require_reachable(self.directory, self.catalog)

    def set_store(self, store: StoreRow | None) -> None:
        """Let this database recall from now on; None: vector files. `publish` fills it."""
        with self.catalog.transaction():
            self.catalog.set_store(store)
        self._uncovered = self._images

    def keep(self, keeping: Keeping | None) -> None:
        """Store which features the index keeps; None: none."""
        with self.catalog.transaction():
            self.catalog.set_keeping(keeping)

    def add_root(self, root: Path) -> None:
        """Store a root before its scan."""
        with self.catalog.transaction():
            self.catalog.add_root(root)

    def sweep(self, root: Path, spared: Collection[Path] = (), *, present: bool = False) -> Sweep:
        """After a *complete* scan of `root`: drop the files under it that were neither met nor committed.

        Their images stay, so that a file that comes back is not encoded again. Files at or below a path in `spared`
        stay, because the scan did not or could not read there. If the scan met no file under `root`, all files stay
        (see `Sweep.kept`), unless `present` is true: then the root is there all the same.
        """
        with self.catalog.transaction():
            swept = self.catalog.sweep(root, spared, present=present)
            self.catalog.touch()
        return swept

    def forget(self, *paths: Path) -> list[int]:
        """Drop the files and roots at or below each of `paths`, in one transaction; return the number of files of each.

        The copy of the manifest is removed first: a repair from it would bring the files back. `back_up_if_behind`
        makes another copy.
        """
        backup.remove(self.catalog)
        with self.catalog.transaction():
            forgotten = [self.catalog.forget(path) for path in paths]
            self.catalog.touch()
        return forgotten

    def drop(self, files: Iterable[Path]) -> None:
        """Drop files, in one transaction."""
        with self.catalog.transaction():
            self.catalog.drop_files(files)
            self.catalog.touch()

    def take_back(self, images: Collection[int]) -> set[int]:
        """Restore damaged images from the store, where only the vector was damaged and the store has it without loss.

        Returns the ids of the restored images. Raises StoreError.
        """
        if not images:
            return set()
        import numpy as np

        ids = np.array(sorted(images), np.int64)
        found = dict(self._recall_store.vectors(self.directory, self.catalog, ids))
        with self.catalog.transaction():
            return {
                id for id, vector in found.items() if self.catalog.put_vector_back(id, vector.astype("<f2").tobytes())
            }

    def mend(self, files: Iterable[Path], images: Iterable[int], roots: Iterable[Path]) -> None:
        """Correct the counts, and drop these files, these images with their files, these roots, and damaged parts and
        queries, in one transaction."""
        with self.catalog.transaction():
            self.catalog.recount()
            self.catalog.drop_files(files)
            self.catalog.drop_images(images)
            self.catalog.drop_roots(roots)
            self.catalog.drop_parts([(image, part) for image, part, whole in self.catalog.part_rows() if not whole])
            self.catalog.set_queries(self.catalog.queries())
            self.catalog.touch()

    def prune(self) -> Iterator[int]:
        """Remove the orphans, some in each transaction; yield how many were removed, each time.

        The copy of the manifest is removed first, as in `forget`.
        """
        backup.remove(self.catalog)
        while True:
            with self.catalog.transaction():
                removed = self.catalog.prune(_PRUNED_AT_ONCE)
            if not removed:
                return
            yield removed

    def bytes_on_disk(self) -> int:
        """Return the size of the index on the disk without the copy of the manifest, which is not always there."""
        return bytes_below(self.directory) - size_of(backup_of(self.catalog.path))

    def tidy(self) -> None:
        """Publish a vector file if the present one is damaged, lacks too many images or holds too many removed ones."""
        covered = self.catalog.state().covered
        stale = self.catalog.count_pruned(covered) + self.catalog.count_images(covered)
        if self._recall_store.is_due(self.catalog, stale, at_end=True):
            self.publish()
        else:
            self._publish_if_needed(changed=True)

    def publish(self) -> None:
        """Write and publish a new vector file, whatever the state of the present one."""
        try:
            self._recall_store.publish(self.directory, self.catalog, self.on_publish)
        except UnreachableStoreError as error:
            note = "all pictures are in the index, and the next `bt index` adds to the database what it lacks"
            raise UnreachableStoreError(error.address, error.why, note=note) from error
        self._uncovered = 0
        self._recall_store.clean(self.directory, self.catalog)

    def publish_from_scratch(self) -> None:
        """Publish a vector file that reuses nothing of the present one, which is damaged."""
        self._recall_store.clean(self.directory, self.catalog, everything=True)
        self.publish()

    def compact(self) -> str | None:
        """Return the free space in the manifest to the disk; return why that was not done, or None.

        Free space below a quarter of the file stays. Needs room on the disk for the manifest twice meanwhile.
        """
        space = self.catalog.space()
        if space.free * 4 < space.used + space.free:
            return None if self.catalog.fold() else _LOG_IN_USE
        if shutil.disk_usage(self.directory).free < 2 * space.used:
            return (
                "the disk has not the room that it takes to make the index smaller; new pictures will use what is free"
            )
        self.catalog.vacuum()
        return None if self.catalog.fold() else _LOG_IN_USE

    def wants_queries(self) -> bool:
        """Return whether the index is, or soon will be, so large that recall is measured, and has no texts for that."""
        from bridgetower.index.vectors.catalog_vectors import few

        return not few(2 * self._images) and not self.catalog.has_queries()

    def publish_if_due(self) -> None:
        """Publish if the store lacks more images than it may at the end of a run, or is damaged. Raises StoreError."""
        self._publish_if_needed(changed=True)

    def finish(self, *, changed: bool = True) -> str | None:
        """Publish a vector file if the present one is damaged or lacks too many images. Copy the manifest if its copy
        lacks too many changes; return why the copy could not be made, or None.

        Called at the end of a run that was not interrupted: without it nothing is lost, but searches read more from
        the manifest. After a run that has `changed` nothing, the vector file must only exist; `bt verify` reads it.
        """
        self._publish_if_needed(changed=changed)
        return self.back_up_if_behind()

    def back_up_if_behind(self) -> str | None:
        """Copy the manifest if its copy is missing or lacks too many changes; return why the copy failed, or None."""
        return self.back_up() if backup.is_behind(self.catalog) else None

    def back_up(self) -> str | None:
        """Copy the manifest; return why the copy failed, or None. If it failed, the older copy stays."""
        try:
            backup.make(self.catalog)
        except StoreError as error:
            return f"the copy of the index could not be made: {error}"
        return None

    def _publish_if_needed(self, *, changed: bool) -> None:
        named = bool(self._images) or self.catalog.state().vectors_sha256 is not None
        if self._recall_store.is_due(self.catalog, self._uncovered, at_end=True) or (
            named and not self._recall_store.is_intact(self.directory, self.catalog, whole=changed)
        ):
            self.publish()

    def features(self) -> FeatureCache:
        """Return the feature cache in the index, for checks and removal; it keeps nothing new."""
        return FeatureCache(self.directory / FEATURES, 0)

    def remove_strays(self) -> None:
        """Remove the unfinished files that a crash, or a killed search, left in the directory."""
        self._recall_store.clean(self.directory, self.catalog)
        backup.remove_unfinished(self.directory)
        for path in self.features().unfinished():
            with suppress(OSError):  # Windows keeps a file that a reader has open: the next writer removes it
                path.unlink()


def _bind_fingerprint(
    catalog: CatalogWriter, directory: Path, fingerprint: Fingerprint, *, imported: bool = False
) -> None:
    stored = catalog.fingerprint()
    bound = catalog.has_images()  # without images, no vector depends on the fingerprint
    if bound:
        require_same(directory, stored, fingerprint, imported=imported)
    if bound and stored.tokenizer_sha256 is not None:  # keep it, so that each run reports a changed tokenizer
        fingerprint = replace(fingerprint, tokenizer_sha256=stored.tokenizer_sha256)
    # Equal weights under another name: store the name that this machine finds them by, but not an imported name.
    if stored != fingerprint and not (bound and imported):
        with catalog.transaction():
            catalog.set_fingerprint(fingerprint)
            if stored.differences(fingerprint):
                catalog.drop_derived()
