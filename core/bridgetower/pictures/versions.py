"""Tell which version of the decoding gives a picture the pixels it gets, so that an index learns of better ones.

`bridgetower.records.DECODING_VERSION` is the version of this code. Code that gives some pictures other pixels than the
version before calls `changed_in` with the new version, where it does so; most pictures pass no such place, and their
pixels are those of version 0.

    1   profiles and code points of colours; transparency of deep PNG files; parts of the canvas that a frame leaves
        out; the first frame that is not blank; the ground of white ink; rare samples in TIFF and FITS; the page of TIFF
        files; the aperture of AVIF; all that the extras read
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Since:
    """The first version that gives a picture the pixels that it gets."""

    version = 0


_decoding: ContextVar[Since | None] = ContextVar("_decoding", default=None)


@contextmanager
def recorded() -> Iterator[Since]:
    """Record the calls of `changed_in` in this block, which decodes one picture."""
    since = Since()
    token = _decoding.set(since)
    try:
        yield since
    finally:
        _decoding.reset(token)


def changed_in(version: int) -> None:
    """Note that the picture that is being decoded gets other pixels than before this version."""
    since = _decoding.get()
    if since is not None:
        since.version = max(since.version, version)
