"""Folders that were indexed and are away: one rule for what that means, and one wording.

A folder without any file, at any depth, looks like a disk that is not mounted. The index keeps what it has of such a
folder, and a search passes over it. Hidden files do not count: the system leaves them where a disk was.
"""

import os
from collections.abc import Callable
from pathlib import Path

KEPT = (
    "what the index has of it is kept: mount its disk; or, if it has moved, `bt index` its new place, which encodes "
    "nothing again; `bt forget` takes it out"
)


def known_place(path: Path, knows: Callable[[Path], bool]) -> Path | None:
    """A folder or file as an index `knows` it: by its own name, or by where its links lead."""
    places = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    return next((place for place in places if knows(place)), None)


def is_away(root: Path) -> bool:
    """Whether there is surely no file, of any kind but hidden, at or below a folder or file that was indexed."""
    folders = [os.fsencode(root)]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(b"."):
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
    """What to say of a folder or file that was indexed and is away."""
    return f"nothing found in {root}, so {KEPT}"
