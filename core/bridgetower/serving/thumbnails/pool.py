"""Make small JPEG files of pictures in worker processes, guarded as those of `decode_pool`."""

import sys
import threading
from pathlib import Path
from typing import IO

from bridgetower.pictures.decode_pool import WorkerPool, error_of, read_refusal
from bridgetower.pictures.decode_worker import HEADER, PICTURE
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Refused
from bridgetower.serving.thumbnails.worker import WANTED

_COMMAND = (sys.executable, "-P", "-m", "bridgetower.serving.thumbnails.worker")
MOST_PROCESSES = 2  # a picture of the largest size takes gigabytes
MOST_BYTES = 2**32 - 1
_NO_PIXELS = Preprocessing(1, 1)  # the processes make no pixels


class ThumbnailPool(WorkerPool):
    """Processes that make thumbnails."""

    def __init__(self) -> None:
        super().__init__(_NO_PIXELS, command=_COMMAND)
        self._turns = threading.Semaphore(MOST_PROCESSES)

    def thumbnail(self, content: bytes, name: Path, side: int, most: int = MOST_BYTES) -> bytes:
        """Return an upright JPEG file in sRGB, at most `side` pixels long and wide and of at most `most` bytes, of the
        content of a file.

        Threads may call it. Raises PictureError of `name` (PixelLimitError, MissingExtraError), ResourceError.
        """
        with self._turns:
            found = self.ask(WANTED.pack(side, most) + content, _read)
        if isinstance(found, Refused):
            raise error_of(found, name)
        return found


def _read(source: IO[bytes]) -> bytes | Refused:
    kind, *_, length = HEADER.unpack(source.read(HEADER.size))
    if kind != PICTURE:
        return read_refusal(source, kind, length)
    made = source.read(length)
    if len(made) < length:
        raise ValueError("the answer is incomplete")
    return made
