"""Map paths of another machine to paths on this one."""

import os
from collections.abc import Mapping
from pathlib import Path

PathMap = Mapping[str, Path]  # the beginning of a path there -> its folder on this machine


class PathMapper:
    """Maps a path to this machine. Raises ValueError for a path that is impossible here."""

    def __init__(self, moves: PathMap) -> None:
        self._moves = sorted(moves.items(), key=lambda move: -len(move[0]))  # the longest key that fits decides
        self.unused = set(moves)
        self.separator = os.sep  # between the names in an incoming path

    def __call__(self, path: str, *, below: Path | None = None) -> str:
        """Return the absolute path here. Relative paths lie below `below`; without it they raise ValueError."""
        here = path
        for old, new in self._moves:
            start = old.rstrip(self.separator)
            if path == start or path.startswith(start + self.separator):
                self.unused.discard(old)
                here = os.path.join(new, path[len(start) + 1 :].replace(self.separator, os.sep))
                break
        if below is not None:
            here = os.path.join(below, here)
        elif not os.path.isabs(here):
            raise ValueError(f"the path {path!r} is not absolute on this machine: say where it lies with --map OLD=NEW")
        try:
            os.fsencode(here)
        except UnicodeEncodeError as error:
            raise ValueError(f"the path {path!r} cannot be one of a file") from error
        if "\0" in here:
            raise ValueError(f"the path {path!r} cannot be one of a file")
        return os.path.abspath(here)
