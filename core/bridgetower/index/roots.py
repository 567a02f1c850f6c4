"""Roots that are away: one rule that decides it, and one message about it.

An empty folder looks like the mount point of a disk that is not mounted. So the index keeps the files of such a root,
and a search passes over them.
"""

import os
from collections.abc import Callable
from pathlib import Path

KEPT = (
    "what the index has of it is kept: mount its disk; or, if it has moved, `bt index` its new place, which encodes "
    "nothing again; `bt forget` takes it out"
)


def known_place(path: Path, knows: Callable[[Path], bool]) -> Path | None:
    """Return the path under which an index `knows` a folder or file: its own or its real path; None if neither."""
    places = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    return next((place for place in places if knows(place)), None)


def is_away(root: Path) -> bool:
    """Return whether a root surely has no file: it is missing, or an empty folder. False on any other error."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is None
    except NotADirectoryError:
        return not root.exists()
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def nothing_in(root: Path | str) -> str:
    """Return the message about a root that is away."""
    return f"nothing found in {root}, so {KEPT}"
