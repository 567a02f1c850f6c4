"""Folders -> index: scan -> compare -> read + hash -> decode -> preprocess -> embed -> commit, batch by batch.

What the walk meets goes straight into a table beside the index, and a query says what has changed: no run holds the
names of all files. numpy, Pillow and the model are imported by the stages that need them, so that a run that finds
nothing to do loads none of them.

Threads read and hash, processes decode, ahead of the encoder, through a window of bounded size; this thread alone talks
to the encoder and to the index. A file whose size and time are as the index knows them is not opened; a file whose
content is known is not decoded. Killing the process loses the batch in flight and nothing else.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.ahead import ahead, workers
from bridgetower.directory import require_apart
from bridgetower.errors import PictureError
from bridgetower.records import File, Photo, Skipped
from bridgetower.scan import USUAL_RULES, PassedOver, Rules, passes_over, scan
from bridgetower.writer import NewImage, Writer

if TYPE_CHECKING:
    from bridgetower.decoders import Decoders, Picture
    from bridgetower.encoder import Encoder
    from bridgetower.preprocess import Preprocessing
    from bridgetower.runtime import Runtime

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
    excluded: int  # pictures and folders that patterns left out
    links: int  # that were passed over
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
    picture: "Picture | None"  # None where the index has the content


@dataclass(frozen=True, slots=True)
class _Failed:
    """A file that is no picture for us."""

    photo: Photo
    reason: str
    lasting: bool  # it lies in the content, so it need not be tried again until the file changes


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns pictures into vectors."""

    preprocessing: "Preprocessing"
    load_encoder: "Callable[[], Encoder]"  # called once, and only if there is something to encode
    batch_size: int = BATCH_SIZE  # pictures that are encoded and committed together


def batch_size(runtime: "Runtime") -> int:
    """How many pictures are worth encoding together on this device."""
    return 8 * BATCH_SIZE if runtime.device == "cuda" else BATCH_SIZE


