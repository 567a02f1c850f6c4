"""Read, hash and date files in threads, ahead of the consumer; decode again those whose image is of an older decoding.

docs/dates.md says where the date of a picture is looked for, and which one counts.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bridgetower.errors import PictureError
from bridgetower.files.regular_files import is_in_cloud, open_regular
from bridgetower.files.walk import SIDECAR_EXTENSIONS
from bridgetower.index.catalog.rows import Image
from bridgetower.index.writer import Confirmed
from bridgetower.pictures.dates.order import Source, Taken, first_of
from bridgetower.prefetch import ahead
from bridgetower.records import DECODING_VERSION, File, Refused

if TYPE_CHECKING:  # numpy and Pillow, which a run that decodes nothing again does without
    from bridgetower.pictures.decode_pool import DecodePool, Picture

_LONGEST_SIDECAR = 10_000_000  # bytes; those of editors with masks have some 100 kB
_OVER_LIMIT = re.compile(r".* megapixels, more than the limit of ([0-9.,e+-]+); --max-pixels raises it")
READ_AHEAD = 500 * 1000**2  # bytes of read files in memory; the engine holds more
_SIDE = 32  # pixels of the square that is decoded again: a JPEG file is decoded at 1/8 of its size


@dataclass(frozen=True, slots=True)
class Dated:
    """A file with the dates that were found: in its content, and in its name and its sidecars."""

    file: File
    inside: Sequence[Taken]
    beside: Sequence[Taken]

    def taken_at(self, decoded: int | None) -> int | None:
        """Return the date of the content; `decoded` is that of the decoder, which looks in some more places."""
        inside = first_of(self.inside)
        return decoded if inside is None else inside.at

    def with_date(self, decoded: int | None) -> File:
        """Return the file, with a date of its own where another than that of the content counts."""
        inside = self.inside
        if not inside and decoded is not None:
            inside = (Taken(Source.EXIF_ORIGINAL, decoded),)
        date = first_of((*inside, *self.beside))
        is_own = date is not None and date.at != self.taken_at(decoded)
        return replace(self.file, taken_at=date.at if date is not None and is_own else None)


@dataclass(frozen=True, slots=True)
class Content:
    """A file that was read."""

    found: Dated
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
    image_of: Callable[[bytes], Image | None],
    check: DecodingCheck | None,
) -> Iterator[Content | Same | Failed]:
    """Yield the content of each file, in order; without `check` none is decoded again.

    `image_of` returns the image with a hash, or None if there is none; it is called in the thread of the consumer.
    Raises as `DecodingCheck.decode`.
    """
    window = os.cpu_count() or 1
    read = partial(_read, lru_cache(maxsize=window)(_sidecars_in))
    found = ahead(threads, read, files, window, weigh=lambda file: file.size, most=READ_AHEAD)
    if check is None:
        return found

    def with_decodings(found: Iterable[Content | Failed]) -> Iterator[Content | Failed]:
        for item in found:
            if isinstance(item, Content):
                image = image_of(item.hash)
                if image is not None and image.decoding < DECODING_VERSION:
                    check.start()
                    item = replace(item, decoding=image.decoding)
            yield item

    return ahead(threads, partial(_check, check), with_decodings(found), window, weigh=_weight, most=READ_AHEAD)


def _read(sidecars_in: Callable[[Path], frozenset[str]], file: File) -> Content | Failed:
    """Read a file; its status is that *before* the read, so that the next run sees a change made meanwhile."""
    from bridgetower.files.content import read
    from bridgetower.pictures.dates.content import dates
    from bridgetower.pictures.dates.names import taken_in_name

    with suppress(OSError):  # `read` raises with a better message
        status = file.path.stat()
        if is_in_cloud(status):  # since the walk
            return Failed(file, "its content is in the cloud only", lasting=False)
        file = replace(File.of(file.path, status), sidecars=file.sidecars)
    try:
        data = read(file.path)
    except PictureError as error:
        return Failed(file, error.reason, lasting=False)
    beside = [taken_in_name(file.path.name)]
    if file.sidecars:
        beside += _sidecar_dates(file.path, sidecars_in(file.path.parent))
    found = Dated(file, tuple(dates(data)), tuple(date for date in beside if date is not None))
    return Content(found, hashlib.sha256(data).digest(), data)


def sidecars_of(name: str, names: Collection[str]) -> Sequence[str]:
    """Return those of `names` that are sidecars of the picture `name`, best first."""
    from bridgetower.pictures.dates import sidecars

    return sidecars.sidecars_of(name, names)


def _sidecars_in(folder: Path) -> frozenset[str]:
    with suppress(OSError):
        return frozenset(name for name in os.listdir(folder) if name.endswith(SIDECAR_EXTENSIONS))
    return frozenset()


def _sidecar_dates(path: Path, names: frozenset[str]) -> "Iterator[Taken | None]":
    """Yield the dates in the sidecars of a picture; one that is too large, in the cloud or unreadable tells none."""
    from bridgetower.pictures.dates.sidecars import taken_in_sidecar

    for name in sidecars_of(path.name, names):
        sidecar = path.with_name(name)
        with suppress(OSError, ValueError):
            if is_in_cloud(sidecar.stat()):
                continue
        with suppress(OSError, ValueError), open_regular(sidecar) as file:
            data = file.read(_LONGEST_SIDECAR + 1)
            if len(data) <= _LONGEST_SIDECAR:
                yield taken_in_sidecar(data)


def still_holds(max_pixels: int | None) -> Callable[[str], bool]:
    """Return a function that tells whether the reason for which a file was skipped still holds: not where its extra is
    installed by now, or where this run takes pictures of more pixels than the limit of the reason."""
    from bridgetower.pictures.extras.extra import Extra, needed

    installed = {extra for extra in Extra if extra.is_installed()}

    def holds(reason: str) -> bool:
        if (extra := needed(reason)) is not None:
            return extra not in installed
        if (found := _OVER_LIMIT.fullmatch(reason)) is None:
            return True
        from bridgetower.pictures.decode import MAX_PIXELS, megapixels

        return float(found[1].replace(",", "")) >= float(megapixels(max_pixels or MAX_PIXELS).replace(",", ""))

    return holds


def _weight(item: Content | Failed) -> int:
    return len(item.data) if isinstance(item, Content) else 0


def _check(check: DecodingCheck, item: Content | Failed) -> Content | Same | Failed:
    if isinstance(item, Failed) or item.decoding is None:
        return item
    found = check.decode(item.data)
    if isinstance(found, Refused):
        from bridgetower.pictures.decode_worker import OVER_LIMIT

        # The image may be of a run with a higher limit: it stays.
        lasting = found.lasting and not found.reason.endswith(OVER_LIMIT)
        return Failed(item.found.file, found.reason, lasting=lasting)
    if found.since > item.decoding:
        return item
    image = Confirmed(item.hash, item.found.taken_at(found.taken_at))
    return Same(item.found.with_date(found.taken_at), image)
