"""Recall: the pictures of an index in the order of their similarity to a vector, as far as anyone asks."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from bridgetower.encoder import Vectors
from bridgetower.pictures import Kept
from bridgetower.records import EVERYTHING, Filter, Photo, Skipped
from bridgetower.store import Store


class Candidates:
    """The pictures of an index by similarity, each under the first of its files that is there.

    A picture whose files are gone, or may not be looked at, is no candidate: the next one takes its place.
    """

    def __init__(self, store: Store, query: Vectors, kept: Kept | None = None, filter: Filter = EVERYTHING) -> None:
        """`query` is a unit vector [1, E]. Taking from it may raise StoreError.

        `kept` is told the content of each file that is as the index knows it.
        """
        self._store, self._nearest = store, store.nearest(query, filter)
        self._kept = kept
        self.gone: list[Path] = []  # pictures that were passed over, as none of their files is there: one file of each
        self.barred: list[Skipped] = []  # the same, as what may be there cannot be looked at

    def take(self, number: int) -> dict[Path, float]:
        """The next pictures and their similarities; fewer than `number` only at the end of the index."""
        taken: dict[Path, float] = {}
        while len(taken) < number and (candidate := next(self._nearest, None)) is not None:
            there = _first_there(candidate.photos)
            if isinstance(there, Skipped):
                self.barred.append(there)
                continue
            if there is None:
                self.gone.append(candidate.photos[0].path)
                continue
            taken[there.path] = candidate.similarity
            if self._kept is not None and _unchanged(there):
                self._kept.contents[there.path] = candidate.content
        return taken

    def away(self) -> tuple[Path, ...]:
        """Of what was indexed, the folders that pictures are gone from and in which nothing at all is now, as where a
        disk is not mounted."""
        manifest = self._store.manifest
        roots = [root for root, _, whole in manifest.root_rows() if whole] if self.gone else []
        folders = {root if manifest.known(root) is None else root.parent for root in roots}
        empty = filter(_is_empty, sorted(folders))
        return tuple(folder for folder in empty if any(path.is_relative_to(folder) for path in self.gone))


def _first_there(photos: Iterable[Photo]) -> Photo | Skipped | None:
    """The first file that is there; if there is none, one that cannot be looked at."""
    barred = None
    for photo in photos:
        try:
            if stat.S_ISREG(os.stat(photo.path).st_mode):
                return photo
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            barred = barred or Skipped(photo.path, error.strerror or str(error))
    return barred


def _is_empty(root: Path) -> bool:
    """Whether there is surely nothing at and below `root`."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is None
    except NotADirectoryError:
        return not root.exists()
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def _unchanged(photo: Photo) -> bool:
    try:
        status = photo.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (photo.size, photo.mtime_ns)
