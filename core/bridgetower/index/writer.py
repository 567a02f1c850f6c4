"""The one process that changes an index: it holds the lock, commits batches, publishes the vector file made from them.

The order of a commit and what may interrupt it: docs/index-format.md.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bridgetower.errors import DamagedIndexError, StoreError
from bridgetower.files.atomic import fsync_directory
from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.sqlite_errors import explained, size_of
from bridgetower.index.catalog.writer import CatalogWriter, Sweep
from bridgetower.index.compatibility import differences, require_same
from bridgetower.index.directory import FEATURES, LOCK, MANIFEST, bytes_below, require_place
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.lock import Lock
from bridgetower.index.recovery import backup
from bridgetower.index.vectors.faiss_store import FaissStore
from bridgetower.index.vectors.protocol import RecallStore
from bridgetower.records import File, Fingerprint, OnProgress, WalkedFile, quiet

# numpy and FAISS take longer to import than a run that finds nothing to do: what touches a vector is imported where it
# is needed.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A new vector file is published when more than 1/16 of the images are not in the old one at the end of a run, or more
# than 1/2, and more than 8192, in the middle of one: readers stay fast, and all publishing together stays linear.
_UNCOVERED_AT_END = 16
_UNCOVERED_MEANWHILE = 2
_UNCOVERED_MIN = 8192

_PRUNED_AT_ONCE = 4096  # images that are removed in one transaction
_READERS = "a search that is still running needs the old state: the next `bt prune` gives its space back"


@dataclass(frozen=True, slots=True, eq=False)
class NewImage:
    """Content that the index does not have yet, encoded."""

    hash: bytes  # SHA-256 of the file's bytes
    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken
    vector: "NDArray[np.floating]"  # [E], unit length; of float16 the very numbers are stored


class IndexWriter:
    """The one process that changes an index, from `open` to `close`.

    What `commit` was given is on the disk when it returns; everything else in here can be interrupted at any instant.
    """

    def __init__(
        self, directory: Path, catalog: CatalogWriter, held: ExitStack, recall_store: RecallStore | None = None
    ) -> None:
        """Take over what is `held`, the lock and the manifest, unless this fails."""
        self.directory, self._recall_store = directory, recall_store or FaissStore()
        self.catalog = catalog  # asked directly; what changes the index goes through the methods below
        self._dim = catalog.fingerprint().dim
        self._images = catalog.count_images()
        self._uncovered = catalog.count_images(after=catalog.state().covered)
        self.on_publish: OnProgress = quiet  # images that were read, of all
        self._recall_store.clean(directory, catalog)
        self._held = held.pop_all()

    @classmethod
    def open(
        cls,
        directory: Path,
        fingerprint: Fingerprint,
        *,
        imported: bool = False,
        recall_store: RecallStore | None = None,
    ) -> Self:
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
            missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            for folder in missing:  # else a power cut may take the folder, and all that was committed in it
                fsync_directory(folder.parent)
        with ExitStack() as held:
            held.callback(Lock(directory / LOCK).release)
            catalog = held.enter_context(closing(CatalogWriter.open(directory / MANIFEST, fingerprint)))
            catalog.require_consistent()
            _take(catalog, directory, fingerprint, imported=imported)
            return cls(directory, catalog, held, recall_store)

    @classmethod
    def resume(
        cls,
        directory: Path,
        *,
        mend: Callable[[Path], None] | None = None,
        recall_store: RecallStore | None = None,
    ) -> Self:
        """Open the index in `directory` to look after it, whatever model made it.

        `mend` is called under the lock, with the path of the manifest, before that is opened; without it, a damaged one
        is refused. Raises NoIndexError where there is none, StoreError as `open` does.
        """
        directory = directory.absolute()
        path = directory / MANIFEST
        with explained(directory):
            there = path.exists()
        if not there:
            try:
                Catalog.read(path).close()  # says that there is none
            except DamagedIndexError:  # but there is a copy
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
        """Let go of the index. Writes nothing; may be called twice."""
        self._held.close()

    def take(self, fingerprint: Fingerprint) -> None:
        """Add images with this fingerprint from now on. For who opened an index with the fingerprint that it has, and
        finds the model only now: refused and remembered as by `open`."""
        _take(self.catalog, self.directory, fingerprint)
        self._dim = fingerprint.dim

    def commit(
        self,
        *,
        images: Iterable[NewImage] = (),
        files: Iterable[tuple[File, bytes]] = (),
        skipped: Iterable[tuple[File, str]] = (),
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
        with self.catalog.transaction():
            for image, vector in packed:
                added += self.catalog.add_image(image.hash, image.width, image.height, image.taken_at, vector)
            for photo, hash in files:
                self.catalog.put_file(photo, hash)
            for photo, reason in skipped:
                self.catalog.put_skipped(photo, reason)
            self.catalog.touch()
        self.catalog.meet(WalkedFile(os.fsencode(photo.path), -1, 0) for photo, _ in (*files, *skipped))
        self._images += added
        self._uncovered += added

    def publish_if_behind(self) -> None:
        """Publish in the middle of a run, where searches have to read much that no vector file holds."""
        if self._uncovered > _UNCOVERED_MIN and self._uncovered * _UNCOVERED_MEANWHILE > self._images:
            self.publish()

    def _pack(self, image: NewImage) -> bytes:
        from bridgetower.index.vectors.float16 import pack

        return pack(image.vector, self._dim)

    def vectors(self, images: Sequence[int]) -> "Iterator[tuple[int, NDArray[np.float32]]]":
        """Ids and vectors `[E]` of images, as they were stored; what there is not is left out."""
        from bridgetower.index.vectors.catalog_vectors import unpacked

        for rows in self.catalog.vectors_of(images):
            vectors = unpacked(self.catalog, [blob for _, blob in rows])
            yield from zip((id for id, _ in rows), vectors, strict=True)

    def set_queries(self, queries: "NDArray[np.floating]") -> None:
        """Keep unit vectors of texts `[Q, E]`, by which recall is measured from now on. ValueError as `commit`."""
        from bridgetower.index.vectors.float16 import pack

        packed = [pack(query, self._dim) for query in queries]
        with self.catalog.transaction():
            self.catalog.set_queries(packed)

    def add_root(self, root: Path) -> None:
        """Remember a folder or file that is to be indexed, before it is scanned."""
        with self.catalog.transaction():
            self.catalog.add_root(root)

    def sweep(self, root: Path, spared: Collection[Path] = (), *, present: bool = False) -> Sweep:
        """After a *complete* scan of `root`: drop the files under it that were neither met nor committed.

        Their vectors stay, so that a file that comes back is not encoded again. What lies at or below a path in
        `spared` stays, because the scan could not or did not look there. If nothing at all was met under `root`,
        everything stays: see `Sweep.kept`; unless the root is `present` all the same.
        """
        with self.catalog.transaction():
            swept = self.catalog.sweep(root, spared, present=present)
            self.catalog.touch()
        return swept

    def forget(self, *paths: Path) -> list[int]:
        """Drop the files and roots at or below each of `paths`, in one transaction; how many files each were.

        The copy of the manifest goes before: it would bring them back. `back_up_if_behind` makes another.
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

    def mend(self, files: Iterable[Path], images: Iterable[int], roots: Iterable[Path]) -> None:
        """Count anew, and drop files, images with all files that lead to them, roots, and queries that are not whole,
        in one transaction."""
        with self.catalog.transaction():
            self.catalog.recount()
            self.catalog.drop_files(files)
            self.catalog.drop_images(images)
            self.catalog.drop_roots(roots)
            self.catalog.set_queries(self.catalog.queries())
            self.catalog.touch()

    def prune(self) -> Iterator[int]:
        """Remove the images that have no file, some at a time: how many they were, each time.

        The copy of the manifest goes before, as in `forget`.
        """
        backup.remove(self.catalog)
        while True:
            with self.catalog.transaction():
                removed = self.catalog.prune(_PRUNED_AT_ONCE)
            if not removed:
                return
            yield removed

    def bytes_on_disk(self) -> int:
        """What the directory takes without the copy of the manifest, which comes and goes."""
        return bytes_below(self.directory) - size_of(backup_of(self.catalog.path))

    def tidy(self) -> None:
        """Publish a vector file if the present one is damaged, or holds or leaves out too much."""
        covered = self.catalog.state().covered
        stale = self.catalog.count_pruned(covered) + self.catalog.count_images(covered)
        if stale * _UNCOVERED_AT_END > self.catalog.count_images():
            self.publish()
        else:
            self._publish_if_needed(changed=True)

    def publish(self) -> None:
        """Write a new vector file, whatever the present one is."""
        self._recall_store.publish(self.directory, self.catalog, self.on_publish)
        self._uncovered = 0
        self._recall_store.clean(self.directory, self.catalog)

    def publish_anew(self) -> None:
        """As `publish`, without taking anything from the present one, which is damaged."""
        self._recall_store.clean(self.directory, self.catalog, everything=True)
        self.publish()

    def compact(self) -> str | None:
        """Give what is free in the manifest back to the disk; why that was not done, or None.

        Not worth the while below a quarter of the file. Needs room for the manifest twice meanwhile.
        """
        space = self.catalog.space()
        if space.free * 4 < space.used + space.free:
            return None if self.catalog.fold() else _READERS
        if shutil.disk_usage(self.directory).free < 2 * space.used:
            return (
                "the disk has not the room that it takes to make the index smaller; new pictures will use what is free"
            )
        self.catalog.vacuum()
        return None if self.catalog.fold() else _READERS

    def wants_queries(self) -> bool:
        """Whether the index is so large, or soon will be, that recall is measured, and knows no texts for that yet."""
        from bridgetower.index.vectors.catalog_vectors import few

        return not few(2 * self._images) and not self.catalog.has_queries()

    def finish(self, *, changed: bool = True) -> str | None:
        """Publish a vector file if the present one is damaged or leaves out too much, and copy the manifest if the copy
        lacks too much; why the copy could not be made, or None. At the end of a run, but not of an interrupted one:
        nothing is lost without it, but every search must then read more from the manifest.

        A run that has `changed` nothing only looks whether the file is there; `bt verify` reads it, too.
        """
        self._publish_if_needed(changed=changed)
        return self.back_up_if_behind()

    def back_up_if_behind(self) -> str | None:
        """Copy the manifest if its copy lacks too much of it or is not there; why that was not done, or None."""
        return self.back_up() if backup.is_behind(self.catalog) else None

    def back_up(self) -> str | None:
        """Copy the manifest; why that was not done, or None. The copy from before stays then."""
        try:
            backup.make(self.catalog)
        except StoreError as error:
            return f"the copy of the index could not be made: {error}"
        return None

    def _publish_if_needed(self, *, changed: bool) -> None:
        named = bool(self._images) or self.catalog.state().vectors_sha256 is not None
        if self._uncovered * _UNCOVERED_AT_END > self._images or (
            named and not self._recall_store.is_intact(self.directory, self.catalog, whole=changed)
        ):
            self.publish()

    def features(self) -> FeatureCache:
        """All that is kept of pictures, to be looked after."""
        return FeatureCache(self.directory / FEATURES, 0)

    def remove_strays(self) -> None:
        """Remove what a crash, or a search that was killed, left in the directory."""
        self._recall_store.clean(self.directory, self.catalog)
        backup.remove_unfinished(self.directory)
        for path in self.features().unfinished():
            with suppress(OSError):  # Windows keeps a file that a reader has open: the next writer removes it
                path.unlink()


def _take(catalog: CatalogWriter, directory: Path, fingerprint: Fingerprint, *, imported: bool = False) -> None:
    stored = catalog.fingerprint()
    bound = catalog.has_images()  # before the first, nothing is bound to the fingerprint
    if bound:
        require_same(directory, stored, fingerprint, imported=imported)
    if bound and stored.tokenizer_sha256 is not None:  # a changed tokenizer is to be told each time
        fingerprint = replace(fingerprint, tokenizer_sha256=stored.tokenizer_sha256)
    # The same weights by another name: that is where they are found now, unless it says where another machine has them.
    if stored != fingerprint and not (bound and imported):
        with catalog.transaction():
            catalog.set_fingerprint(fingerprint)
            if differences(stored, fingerprint):
                catalog.drop_derived()
