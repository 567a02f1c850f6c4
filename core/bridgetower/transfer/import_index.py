"""Import vectors into an index: an export, or vectors of another model, one for each path.

Everything is checked before anything is written. Then it is committed batch by batch: killing the process loses the
batch in flight, and the same import goes on from there. Images that the index has already keep their vectors.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.errors import UsageError
from bridgetower.files.npy import Rows
from bridgetower.index.catalog.rows import Known
from bridgetower.index.compatibility import made_by
from bridgetower.index.vectors.protocol import RecallStore
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.prefetch import ahead, workers
from bridgetower.records import FOREIGN, File, Fingerprint, OnProgress, Skipped, quiet
from bridgetower.transfer.export_reader import Export
from bridgetower.transfer.external_vectors import ExternalVectors, see
from bridgetower.transfer.path_map import PathMap, PathMapper

BATCH_FILES = 1024  # committed together; fewer of foreign vectors, as their pictures must be read:
FOREIGN_BATCH_FILES = 128
SAME = 0.99  # least cosine at which two vectors of one image count as the same, as in int8 and in fp32


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Counts of an import."""

    images: int  # new in the index
    known: int  # already in the index: these keep their vectors
    differing: int  # the known images whose imported vector has a cosine below SAME
    files: int  # files that lead to an image
    unused: tuple[str, ...]  # keys of `moves` with which no path begins
    skipped: tuple[Skipped, ...] = ()  # files of foreign vectors that are missing, or no pictures
    queries: int = 0  # vectors of texts that were stored
    note: str | None = None  # why the backup of the catalog was not renewed


def import_folder(
    folder: Path,
    directory: Path,
    *,
    moves: PathMap | None = None,
    recall_store: RecallStore | None = None,
    on_progress: OnProgress = quiet,
) -> ImportReport:
    """Add the export in `folder` to the index in `directory`, or make that index.

    A path that begins with a key of `moves` begins with its value here. `on_progress(done, total)` counts each row
    twice: it is checked, then added. Raises InputError, with file and line or row, before anything is written;
    StoreError where another model made the index, or it cannot be written.
    """
    exported = Export(folder, PathMapper(moves or {}))
    return _import(directory, exported.fingerprint, exported, partial(_add_export, exported), recall_store, on_progress)


def import_vectors(
    vectors: Path,
    paths: Path,
    name: str,
    directory: Path,
    *,
    queries: Path | None = None,
    moves: PathMap | None = None,
    recall_store: RecallStore | None = None,
    on_progress: OnProgress = quiet,
) -> ImportReport:
    """Add vectors of any model, called `name`, to the index in `directory`, or make that index.

    `vectors` is an npy file [N, E], whose rows are scaled to length 1; `paths` has a line of JSON for each row: the
    path of its picture, or an object with it as "path"; a relative path is below the folder of `paths`. `queries` is an
    npy file [Q, E] of vectors of texts; MAX_QUERIES are kept. `moves` and `on_progress` are as in `import_folder`.
    Raises as `import_folder` does, and UsageError for an empty name.
    """
    if not name.strip() or not name.isprintable():
        raise UsageError(f"{name!r} names no model: vectors of different models are told apart by the name")
    foreign = ExternalVectors(Rows(vectors), paths, None if queries is None else Rows(queries), PathMapper(moves or {}))
    fingerprint = Fingerprint(name, FOREIGN, name, FOREIGN, FOREIGN, 0, FOREIGN, foreign.vectors.dim)
    return _import(directory, fingerprint, foreign, partial(_add_foreign, foreign), recall_store, on_progress)


_Add = Callable[[IndexWriter, Callable[[int], None]], ImportReport]  # it reports the number of each row