def index(
    paths: Sequence[Path],
    writer: Writer,
    find_engine: Callable[[], Engine],
    rules: Rules = USUAL_RULES,
    *,
    retry: bool = False,
    max_pixels: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> IndexReport:
    """Bring the index up to date with the files in and at `paths`, as far as `rules` let them in.

    `find_engine` is called once, and only if there is content that the index does not have. With `retry`, files that
    were skipped are tried again though they have not changed. Pictures of more than `max_pixels` are skipped.
    Raises InputError where one of `paths` does not exist, UsageError for `rules` and where one of `paths` lies in the
    folder of the index, StoreError where the index cannot be written, ProcessError where pictures cannot be decoded in
    processes of their own, and what `find_engine` and the engine raise. On any exception, also KeyboardInterrupt, what
    was committed stays, nothing is taken for deleted, and nothing is published: that is for the next run.
    """
    passed_over = PassedOver()
    walk = scan(paths, rules, passed_over, apart=writer.directory)
    require_apart(writer.directory, paths)
    roots = sorted({Path(os.path.abspath(path)) for path in paths})
    with writer.at_once():
        for root in roots:
            writer.add_root(root)
    run = _Run(writer, cache(find_engine), on_progress)
    changed = run.meet(walk, retry)
    if changed:
        with closing(_load_ahead(writer.changed(retry=retry), writer, run.engine, max_pixels)) as loaded:
            run.take(loaded)
    removed, absent = _sweep(writer, roots, rules, passed_over, run.unread)
    writer.finish(changed=changed)
    return IndexReport(
        files=run.total,
        encoded=run.encoded,
        reused=run.reused,
        unchanged=run.unchanged,
        removed=removed,
        skipped=tuple(run.skipped),
        ignored=passed_over.extensions,
        excluded=passed_over.excluded,
        links=passed_over.links,
        absent=absent,
    )


def _sweep(
    writer: Writer, roots: Sequence[Path], rules: Rules, passed_over: PassedOver, unread: Sequence[Path]
) -> tuple[int, tuple[Path, ...]]:
    """Drop from the index what the scan of `roots` would have met if it were there; how many files, and what is kept
    because its disk may be absent.

    A root may lie in another. What was named by itself, and the walk of the outer root passes over, is not the outer
    root's to drop; nor is an inner root in which nothing was met: that is what a disk that is not mounted looks like,
    whatever was met around it. A single file that was named is judged by the folder that it was in. A folder in which
    patterns, or links that are not followed, left something out is there, though nothing was met in it.
    """
    left_out_in = [Path(os.fsdecode(folder)) for folder in passed_over.excluded_in]

    def is_there(folder: Path) -> bool:
        return writer.has_met(folder) or any(other.is_relative_to(folder) for other in left_out_in)

    spared = {root: [path for path in unread if path.is_relative_to(root)] for root in roots}
    absent: set[Path] = set()
    for inner in writer.root_paths():
        around = [root for root in inner.parents if root in spared]
        if not around:
            continue
        is_file = writer.known(inner) is not None
        folder = inner.parent if is_file else inner
        there = is_there(folder)
        for root in around:
            apart = passes_over(root, inner, rules, is_file=is_file)
            if apart or not there:
                spared[root].append(inner)
            if not apart and not there and writer.holds(inner):
                absent.add(folder)
    with writer.at_once():
        sweeps = {root: writer.sweep(root, spared[root], present=is_there(root)) for root in roots}
    absent.update(root for root, sweep in sweeps.items() if sweep.kept)
    # What is there and cannot be read has been named as such.
    absent = {folder for folder in absent if not any(folder.is_relative_to(path) for path in unread)}
    return sum(sweep.removed for sweep in sweeps.values()), tuple(sorted(absent))


class _Run:
    """The counts of one run, and the batch that is being filled."""

    def __init__(self, writer: Writer, find_engine: Callable[[], Engine], report: Callable[[Progress], None]) -> None:
        self.engine = find_engine
        self._writer, self._report = writer, report
        self._encoder: Encoder | None = None
        self._new: dict[bytes, Picture] = {}  # content that waits to be encoded, by hash
        self._files: list[tuple[Photo, bytes]] = []
        self._failed: list[tuple[Photo, str]] = []
        self.total = self.encoded = self.reused = self.unchanged = 0
        self.skipped: list[Skipped] = []
        self.unread: list[Path] = []  # folders and files that the scan could not get at

    def meet(self, walk: Iterable[File | Skipped], retry: bool) -> bool:
        """Compare all that is there with what the index knows; whether anything is to be done."""
        met = self._writer.meet(self._files_of(walk))
        self.total = met + len(self.unread)
        self.unchanged = self._writer.count_unchanged()
        if self.unchanged < met and not retry:
            self.skipped += self._writer.still_skipped()
        self._tell()
        return self._done() < self.total

    def _files_of(self, walk: Iterable[File | Skipped]) -> Iterator[File]:
        for item in walk:
            if isinstance(item, Skipped):
                self.skipped.append(item)
                self.unread.append(item.path)
            else:
                yield item

    def take(self, loaded: Iterable[_Loaded | _Failed]) -> None:
        """Encode and commit what comes out of the threads."""
        for item in loaded:
            if isinstance(item, _Failed):
                self.skipped.append(Skipped(item.photo.path, item.reason))
                if item.lasting:  # else what the index has of it stays, and the next run tries again
                    self._failed.append((item.photo, item.reason))
            else:
                self._files.append((item.photo, item.hash))
                # A copy may have been read before the batch with its twin was committed.
                if item.picture is None or item.hash in self._new or self._writer.image_id(item.hash) is not None:
                    self.reused += 1
                else:
                    self._encoder = self._encoder or self.engine().load_encoder()  # while further ones are decoded
                    self._new[item.hash] = item.picture
            full = self._new and len(self._new) >= self.engine().batch_size
            if full or len(self._files) + len(self._failed) >= COMMIT_FILES:
                self._commit()
            self._tell()
        self._commit()
        self._tell()

    def _commit(self) -> None:
        images = []
        if self._new and self._encoder:
            import numpy as np

            if self._writer.wants_queries():
                from bridgetower.captions import CAPTIONS

                self._writer.set_queries(self._encoder.embed_texts(CAPTIONS))
            vectors = self._encoder.embed_images(np.stack([picture.pixels for picture in self._new.values()]))
            images = [
                NewImage(hash, picture.width, picture.height, picture.taken_at, vector)
                for (hash, picture), vector in zip(self._new.items(), vectors, strict=True)
            ]
        if self._files or self._failed:
            self._writer.commit(images=images, files=self._files, skipped=self._failed)
        self.encoded += len(images)
        self._new, self._files, self._failed = {}, [], []

    def _done(self) -> int:
        return self.encoded + len(self._new) + self.reused + self.unchanged + len(self.skipped)

    def _tell(self) -> None:
        self._report(Progress(self._done(), self.total, self.encoded, len(self.skipped)))


def _load_ahead(
    photos: Iterable[Photo], writer: Writer, find_engine: Callable[[], Engine], max_pixels: int | None
) -> Generator[_Loaded | _Failed]:
    """Read, hash, decode and preprocess, in order, at most two batches ahead: one is being filled while the other is
    encoded.

    In two passes, because the index is asked in this thread: content that it knows never reaches a decoder, and
    needs no engine.
    """
    with workers() as readers:
        contents = ahead(readers, _read, photos, os.cpu_count() or 1, weigh=lambda photo: photo.size, most=READ_AHEAD)
        new_or_not = (
            (content, isinstance(content, _Content) and writer.image_id(content.hash) is None) for content in contents
        )
        for content, new in new_or_not:
            if new:
                break
            yield content if isinstance(content, _Failed) else _Loaded(content.photo, content.hash, None)
        else:
            return
        from bridgetower.decoders import Decoders

        engine = find_engine()
        # The processes are left first: a thread that waits for one then ends at once.
        with workers() as waiting, Decoders(engine.preprocessing, max_pixels=max_pixels) as decoders:
            task = partial(_decode, decoders=decoders)
            all_of_them = chain([(content, new)], new_or_not)
            window = 2 * engine.batch_size
            yield from ahead(waiting, task, all_of_them, window, weigh=_bytes_to_decode, most=READ_AHEAD)


def _read(photo: Photo) -> _Content | _Failed:
    """The file's content, with the size and time that it had *before* it was read: a change in between is then seen
    by the next run."""
    from bridgetower.decode import read

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


def _decode(item: tuple[_Content | _Failed, bool], decoders: "Decoders") -> _Loaded | _Failed:
    content, new = item
    if isinstance(content, _Failed):
        return content
    if not new:
        return _Loaded(content.photo, content.hash, None)
    from bridgetower.decoders import Refused

    found = decoders.decode(content.data)
    if isinstance(found, Refused):
        return _Failed(content.photo, found.reason, found.lasting)
    return _Loaded(content.photo, content.hash, found)
