"""Types of the results of queries on a catalog: rows, and counts of rows."""

from pathlib import Path
from typing import NamedTuple

from bridgetower.records import File, path_of


class Known(NamedTuple):
    """The row of a file; exactly one of `image` and `reason` is None."""

    file: File
    image: int | None  # id of the image
    reason: str | None  # why the file was skipped


class Image(NamedTuple):
    """An image without its vector."""

    id: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken, from the content
    decoding: int  # version of the decoding that its pixels agree with; 0 if unknown


class State(NamedTuple):
    """The single row of the table `state`: when the index changed, and which vector file belongs to it."""

    created_at: int  # unix seconds
    updated_at: int
    generation: int  # 0: no vector file was published yet
    covered: int  # the vector file holds the images with id <= covered
    vectors_sha256: bytes | None
    images: int  # orphans included


class Tuning(NamedTuple):
    """How the vector file is searched approximately, and the measured recall."""

    lists: int  # that the vectors are sorted into; 0 in a database
    trained: int  # images in the index when the lists were trained; in a database, when recall was measured
    effort: int  # lists that a search reads; in a database, `Effort.effort`
    candidates: int  # vectors that a search then scores again
    recall: float  # recall@100: share of the exact 100 nearest that is found, in [0, 1]
    texts: int  # queries that recall was measured with
    pictures: int  # likewise


class StoreRow(NamedTuple):
    """The database that recalls for the index, in place of vector files."""

    address: str  # its URL, without a password
    name: str  # of the table in it
    home: str  # which directory on which machine the table was made for; a copy of the index has another
    token: int  # of the stamp that the publication under way writes, or the last one wrote
    previous: int  # of the stamp that it found
    arrangement: str = ""  # how the table is arranged for search, in words; "" before the first time


class Keeping(NamedTuple):
    """Which features of images the index keeps."""

    capacity: int  # bytes, of all features in the folder of the index
    under: bytes | None  # only of images with a file at or below this path; None for all
    made_by: str | None  # `Judge.features_id` of those that are kept; None before the first

    @property
    def place(self) -> Path | None:
        return None if self.under is None else path_of(self.under)


class Entry(NamedTuple):
    """An image with its vector and its files."""

    hash: bytes  # SHA-256 of the content
    width: int  # upright pixels
    height: int
    taken_at: int | None  # seconds since 1970 on the clock where it was taken
    decoding: int  # version of the decoding that its pixels agree with; 0 if unknown
    vector: bytes  # dim little-endian float16
    files: tuple[File, ...]  # its files, sorted by the bytes of their paths


class Counts(NamedTuple):
    """Numbers of files and images."""

    files: int  # that have an image
    images: int  # that have a file
    orphans: int  # images that have no file
    skipped: int  # files


class Folder(NamedTuple):
    """A folder that holds files of the index, at any depth; or a root, which may be a file."""

    path: Path  # absolute
    files: int  # at or below it that have an image


class ImageRow(NamedTuple):
    """The columns of an image that a check reads; if `whole` is false, they may have any value."""

    id: int
    hash: bytes
    vector: bytes
    whole: bool  # whether the sum of the row is right


class Space(NamedTuple):
    """Bytes of the manifest."""

    used: int
    free: int  # inside the file, for new rows
