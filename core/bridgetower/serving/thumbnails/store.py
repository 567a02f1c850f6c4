"""Keep small pictures on disk: one JPEG file for each picture and side, the least recently used removed first."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bridgetower.errors import ResourceError
from bridgetower.files.atomic import remove_abandoned, replace_file
from bridgetower.serving.thumbnails.pool import ThumbnailPool

SIDES = (128, 256, 512, 1024, 2048)  # pixels; few, so that nearly equal wishes share a file
MOST_BYTES = 1_000_000_000  # of all files

_LEFT = 0.9  # of MOST_BYTES, after the least recently used files are removed
_COUNT_AFTER = 0.05  # of MOST_BYTES, in new files: other servers add files, too
_FRESH_S = 3600.0  # the time of a use is written no more often
_VERSION = "1"  # a folder; another one when thumbnails of the same picture would look otherwise
_FORM = r"[0-9a-f]{64}-[0-9]+\.jpg"
_END = b"\xff\xd9"  # of every whole JPEG file


def side_of(wanted: int) -> int:
    """Return the least of SIDES that is no less than the wanted one."""
    return next((side for side in SIDES if side >= wanted), SIDES[-1])


class Thumbnails:
    """Thumbnails in a folder, made on demand. Threads, and servers, may share it."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        """The folder is made with the first thumbnail."""
        self._folder, self._most = folder / _VERSION, most_bytes
        self._lock = threading.Lock()
        self._pool = ThumbnailPool()
        self._held: int | None = None  # bytes of the files when they were counted; None: not counted yet
        self._added = 0  # bytes since then

    def get(self, id: str, side: int, read: Callable[[], bytes], name: Path) -> bytes:
        """Return the JPEG file of the picture with this id, at most `side` pixels long and wide; `side` is in SIDES.

        `read` returns the content of the picture, unless the thumbnail is kept. Raises as `read` does, PictureError of
        `name`, ResourceError. A disk that takes no file, or has kept a part of one, costs time alone.
        """
        file = self._folder / id[:2] / f"{id}-{side}.jpg"
        with suppress(OSError):
            kept = file.read_bytes()
            if kept.endswith(_END):
                if time.time() - file.stat().st_mtime > _FRESH_S:
                    os.utime(file)
                return kept
        made = self._pool.thumbnail(read(), name, side)
        with suppress(OSError, ResourceError):
            for folder in (self._folder.parent, self._folder, file.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is for the last level alone
            replace_file(file, lambda unfinished: unfinished.write_bytes(made))
            self._add(len(made))
        return made

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def _add(self, size: int) -> None:
        """Count a new file, and remove the least recently used ones if all take too much."""
        with self._lock:
            self._added += size
            if self._held is None or self._held + self._added > self._most or self._added > _COUNT_AFTER * self._most:
                self._held, self._added = self._reduce(), 0

    def _reduce(self) -> int:
        """Return the bytes of all files after the least recently used are removed, if need be."""
        files = []
        for folder in self._folder.iterdir():
            remove_abandoned(folder, _FORM)
            for file in folder.glob("*.jpg"):
                with suppress(OSError):  # another server has removed it
                    status = file.stat()
                    files.append((status.st_mtime, status.st_size, file))
        held = sum(size for _, size, _ in files)
        if held <= self._most:
            return held
        for _, size, file in sorted(files):
            with suppress(OSError):
                file.unlink()
            held -= size
            if held <= _LEFT * self._most:
                break
        return held
