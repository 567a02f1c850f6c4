"""The copy of a manifest beside it: made at the end of a run, checked, and put in the place of a damaged manifest.

A run renews the copy when more than one in `_BEHIND` images was added, forgotten or removed since. How many that were
is derived by comparing the two, so that a run that was killed cannot lose the number. Whatever takes pictures out of an
index on purpose removes the copy before: nothing that was forgotten comes back with it.
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
from bridgetower.files.regular import is_own, require_own
from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.sqlite_errors import explained, size_of
from bridgetower.index.catalog.write_ahead_log import log_of
from bridgetower.index.catalog.writer import CatalogWriter

_BEHIND = 20
# What `replace_file` may leave of these when it is killed.
_REPLACED = r"manifest\.sqlite|manifest\.backup\.sqlite|manifest\.sqlite\.damaged-\d+-wal"


class Restored(NamedTuple):
    """A copy that has taken the place of a damaged manifest."""

    kept: Path | None  # where the damaged one is now; None where there was none
    images: int  # that the copy has
    files: int  # that lead to one of them
    updated_at: int  # unix seconds of the last change that it has


def is_behind(catalog: Catalog) -> bool:
    """Whether the copy of a manifest lacks too much of it, is none of this index, cannot be read, or is not there.

    A manifest without images needs none. Raises StoreError where the manifest itself cannot be read.
    """
    images, orphans = catalog.count_images(), catalog.count_orphans()
    copied = backup_of(catalog.path)
    if not is_own(copied):
        return images > 0
    try:
        with closing(Catalog.read_copy(copied)) as copy:
            if not _is_of(copy, catalog):
                return True
            images_then, last, orphans_then = copy.count_images(), copy.last_image(), copy.count_orphans()
    except StoreError:
        return True
    added = catalog.count_images(after=last)
    removed = images_then + added - images
    return (added + abs(removed) + abs(orphans - orphans_then)) * _BEHIND > images


def make(catalog: CatalogWriter) -> None:
    """Copy a manifest; the copy from before goes when the new one is whole and on the disk.

    Raises StoreError: the disk has no room or says no, or the manifest is damaged. The copy from before stays then.
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
            raise DamagedIndexError(catalog.path, "its copy says that something else made the vectors")


def remove(catalog: Catalog) -> None:
    """Remove the copy of a manifest, before something is taken out of the index that must not come back.

    Raises DamagedIndexError, and leaves the copy, where it is needed; StoreError where it cannot be removed.
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
    """Remove what a writer that was killed has left of a file in `directory`. The caller holds the lock."""
    remove_abandoned(directory, _REPLACED, after_s=0)


def damage(copied: Path, *, rows: bool = False) -> Iterator[str]:
    """Why a copy cannot take the place of its manifest; nothing where it can. With `rows` also whether those are whole:
    a copy in which some are not is better than none."""
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
    """Give images of a manifest whose rows are damaged the rows that its copy has of them; which ones it has."""
    copied = backup_of(catalog.path)
    if not images or not is_own(copied) or next(damage(copied), None):
        return set()
    with closing(Catalog.read_copy(copied)) as copy, catalog.transaction():
        if not _is_of(copy, catalog):
            return set()
        return {row[0] for row in copy.whole_rows(images) if catalog.put_back(row)}


def _is_of(copy: Catalog, catalog: Catalog) -> bool:
    """Whether one is the copy of the other, and not of another index."""
    return (copy.fingerprint(), copy.state().created_at) == (catalog.fingerprint(), catalog.state().created_at)


def is_later(path: Path) -> bool:
    """Whether the copy of the manifest at `path` can take its place, and was made of this state or of a later one.

    Raises StoreError where the manifest cannot be read.
    """
    copied = backup_of(path)
    if not is_own(copied) or next(damage(copied), None):
        return False
    with closing(Catalog.read(path)) as catalog, closing(Catalog.read_copy(copied)) as copy:
        then, now = ((one.last_image(), one.state().updated_at) for one in (copy, catalog))
        return then >= now


def restore(path: Path, damage_of_manifest: str) -> Restored:
    """Put the copy of the damaged manifest at `path` in its place, and keep the damaged one beside it.

    The caller holds the lock. Raises StoreError where no copy can be used, or the disk has no room for another; then
    the damaged one is left as it is. Whenever this is killed, the damaged manifest is there with its log, or none is
    and the copy is still there, which is refused and restored by the next repair; or the restored one is.
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
        kept = _set_aside(path)

    with explained(path):
        remove_unfinished(path.parent)
        replace_file(path, write)
    with closing(Catalog.read_copy(copied)) as copy:
        counts = copy.counts()
        return Restored(kept, copy.count_images(), counts.files, copy.state().updated_at)


def _set_aside(path: Path) -> Path | None:
    """Give a damaged manifest another name, then its log, so that SQLite finds neither; where the manifest is now.

    In this order: without its log the manifest may look like an older state that is sound.
    """
    kept, there = _kept(path), path.exists()
    if there:
        os.replace(path, kept)
        fsync_directory(path.parent)
    for suffix in ("-wal", "-journal"):
        if size_of(_beside(path, suffix)):
            os.replace(_beside(path, suffix), _beside(kept, suffix))
    for suffix in ("-wal", "-journal", "-shm"):
        _beside(path, suffix).unlink(missing_ok=True)
    fsync_directory(path.parent)
    return kept if there else None


def keep_log(path: Path) -> Path:
    """Copy the damaged log of a manifest, then have SQLite put into the manifest what it can read of it; the copy.

    The caller holds the lock. Raises StoreError where the disk has no room for the copy, or a reader needs the log.
    """
    with explained(path):
        kept = log_of(_kept(path))
        replace_file(kept, partial(shutil.copyfile, log_of(path)))
    try:
        if not _fold(path):
            raise StoreError(f"{log_of(path)}: still in use by a search: run it again when that has ended")
    except StoreError:
        if size_of(log_of(path)) == size_of(kept):  # the log is still there as a whole
            with suppress(OSError):
                kept.unlink()
        raise
    return kept


def _fold(path: Path) -> bool:
    """Put what the log of a manifest holds into its file; whether the log is empty, or none is there, after that.

    StoreError where the disk does not take it.
    """
    with (
        suppress(DamagedIndexError),
        explained(path),
        closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as db,
    ):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not size_of(log_of(path))


def _kept(path: Path) -> Path:
    """A name for a manifest that is kept, which nothing has yet; nor has the log that goes with it."""
    number = int(time.time())
    while (kept := _beside(path, f".damaged-{number}")).exists() or log_of(kept).exists():
        number += 1
    return kept


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
