"""Roots that are away: one rule that decides it, and one message about it.

A folder without any file, at any depth, looks like a disk that is not mounted. The index keeps what it has of such a
folder, and a search passes over it. Hidden files do not count: the system leaves them where a disk was. The stubs of
iCloud do.
"""

import os
from collections.abc import Callable
from pathlib import Path

from bridgetower.files.regular_files import named_by_stub

KEPT = (
    "what the index has of it is kept: mount its disk; or, if it has moved, `bt index` its new place, which encodes "
    "nothing again; `bt forget` takes it out"
)


def known_place(path: Path, knows: Callable[[Path], bool]) -> Path | None:
    """Return the path under which an index `knows` a folder or file: its own or its real path; None if neither."""
    places = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    return next((place for place in places if knows(place)), None)


def is_away(root: Path) -> bool:
    """Return whether there is surely no file, of any kind but hidden, at or below a root. False on any other error."""
    folders = [os.fsencode(root)]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(b".") and named_by_stub(entry.name) is None:
                        continue
                    if not entry.is_dir(follow_symlinks=False):
                        return False
                    folders.append(entry.path)
    except NotADirectoryError:
        return not root.exists()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return True


def nothing_in(root: Path | str) -> str:
    """Return the message about a root that is away."""
    return f"nothing found in {root}, so {KEPT}"
