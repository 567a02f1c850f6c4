"""The directory of an index: the names of its files, and whether a directory may hold an index."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bridgetower.errors import StoreError, UsageError
from bridgetower.files.lock import is_lock
from bridgetower.index.catalog.sqlite_errors import explained

MANIFEST = "manifest.sqlite"
LOCK = "writer.lock"
# Files that may stay when a manifest was removed. All are derived, so another index may be created beside them.
_DERIVED_NAMES = re.compile(
    r"writer\.lock|features|vectors-\d+\.(faiss|codes)(\.tmp)?|manifest\.sqlite[.-].*|manifest\.backup\.sqlite"
    r"|\.manifest\..*\.partial"
)
FEATURES = "features"


def require_place(directory: Path) -> None:
    """Raise StoreError if `directory` is a file or holds other files. A damaged index is accepted. Changes nothing."""
    with explained(directory):
        if not directory.exists():
            return
        if not directory.is_dir():
            raise StoreError(f"{directory}: a file, not a folder: name another place with --index DIR")
        names = {entry.name for entry in directory.iterdir()}
    # Without a manifest, only a lock that `bt` wrote proves that files with these names belong to an index.
    remains = LOCK in names and is_lock(directory / LOCK) and all(_DERIVED_NAMES.fullmatch(name) for name in names)
    if names and MANIFEST not in names and not remains:
        raise StoreError(f"{directory}: holds other files and no index: name another place with --index DIR")


def require_apart(directory: Path, paths: Iterable[Path]) -> None:
    """Raise UsageError if one of `paths` is the folder of the index or lies in it: its files are no pictures."""
    own = os.path.realpath(directory)
    for path in paths:
        if Path(os.path.realpath(path)).is_relative_to(own):
            raise UsageError(
                f"{path}: {'is' if os.path.realpath(path) == own else 'lies in'} the folder of the index itself: give "
                "the folders of your pictures, or keep the index in another place with --index DIR"
            )


def bytes_below(directory: Path) -> int:
    """Return the size of all files at and below `directory`, in bytes."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # a file that a writer removed meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