def _import(
    directory: Path,
    fingerprint: Fingerprint,
    given: Export | ExternalVectors,
    add: _Add,
    recall_store: RecallStore | None,
    on_progress: OnProgress,
) -> ImportReport:
    """Check, then add. An index with images may refuse the model, so it is opened before the check."""

    def opened() -> IndexWriter:
        return stack.enter_context(IndexWriter.open(directory, fingerprint, imported=True, recall_store=recall_store))

    with ExitStack() as stack:
        writer = None if made_by(directory) is None else opened()
        total = 2 * len(given.vectors)
        given.check(lambda row: on_progress(row, total))
        writer = writer or opened()
        report = add(writer, lambda row: on_progress(total // 2 + row, total))
        return replace(report, note=writer.finish())


def _add_export(exported: Export, writer: IndexWriter, report: Callable[[int], None]) -> ImportReport:
    """Add the roots, images, skipped files and queries of an export to the index."""
    for root in exported.roots:
        writer.add_root(root)
    batch = _Batch(writer, BATCH_FILES)
    for row, (image, vector) in enumerate(exported.rows(), start=1):
        new = NewImage(image.hash, image.width, image.height, image.taken_at, vector, image.decoding)
        id = writer.catalog.image_id(image.hash)
        # A file that leads to this image already keeps the size and time that it has on this machine.
        files = [file for file in image.files if id is None or not _leads_to(id, writer.catalog.known(file.path))]
        batch.add(new, files)
        batch.files += len(image.files) - len(files)
        report(row)
    batch.commit()  # first: by `moves`, a skipped file may get the path of one that was read
    for file, reason in exported.skipped():
        known = writer.catalog.known(file.path)
        if known is None or known.image is None:  # else this machine has read it
            batch.skip(file, reason)
    batch.commit()
    texts = exported.queries()
    taken = 0 if writer.catalog.has_queries() else len(texts)
    if taken:
        writer.set_queries(texts)
    return batch.report(exported.moved, queries=taken)


def _leads_to(image: int, known: Known | None) -> bool:
    return known is not None and known.image == image


def _add_foreign(foreign: ExternalVectors, writer: IndexWriter, report: Callable[[int], None]) -> ImportReport:
    """Add to the index the vectors whose pictures can be read."""
    batch = _Batch(writer, FOREIGN_BATCH_FILES)
    skipped: list[Skipped] = []
    known = ((path, vector, writer.catalog.known(path)) for path, vector in foreign.rows())
    with workers() as threads:
        for row, seen in enumerate(ahead(threads, see, known, 2 * (os.cpu_count() or 1)), start=1):
            if seen.reason is not None:
                skipped.append(Skipped(seen.file.path, seen.reason))
                if seen.lasting:
                    batch.skip(seen.file, seen.reason)
            elif seen.known is not None:
                batch.keep(seen.known, seen.vector)
            elif seen.image is not None:
                batch.add(seen.image, [seen.file])
            report(row)
    batch.commit()
    if texts := foreign.texts():
        writer.set_queries(np.stack(texts))
    return batch.report(foreign.moved, skipped=tuple(skipped), queries=len(texts))


class _Batch:
    """The rows of the next commit, and the counts of the whole import."""

    def __init__(self, writer: IndexWriter, size: int) -> None:
        self._writer, self._size = writer, size
        self._new: dict[bytes, NewImage] = {}  # by hash
        self._known: list[
            tuple[int, npt.NDArray[np.floating]]
        ] = []  # (id, imported vector) of images that the index has
        self._files: list[tuple[File, bytes]] = []
        self._skipped: list[tuple[File, str]] = []
        self.images = self.known = self.differing = self.files = 0

    def add(self, image: NewImage, files: Iterable[File]) -> None:
        """Add an image and the files that lead to it; only the files where the index has the image."""
        self._files += ((file, image.hash) for file in files)
        if (twin := self._new.get(image.hash)) is not None:
            self.known += 1
            self.differing += _differ(twin.vector, image.vector)
        elif (id := self._kept(image)) is not None:
            self._add_known(id, image.vector)
        else:
            self._new[image.hash] = image
        self._commit_if_full()

    def _kept(self, image: NewImage) -> int | None:
        """Return the image that the index has of this content and keeps: its decoding is not older."""
        known = self._writer.catalog.image_of(image.hash)
        return None if known is None or known.decoding < image.decoding else known.id

    def keep(self, id: int, vector: npt.NDArray[np.floating]) -> None:
        """Count an unchanged file of an image, and compare the vector."""
        self.files += 1
        self._add_known(id, vector)
        self._commit_if_full()

    def skip(self, file: File, reason: str) -> None:
        self._skipped.append((file, reason))
        self._commit_if_full()

    def _add_known(self, id: int, vector: npt.NDArray[np.floating]) -> None:
        self.known += 1
        self._known.append((id, vector))

    def _commit_if_full(self) -> None:
        if len(self._new) + len(self._known) + len(self._files) + len(self._skipped) >= self._size:
            self.commit()

    def commit(self) -> None:
        stored = dict(self._writer.vectors([id for id, _ in self._known]))
        self.differing += sum(_differ(stored[id], vector) for id, vector in self._known)
        if self._new or self._files or self._skipped:
            self._writer.commit(images=self._new.values(), files=self._files, skipped=self._skipped)
            self._writer.publish_if_behind()
        self.images += len(self._new)
        self.files += len(self._files)
        self._new, self._known, self._files, self._skipped = {}, [], [], []

    def report(self, moved: PathMapper, *, skipped: tuple[Skipped, ...] = (), queries: int = 0) -> ImportReport:
        unused = tuple(sorted(moved.unused))
        return ImportReport(self.images, self.known, self.differing, self.files, unused, skipped, queries)


def _differ(stored: npt.NDArray[np.floating], given: npt.NDArray[np.floating]) -> bool:
    return float(stored.astype(np.float32) @ given.astype(np.float32)) < SAME
