"""The copy of a manifest beside it: made at the end of a run, checked, and used to replace a damaged manifest.

A run renews the copy if more than one in `_CHANGED_SHARE` images was added, forgotten or removed since. The number of
these changes comes from a comparison of manifest and copy, so a killed run cannot lose it. `forget` and `prune` remove
the copy first, so that a restored copy cannot bring forgotten files or pruned images back.
"""

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bridgetower.errors import DamagedIndexError, StoreError
from bridgetower.files.atomic import fsync_directory, remove_abandoned, replace_file
from bridgetower.files.regular_files import is_own, require_own
from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.sqlite_errors import explained, size_of
from bridgetower.index.catalog.write_ahead_log import log_of
from bridgetower.index.catalog.writer import CatalogWriter

_CHANGED_SHARE = 20
# A killed `replace_file` may leave unfinished versions of these files.
_UNFINISHED_OF = r"manifest\.sqlite|manifest\.backup\.sqlite|manifest\.sqlite\.damaged-\d+-wal"


class Restored(NamedTuple):
    """The result of `restore`: a copy replaced a damaged manifest."""

    kept: Path | None  # the new path of the damaged manifest; None if it was missing
    images: int  # in the copy
    files: int  # in the copy that have an image
    updated_at: int  # unix seconds of the last change in the copy


def is_behind(catalog: Catalog) -> bool:
    """Return whether the copy of a manifest lacks too many changes, is of another index, unreadable or missing.

    A manifest without images needs no copy. Raises StoreError if the manifest itself cannot be read.
    """
    images, orphans = catalog.count_images(), catalog.count_orphans()
    copied = backup_of(catalog.path)
    if not is_own(copied):
        return images > 0
    try:
        with closing(Catalog.read_copy(copied)) as copy:
            if not _is_copy_of(copy, catalog):
                return True
            images_then, last, orphans_then = copy.count_images(), copy.last_image(), copy.count_orphans()
    except StoreError:
        return True
    added = catalog.count_images(after=last)
    removed = images_then + added - images
    return (added + abs(removed) + abs(orphans - orphans_then)) * _CHANGED_SHARE > images


def make(catalog: CatalogWriter) -> None:
    """Copy a manifest; the new copy replaces the older one when it is complete, checked and on the disk.

    Raises StoreError if the disk is full or refuses a write, or the manifest is damaged. The older copy stays then.
    """
    path = backup_of(catalog.path)
    with explained(path):
        with suppress(FileNotFoundError):
            require_own(path)
        remove_unfinished(path.parent)
        space = catalog.space()
        if shutil.disk_usage(path.parent).free < space.used + space.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        replace_file(path, partial(_write, catalog))


def _write(catalog: CatalogWriter, unfinished: Path) -> None:
    catalog.copy_to(unfinished)
    if found := next(damage(unfinished), None):
        raise DamagedIndexError(catalog.path, found)
    with closing(Catalog.read_copy(unfinished)) as copy:
        if copy.fingerprint() != catalog.fingerprint():
            raise DamagedIndexError(catalog.path, "its copy has another fingerprint")


def remove(catalog: Catalog) -> None:
    """Remove the copy of a manifest, before rows are removed that a repair must not bring back.

    Raises DamagedIndexError and keeps the copy if the manifest is damaged; StoreError if the copy cannot be removed.
    """
    path = backup_of(catalog.path)
    if not is_own(path):
        return
    if found := next(catalog.damage(), None):
        raise DamagedIndexError(catalog.path, found)
    with explained(path):
        path.unlink()
        fsync_directory(path.parent)


def remove_unfinished(directory: Path) -> None:
    """Remove unfinished files that a killed writer left in `directory`. The caller holds the lock."""
    remove_abandoned(directory, _UNFINISHED_OF, after_s=0)


def damage(copied: Path, *, rows: bool = False) -> Iterator[str]:
    """Yield why a copy cannot replace its manifest; nothing if it can. With `rows`, also yield how many rows are
    damaged, though such a copy can still be restored."""
    try:
        with closing(Catalog.read_copy(copied)) as copy:
            copy.fingerprint(), copy.state(), copy.tuning()
            yield from copy.damage()
            if rows and (lost := _count_lost_rows(copy)):
                yield f"{lost} of its rows are not as they were written"
    except DamagedIndexError as error:
        yield error.damage
    except StoreError as error:
        yield str(error)


def _count_lost_rows(copy: Catalog) -> int:
    images = sum(not row.whole for rows in copy.image_rows() for row in rows)
    return images + sum(not whole for rows in copy.file_rows() for _, whole in rows)


