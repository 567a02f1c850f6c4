"""The directory of an index: what lies in it, and whether one may stand there."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bridgetower.errors import StoreError, UsageError
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.index.lock import is_lock

MANIFEST = "manifest.sqlite"
LOCK = "writer.lock"
# What is left where a manifest was removed: all of it derived, so that another index may stand there.
_REMAINS = re.compile(
    r"writer\.lock|features|vectors-\d+\.(faiss|codes)(\.tmp)?|manifest\.sqlite[.-].*|manifest\.backup\.sqlite"
    r"|\.manifest\..*\.partial"
)
FEATURES = "features"


def require_place(directory: Path) -> None:
    """Raise StoreError where no index can stand because something else does; a damaged one may. Changes nothing."""
    with explained(directory):
        if not directory.exists():
            return
        if not directory.is_dir():
            raise StoreError(f"{directory}: a file, not a folder: name another place with --index DIR")
        names = {entry.name for entry in directory.iterdir()}
    # Without a manifest, the lock shows that what has the names of ours is what is left of an index.
    remains = LOCK in names and is_lock(directory / LOCK) and all(_REMAINS.fullmatch(name) for name in names)
    if names and MANIFEST not in names and not remains:
        raise StoreError(f"{directory}: holds other files and no index: name another place with --index DIR")


def require_apart(directory: Path, paths: Iterable[Path]) -> None:
    """Raise UsageError where one of `paths` is the folder of the index or lies in it: the files there are its own."""
    own = os.path.realpath(directory)
    for path in paths:
        if Path(os.path.realpath(path)).is_relative_to(own):
            raise UsageError(
                f"{path}: {'is' if os.path.realpath(path) == own else 'lies in'} the folder of the index itself: give "
                "the folders of your pictures, or keep the index in another place with --index DIR"
            )


def bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # a file that a writer removed meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
