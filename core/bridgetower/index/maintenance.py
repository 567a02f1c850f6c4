"""Maintenance of an index: remove files and images that it need not keep.

move     lets another store recall, and fills it
forget   drops folders and files from the index, whether or not they exist on the disk
prune    drops files that are gone from the disk, removes the orphans, and returns their space to the disk
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridgetower.errors import RefusedPasswordError, StoreError, UnknownPlaceError, UnreachableStoreError, UsageError
from bridgetower.files.regular_files import has_stub
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import StoreRow
from bridgetower.index.feature_cache import FeatureFile
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import is_away, suggestion
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.stores.naming import new_row
from bridgetower.index.writer import IndexWriter
from bridgetower.records import OnProgress, quiet


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A path that `forget` dropped from the index."""

    path: Path
    files: int  # at or below it


@dataclass(frozen=True, slots=True)
class Pruned:
    """Counts of what `prune` removed, or would remove."""

    files: int  # that are gone from the disk
    images: int  # orphans
    features: int  # files of images that the index does not have any more, or kept of another judge
    bytes: int  # by which the index on the disk is smaller; an estimate if nothing was removed
    absent: tuple[Path, ...]  # roots that have files in the index and none on the disk: all kept
    note: str | None  # why the disk did not get the space back, or the manifest was not copied


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """The paths that `forget` dropped, or would drop."""

    forgotten: tuple[Forgotten, ...]
    orphans: int  # in the index after it; their vectors are kept until `prune`
    note: str | None = None  # why the manifest was not copied


def move(writer: IndexWriter, store: NamedStore, address: str | None) -> str | None:
    """Let the database at `address` recall for the index from now on, and fill it; None: vector files.

    Returns a note if a table that the index does not use any more could not be removed. If the database is the present
    one, it only gets what it lacks. Raises StoreError; if the new database does not answer, nothing was changed.
    """
    before, dim = writer.catalog.store(), writer.catalog.fingerprint().dim
    if (before and before.address) == address:
        writer.publish_if_due()
        return None
    row = None if address is None else new_row(address, writer.directory)
    if row is not None:
        with _nothing_changed():
            store.create(row, dim)
    writer.set_store(row)
    try:
        writer.publish_if_due()
    finally:
        note = None if before is None else _leave(store, before, dim, writer.directory)
    return note


@dataclass(frozen=True, slots=True)
class Move:
    """A move to another store, for the writer of a run."""

    store: NamedStore
    address: str | None  # None: vector files

    def __call__(self, writer: IndexWriter) -> str | None:
        """Move, as `move`."""
        return move(writer, self.store, self.address)

    def require_reachable(self, directory: Path, dim: int) -> None:
        """Raise StoreError if the database does not answer: to be known before an index is made in `directory`."""
        if self.address is not None:
            with _nothing_changed():
                self.store.reach(new_row(self.address, directory), dim)


@contextmanager
def _nothing_changed() -> Iterator[None]:
    try:
        yield
    except UnreachableStoreError as error:
        raise StoreError(
            f"{error.address}: no answer ({error.why}): nothing was changed; start it, or mend the address"
        ) from error


def _leave(store: NamedStore, row: StoreRow, dim: int, directory: Path) -> str | None:
    """Remove a table that the index does not use any more; return a note if it stays."""
    try:
        if store.drop(row, dim, directory):
            return None
        why = f"{row.address}: another copy of this index may use the table {row.name}"
    except (StoreError, UsageError) as error:  # UsageError: its driver is not installed any more
        why = f"{_short(error)}; the table {row.name} is not used any more"
    return f"{why}: drop it there by hand"


def _short(error: StoreError | UsageError) -> str:
    """Return the message of a database, without the way back to files if it only does not answer."""
    return f"{error.address}: no answer ({error.why})" if isinstance(error, UnreachableStoreError) else str(error)


def forget(writer: IndexWriter, paths: Iterable[Path]) -> ForgetReport:
    """Drop the files and roots at and below each of `paths` from the index: all or, on any error, none.

    The paths need not exist on the disk. The images stay, as orphans, until `prune`. Raises UnknownPlaceError for a
    path that the index does not know; StoreError.
    """
    known = _known_paths(writer.catalog, paths)
    forgotten = tuple(map(Forgotten, known, writer.forget(*known)))
    return ForgetReport(forgotten, writer.catalog.count_orphans(), writer.back_up_if_behind())