def take_back(catalog: CatalogWriter, images: Sequence[int]) -> set[int]:
    """Restore the damaged rows of these images from the copy of a manifest; return the ids of the restored images."""
    copied = backup_of(catalog.path)
    if not images or not is_own(copied) or next(damage(copied), None):
        return set()
    with closing(Catalog.read_copy(copied)) as copy, catalog.transaction():
        if not _is_copy_of(copy, catalog):
            return set()
        return {row[0] for row in copy.whole_rows(images) if catalog.put_back(row)}


def _is_copy_of(copy: Catalog, catalog: Catalog) -> bool:
    """Return whether `copy` is a copy of this index."""
    return (copy.fingerprint(), copy.state().created_at) == (catalog.fingerprint(), catalog.state().created_at)


def is_later(path: Path) -> bool:
    """Return whether the copy of the manifest at `path` can replace it, and holds the same state or a later one.

    Raises StoreError if the manifest cannot be read.
    """
    copied = backup_of(path)
    if not is_own(copied) or next(damage(copied), None):
        return False
    with closing(Catalog.read(path)) as catalog, closing(Catalog.read_copy(copied)) as copy:
        then, now = ((one.last_image(), one.state().updated_at) for one in (copy, catalog))
        return then >= now


def restore(path: Path, damage_of_manifest: str) -> Restored:
    """Replace the damaged manifest at `path` with its copy, and keep the damaged manifest beside it.

    The caller holds the lock. Raises StoreError if no copy can be used, or the disk has no room for another file; then
    the damaged manifest stays as it is. A kill at any instant leaves one of three states: the damaged manifest with its
    log; no manifest but its copy, which readers refuse and the next repair restores; or the restored manifest.
    """
    copied = backup_of(path)
    found, what = "there is none", "it"
    if is_own(copied):
        found, what = next(damage(copied), ""), "both"
    if found:
        raise StoreError(
            f"{path}: damaged ({damage_of_manifest}), and no copy can be restored ({copied.name}: {found}): it is left "
            f"as it is; move {what} away, and let `bt index` on your folders make the index again"
        )
    kept: Path | None = None

    def write(unfinished: Path) -> None:
        nonlocal kept
        shutil.copyfile(copied, unfinished)
        kept = _rename_damaged(path)

    with explained(path):
        remove_unfinished(path.parent)
        replace_file(path, write)
    with closing(Catalog.read_copy(copied)) as copy:
        counts = copy.counts()
        return Restored(kept, copy.count_images(), counts.files, copy.state().updated_at)


def _rename_damaged(path: Path) -> Path | None:
    """Rename a damaged manifest, then its log, so that SQLite finds neither. Returns its new path, None without one.

    The manifest goes first: without its log it may look like an older state that is sound.
    """
    kept, there = _unused_path(path), path.exists()
    if there:
        os.replace(path, kept)
        fsync_directory(path.parent)
    for suffix in ("-wal", "-journal"):
        if size_of(_with_suffix(path, suffix)):
            os.replace(_with_suffix(path, suffix), _with_suffix(kept, suffix))
    for suffix in ("-wal", "-journal", "-shm"):
        _with_suffix(path, suffix).unlink(missing_ok=True)
    fsync_directory(path.parent)
    return kept if there else None


def keep_log(path: Path) -> Path:
    """Copy the damaged log of a manifest, then let SQLite move its readable commits into the manifest.

    Returns the path of the copied log. The caller holds the lock. Raises StoreError if the disk has no room for the
    copy, or a reader needs the log.
    """
    with explained(path):
        kept = log_of(_unused_path(path))
        replace_file(kept, partial(shutil.copyfile, log_of(path)))
    try:
        if not _move_log(path):
            raise StoreError(f"{log_of(path)}: still in use by a search: run it again when that has ended")
    except StoreError:
        if size_of(log_of(path)) == size_of(kept):  # the log is still complete, so its copy is not needed
            with suppress(OSError):
                kept.unlink()
        raise
    return kept


def _move_log(path: Path) -> bool:
    """Move the commits in the log of a manifest into its file; return whether the log is then empty or missing.

    Raises StoreError if the disk refuses a write.
    """
    with (
        suppress(DamagedIndexError),
        explained(path),
        closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as db,
    ):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not size_of(log_of(path))


def _unused_path(path: Path) -> Path:
    """Return an unused path for a damaged manifest; the path of its log is unused, too."""
    number = int(time.time())
    while (kept := _with_suffix(path, f".damaged-{number}")).exists() or log_of(kept).exists():
        number += 1
    return kept


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
