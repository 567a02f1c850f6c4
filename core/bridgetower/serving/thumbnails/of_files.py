"""Make small pictures of files that the caller names, one after another."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from bridgetower import inputs
from bridgetower.errors import PictureError, UsageError
from bridgetower.files.content import read
from bridgetower.files.regular_files import is_in_cloud
from bridgetower.inputs import AnyPath
from bridgetower.prefetch import ahead, workers
from bridgetower.serving.thumbnails.pool import MOST_BYTES, MOST_PROCESSES, ThumbnailPool

_LEAST_BYTES, _LARGEST_SIDE = 2000, 4096  # the smallest JPEG file has some 600 bytes
_AHEAD = 2 * MOST_PROCESSES  # files


def thumbnails(
    paths: Iterable[AnyPath], side: int = 256, *, most_bytes: int | None = None
) -> Iterator[bytes | PictureError]:
    """Yield for each picture file, in order, an upright JPEG file in sRGB, or the PictureError of one that has none.

    A thumbnail is at most `side` pixels long and wide, 1 to 4096, and has at most `most_bytes`, 2000 or more; None for
    any number. Worker processes decode, so that a damaged file harms nothing else. A file whose content is in the cloud
    only is not opened. Raises UsageError at once, ResourceError later.
    """
    side, most = inputs.whole("side", side, least=1), inputs.whole_or_none("most_bytes", most_bytes)
    if side > _LARGEST_SIDE:
        raise UsageError(f"side={side}: at most {_LARGEST_SIDE} pixels are made")
    if most is not None and most < _LEAST_BYTES:
        raise UsageError(f"most_bytes={most}: at least {_LEAST_BYTES} are needed")
    return _made(inputs.list_of_paths(paths), side, MOST_BYTES if most is None else min(most, MOST_BYTES))


def _made(paths: list[Path], side: int, most: int) -> Iterator[bytes | PictureError]:
    with ThumbnailPool() as pool, workers(number=MOST_PROCESSES) as threads:
        yield from ahead(threads, partial(_thumbnail, pool, side, most), paths, _AHEAD)


def _thumbnail(pool: ThumbnailPool, side: int, most: int, path: Path) -> bytes | PictureError:
    try:
        if _is_in_cloud(path):
            return PictureError(path, "its content is in the cloud only")
        return pool.thumbnail(read(path), path, side, most)
    except PictureError as error:
        return error


def _is_in_cloud(path: Path) -> bool:
    try:
        return is_in_cloud(os.stat(path))
    except (OSError, ValueError):  # `read` says why
        return False
