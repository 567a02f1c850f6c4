"""Folders -> index: scan -> read + hash -> decode -> preprocess -> embed -> commit, batch by batch.

Threads read and hash, processes decode, ahead of the encoder, through a window of bounded size; this thread alone talks
to the encoder and to the index. A file whose size and time are as the index knows them is not opened; a file whose
content is known is not decoded. Killing the process loses the batch in flight and nothing else.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bridgetower.ahead import ahead, workers
from bridgetower.decode import MAX_PIXELS, read
from bridgetower.decoders import Decoders, Picture, Refused
from bridgetower.encoder import Encoder, Runtime
from bridgetower.errors import PictureError
from bridgetower.preprocess import Preprocessing
from bridgetower.records import Photo, Skipped
from bridgetower.scan import passes_over, scan
from bridgetower.store import NewImage, Writer

BATCH_SIZE = 16  # pictures that are encoded and committed together, on a CPU
COMMIT_FILES = 1024  # files without a new picture that are committed together
READ_AHEAD = 500 * 1000**2  # bytes of files in memory: those that are read, and again those that wait to be decoded


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, in files."""

    done: int
    total: int
    encoded: int  # pictures that went through the network
    skipped: int


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run did."""

    files: int  # picture files that were met, skipped ones included
    encoded: int  # new pictures
    reused: int  # files whose content the index had: copies, renames, restored files
    unchanged: int
    removed: int  # files that are gone
    skipped: tuple[Skipped, ...]
    ignored: Mapping[str, int]  # files that were passed over for their extension, by extension in lower case
    absent: tuple[Path, ...]  # folders in which nothing was met though the index has files there: all kept


@dataclass(frozen=True, slots=True)
class _Content:
    """A file that was read."""

    photo: Photo
    hash: bytes  # SHA-256
    data: bytes


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file that the threads are done with."""

    photo: Photo
    hash: bytes
    picture: Picture | None  # None where the index has the content


@dataclass(frozen=True, slots=True)
class _Failed:
    """A file that is no picture for us."""

    photo: Photo
    reason: str
    lasting: bool  # it lies in the content, so it need not be tried again until the file changes


def batch_size(runtime: Runtime) -> int:
    """How many pictures are worth encoding together on this device."""
    return 8 * BATCH_SIZE if runtime.device == "cuda" else BATCH_SIZE


