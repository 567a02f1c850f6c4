"""Read and hash files in threads, ahead of the consumer; decode those again whose image is of an older decoding."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from bridgetower.errors import PictureError
from bridgetower.index.writer import Confirmed
from bridgetower.prefetch import ahead
from bridgetower.records import DECODING_VERSION, File, Refused

if TYPE_CHECKING:  # numpy and Pillow, which a run that decodes nothing again does without
    from bridgetower.pictures.decode_pool import DecodePool, Picture

READ_AHEAD = 500 * 1000**2  # bytes of read files in memory; the engine holds more
_SIDE = 32  # pixels of the square that is decoded again: a JPEG file is decoded at 1/8 of its size


@dataclass(frozen=True, slots=True)
class Content:
    """A file that was read."""

    file: File
    hash: bytes  # SHA-256
    data: bytes
    decoding: int | None = None  # of its image, if that is older than this program's, and gave other pixels


@dataclass(frozen=True, slots=True)
class Same:
    """A file whose image is of an older decoding, and gets the same pixels in this one."""

    file: File
    image: Confirmed


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that cannot be indexed."""

    file: File
    reason: str
    lasting: bool  # the cause is the content, so it is not tried again until the file changes


class DecodingCheck:
    """Worker processes that decode contents again. A context manager, which ends them."""

    def __init__(self, max_pixels: int | None) -> None:
        self._max_pixels = max_pixels
        self._resources = ExitStack()
        self._pool: DecodePool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._resources.close()

    def start(self) -> None:
        """Import the decoder; call it once before `decode`. Each process starts with the content that needs it."""
        if self._pool is None:
            from bridgetower.pictures.decode_pool import DecodePool
            from bridgetower.pictures.preprocess import Preprocessing

            small = Preprocessing(shortest_edge=_SIDE, crop_size=_SIDE, name="plain")
            self._pool = self._resources.enter_context(DecodePool(small, max_pixels=self._max_pixels))

    def decode(self, content: bytes) -> "Picture | Refused":
        """Decode a content; the `since` of the picture tells from which version on it gets its pixels.

        Threads may call it. Raises ProcessError, ResourceError.
        """
        assert self._pool is not None  # `start` was called
        return self._pool.decode(content)


def contents(
    threads: ThreadPoolExecutor,
    files: Iterable[File],
    decoding_of: Callable[[bytes], int | None],
    check: DecodingCheck | None,
) -> Iterator[Content | Same | Failed]:
    """Yield the content of each file, in order; without `check` none is decoded again.

    `decoding_of` returns the version of the decoding of the image with a hash, or None if there is no image; it is
    called in the thread of the consumer. Raises as `DecodingCheck.decode`.
    """
    window = os.cpu_count() or 1
    found = ahead(threads, _read, files, window, weigh=lambda file: file.size, most=READ_AHEAD)
    if check is None:
        return found

    def with_decodings(found: Iterable[Content | Failed]) -> Iterator[Content | Failed]:
        for item in found:
            if isinstance(item, Content):
                decoding = decoding_of(item.hash)
                if decoding is not None and decoding < DECODING_VERSION:
                    check.start()
                    item = replace(item, decoding=decoding)
            yield item

    return ahead(threads, partial(_check, check), with_decodings(found), window, weigh=_weight, most=READ_AHEAD)


def _read(file: File) -> Content | Failed:
    """Read a file; its status is that *before* the read, so that the next run sees a change made meanwhile."""
    from bridgetower.files.content import read

    with suppress(OSError):  # `read` raises with a better message
        file = replace(File.of(file.path, file.path.stat()), sidecars=file.sidecars)
    try:
        data = read(file.path)
    except PictureError as error:
        return Failed(file, error.reason, lasting=False)
    return Content(file, hashlib.sha256(data).digest(), data)


def _weight(item: Content | Failed) -> int:
    return len(item.data) if isinstance(item, Content) else 0


def _check(check: DecodingCheck, item: Content | Failed) -> Content | Same | Failed:
    if isinstance(item, Failed) or item.decoding is None:
        return item
    found = check.decode(item.data)
    if isinstance(found, Refused):
        return Failed(item.file, found.reason, lasting=found.lasting)
    return item if found.since > item.decoding else Same(item.file, Confirmed(item.hash, found.taken_at))
