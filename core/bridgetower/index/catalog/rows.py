"""What is read of a catalog: each a row, or what is counted over rows."""

from typing import NamedTuple

from bridgetower.records import File


class Known(NamedTuple):
    """What the index holds about a path; exactly one of `image` and `reason` is None."""

    size: int  # bytes
    mtime_ns: int
    image: int | None  # id of the image
    reason: str | None  # why the file was skipped


class State(NamedTuple):
    """The single row that says when the index changed and which vector file belongs to it."""

    created_at: int  # unix seconds
    updated_at: int
    generation: int  # 0: no vector file was published yet
    covered: int  # the vector file holds the images with id <= covered
    vectors_sha256: bytes | None
    images: int  # orphans included


class Tuning(NamedTuple):
    """How the vector file is searched, if not exactly, and how well that was found to do."""

    lists: int  # into which the vectors are sorted
    trained: int  # images that there were when the lists were chosen
    effort: int  # lists that a search reads
    candidates: int  # vectors that it then looks at again
    recall: float  # of the true 100 nearest, the share that is found, in [0, 1]
    texts: int  # queries that it was measured with
    pictures: int


class Entry(NamedTuple):
    """An image with all that the index holds of it."""

    hash: bytes  # SHA-256 of the content
    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken
    vector: bytes  # dim little-endian float16
    photos: tuple[File, ...]  # its files, sorted by the bytes of their paths


class Counts(NamedTuple):
    files: int  # that lead to an image
    images: int  # that have a file
    orphans: int  # images that have none
    skipped: int  # files


class ImageRow(NamedTuple):
    """What there is to check of an image; where `whole` is False, anything may stand here."""

    id: int
    hash: bytes
    vector: bytes
    whole: bool  # its sum is right


class Space(NamedTuple):
    """Bytes of the manifest."""

    used: int
    free: int  # inside the file, for rows that come