def index(
    paths: Sequence[Path],
    writer: Writer,
    preprocessing: Preprocessing,
    load_encoder: Callable[[], Encoder],
    *,
    batch_size: int = BATCH_SIZE,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> IndexReport:
    """Bring the index up to date with the files in and at `paths`.

    `load_encoder` is called once, and only if there is something to encode; `batch_size` pictures are encoded and
    committed together; those of more than `max_pixels` are skipped. Raises InputError where one of `paths` does not
    exist, ModelError from `load_encoder`, StoreError where the index cannot be written, ProcessError where pictures
    cannot be decoded in processes of their own. On any exception, also KeyboardInterrupt, what was committed stays and
    nothing is taken for deleted.
    """
    ignored: Counter[str] = Counter()
    found = list(scan(paths, ignored=ignored))
    roots = sorted({Path(os.path.abspath(path)) for path in paths})
    for root in roots:
        writer.add_root(root)
    run = _Run(writer, load_encoder, batch_size, len(found), on_progress)
    try:
        # Two batches: one is being filled while the other is encoded.
        changed = run.changed(found)
        with closing(_load_ahead(changed, writer, preprocessing, max_pixels, window=2 * batch_size)) as loaded:
            run.take(loaded)
        removed, absent = _sweep(writer, roots, found, run.unread)
    finally:
        writer.finish()
    return IndexReport(
        files=len(found),
        encoded=run.encoded,
        reused=run.reused,
        unchanged=run.unchanged,
        removed=removed,
        skipped=tuple(run.skipped),
        ignored=ignored,
        absent=absent,
    )


def _sweep(
    writer: Writer, roots: Sequence[Path], found: Sequence[Photo | Skipped], unread: Sequence[Path]
) -> tuple[int, tuple[Path, ...]]:
    """Drop from the index what the scan of `roots` would have met if it were there; how many files, and what is kept
    because its disk may be absent.

    A root may lie in another. What was named by itself, and the walk of the outer root passes over, is not the outer
    root's to drop; nor is an inner root in which nothing was met: that is what a disk that is not mounted looks like,
    whatever was met around it. A single file that was named is judged by the folder that it was in.
    """
    folders = {item.path.parent for item in found if isinstance(item, Photo)}
    met = {above for folder in folders for above in (folder, *folder.parents)}
    spared: dict[Path, list[Path]] = {root: list(unread) for root in roots}
    absent: set[Path] = set()
    for inner in writer.roots():
        around = [root for root in inner.path.parents if root in spared]
        is_file = bool(around) and writer.known(inner.path) is not None
        folder = inner.path.parent if is_file else inner.path
        for root in around:
            hidden = passes_over(root, inner.path, is_file=is_file)
            if hidden or folder not in met:
                spared[root].append(inner.path)
            if not hidden and folder not in met and inner.files:
                absent.add(folder)
    sweeps = {root: writer.sweep(root, spared[root]) for root in roots}
    absent.update(root for root, sweep in sweeps.items() if sweep.kept)
    return sum(sweep.removed for sweep in sweeps.values()), tuple(sorted(absent))


class _Run:
    """The counts of one run, and the batch that is being filled."""

    def __init__(
        self,
        writer: Writer,
        load_encoder: Callable[[], Encoder],
        batch_size: int,
        total: int,
        report: Callable[[Progress], None],
    ) -> None:
        self._writer, self._load_encoder, self._batch_size = writer, load_encoder, batch_size
        self._total, self._report = total, report
        self._encoder: Encoder | None = None
        self._new: dict[bytes, Picture] = {}  # content that waits to be encoded, by hash
        self._files: list[tuple[Photo, bytes]] = []
        self._failed: list[tuple[Photo, str]] = []
        self.encoded = self.reused = self.unchanged = 0
        self.skipped: list[Skipped] = []
        self.unread: list[Path] = []  # folders and files that the scan could not get at

    def changed(self, found: Iterable[Photo | Skipped]) -> Iterator[Photo]:
        """Drop what the scan could not get at, and what is as the index knows it."""
        for item in found:
            if isinstance(item, Skipped):
                self.skipped.append(item)
                self.unread.append(item.path)
            elif not self._known(item):
                yield item
                continue
            self._tell()

    def _known(self, photo: Photo) -> bool:
        known = self._writer.known(photo.path)
        if known is None or (known.size, known.mtime_ns) != (photo.size, photo.mtime_ns):
            return False
        self._writer.mark(photo.path)
        if known.reason is None:
            self.unchanged += 1
        else:
            self.skipped.append(Skipped(photo.path, known.reason))
        return True

    def take(self, loaded: Iterable[_Loaded | _Failed]) -> None:
        """Encode and commit what comes out of the threads."""
        for item in loaded:
            if isinstance(item, _Failed):
                self.skipped.append(Skipped(item.photo.path, item.reason))
                if item.lasting:
                    self._failed.append((item.photo, item.reason))
                else:  # what the index has of it stays, and the next run tries again
                    self._writer.mark(item.photo.path)
            else:
                self._files.append((item.photo, item.hash))
                # A copy may have been read before the batch with its twin was committed.
                if item.picture is None or item.hash in self._new or self._writer.image_id(item.hash) is not None:
                    self.reused += 1
                else:
                    self._encoder = self._encoder or self._load_encoder()  # while further ones are decoded
                    self._new[item.hash] = item.picture
            if len(self._new) == self._batch_size or len(self._files) + len(self._failed) >= COMMIT_FILES:
                self._commit()
            self._tell()
        self._commit()
        self._tell()

    def _commit(self) -> None:
        images = []
        if self._new and self._encoder:
            vectors = self._encoder.embed_images(np.stack([picture.pixels for picture in self._new.values()]))
            images = [
                NewImage(hash, picture.width, picture.height, picture.taken_at, vector)
                for (hash, picture), vector in zip(self._new.items(), vectors, strict=True)
            ]
        if self._files or self._failed:
            self._writer.commit(images=images, files=self._files, skipped=self._failed)
        self.encoded += len(images)
        self._new, self._files, self._failed = {}, [], []

    def _tell(self) -> None:
        done = self.encoded + len(self._new) + self.reused + self.unchanged + len(self.skipped)
        self._report(Progress(done, self._total, self.encoded, len(self.skipped)))


def _load_ahead(
    photos: Iterable[Photo], writer: Writer, preprocessing: Preprocessing, max_pixels: int, window: int
) -> Generator[_Loaded | _Failed]:
    """Read, hash, decode and preprocess, in order, at most `window` pictures ahead.

    In two passes, because the index is asked in this thread: content that it knows never reaches a decoder.
    """
    # The processes are left first: a thread that waits for one then ends at once.
    with workers() as readers, workers() as waiting, Decoders(preprocessing, max_pixels=max_pixels) as decoders:
        contents = ahead(readers, _read, photos, os.cpu_count() or 1, weigh=lambda photo: photo.size, most=READ_AHEAD)
        new_or_not = (
            (content, isinstance(content, _Content) and writer.image_id(content.hash) is None) for content in contents
        )
        yield from ahead(
            waiting, partial(_decode, decoders=decoders), new_or_not, window, weigh=_bytes_to_decode, most=READ_AHEAD
        )


def _read(photo: Photo) -> _Content | _Failed:
    """The file's content, with the size and time that it had *before* it was read: a change in between is then seen
    by the next run."""
    try:
        status = photo.path.stat()
        photo = Photo(photo.path, status.st_size, status.st_mtime_ns)
    except OSError:
        pass  # `read` says it better
    try:
        data = read(photo.path)
    except PictureError as error:
        return _Failed(photo, error.reason, lasting=False)
    return _Content(photo, hashlib.sha256(data).digest(), data)


def _bytes_to_decode(item: tuple[_Content | _Failed, bool]) -> int:
    content, new = item
    return len(content.data) if isinstance(content, _Content) and new else 0


def _decode(item: tuple[_Content | _Failed, bool], decoders: Decoders) -> _Loaded | _Failed:
    content, new = item
    if isinstance(content, _Failed):
        return content
    if not new:
        return _Loaded(content.photo, content.hash, None)
    found = decoders.decode(content.data)
    if isinstance(found, Refused):
        return _Failed(content.photo, found.reason, found.lasting)
    return _Loaded(content.photo, content.hash, found)