def would_forget(reader: IndexReader, paths: Iterable[Path]) -> ForgetReport:
    """Return what `forget` would do now. Changes nothing. Raises as `forget` does."""
    known = _known_paths(reader.catalog, paths)
    counts, without = reader.catalog.count_under_each(known)
    return ForgetReport(tuple(map(Forgotten, known, counts)), reader.catalog.counts().orphans + without)


def _known_paths(catalog: Catalog, paths: Iterable[Path]) -> list[Path]:
    """Return each of `paths` once, absolute. Raises UnknownPlaceError for a path that the index does not know."""
    known = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    for path in known:
        if not catalog.knows(path):
            raise UnknownPlaceError(f"{path}: the index knows nothing there{suggestion(catalog, path)}")
    return known


def would_prune(reader: IndexReader, *, on_progress: OnProgress = quiet) -> Pruned:
    """Return what `prune` would do now. Changes nothing."""
    catalog = reader.catalog
    gone, absent = _find_gone(catalog, on_progress)
    lost = {hash for hash, orphan in catalog.contents() if orphan} | set(catalog.orphaned_by(gone))
    orphans = len(lost)
    features = [file for file in reader.features().files() if file.hash in lost or _is_useless(catalog, file)]
    counts = catalog.counts()
    share = orphans / max(1, counts.images + counts.orphans)
    freed = round(share * catalog.space().used) + sum(file.size() for file in features)
    return Pruned(len(gone), orphans, len(features), freed, absent, None)


def prune(writer: IndexWriter, *, on_progress: OnProgress = quiet) -> Pruned:
    """Drop files that are gone, remove orphans and their cached features, and return the space to the disk.

    A root that `is_away` keeps all its files: its disk may not be mounted. Raises StoreError. May be
    interrupted at any instant; removals up to then are kept.
    """
    before = writer.bytes_on_disk()
    gone, absent = _find_gone(writer.catalog, on_progress)
    if gone:
        writer.drop(gone)
    images = sum(writer.prune())
    useless = [file for file in writer.features().files() if _is_useless(writer.catalog, file)]
    for file in useless:
        file.remove()
    notes: list[str | None] = []
    try:
        writer.tidy()
    except (UnreachableStoreError, RefusedPasswordError, UsageError) as error:  # UsageError: there is no driver
        notes.append(
            f"{_short(error)}: searches leave out what was removed, and the next `bt index` or `bt prune` removes it "
            "in the database"
        )
    notes.append(writer.compact())
    writer.remove_strays()
    freed = max(0, before - writer.bytes_on_disk())
    notes.append(writer.back_up_if_behind())
    return Pruned(len(gone), images, len(useless), freed, absent, "; ".join(filter(None, notes)) or None)


def _find_gone(catalog: Catalog, on_progress: OnProgress) -> tuple[list[Path], tuple[Path, ...]]:
    """Return the files that are gone from the disk, and the roots that keep their files because no file is there.

    A file belongs to the innermost root around it, as when folders are indexed; a file that is itself a root belongs to
    its folder. A file whose state cannot be read is not gone.
    """
    roots = {root for root, _ in catalog.roots()}
    counts = catalog.counts()
    total = counts.files + counts.skipped
    gone: dict[Path, list[Path]] = {}
    met: dict[Path, Path] = {}  # by root, the last of its files that exists
    for done, path in enumerate(catalog.files(), 1):
        root = next((above for above in path.parents if above in roots), path.parent)
        if path in roots:
            root = path.parent
        if _is_gone(path):
            gone.setdefault(root, []).append(path)
        else:
            met[root] = path
        on_progress(done, total)
    # Asked last, also of what was met: a disk may have gone away in the middle.
    away = {root for root in gone if (root not in met or _is_gone(met[root])) and is_away(root)}
    return [path for root, paths in gone.items() if root not in away for path in paths], tuple(sorted(away))


def _is_gone(path: Path) -> bool:
    """Return whether the file surely does not exist. False if iCloud has a stub for it, if a link above it is broken,
    and on any other error."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        if has_stub(path):
            return False
    except OSError:
        return False
    else:
        return False
    for above in path.parents:
        try:
            return not stat.S_ISLNK(os.lstat(above).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
    return False


def _is_useless(catalog: Catalog, file: FeatureFile) -> bool:
    """Return whether the index has not the image of these features, or keeps those that another judge has made."""
    if file.kept and ((keeping := catalog.keeping()) is None or file.made_by != keeping.made_by):
        return True
    return catalog.image_id(file.hash) is None
