"""Index folders: scan -> compare -> read + hash -> engine (decode -> preprocess -> embed) -> commit, by batches.

The files of the walk go into a temporary table of the catalog, and a query finds the changed ones: no run holds the
names of all files in memory. numpy, Pillow and the model are imported by the stages that need them, so that a run
without changes loads none of them.

Threads read and hash; an `ImageEngine` decodes and encodes, several batches at once if it likes; this thread alone
calls the engine and the index. A file that matches the index is not opened; a file whose content is known is not
decoded. Killing the process loses only the batches under way.

An index may hold pictures of an older decoding. Their files count as changed: a `DecodingCheck` decodes them, and those
that get other pixels now are encoded again.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bridgetower.errors import ModelError
from bridgetower.files.ignore import USUAL_RULES, DefaultExclude, ExcludedFolders, PassedOver, Rules
from bridgetower.files.walk import passes_over, scan
from bridgetower.index.catalog.changed_files import ChangedFiles
from bridgetower.index.catalog.rows import Image
from bridgetower.index.directory import require_apart
from bridgetower.index.reader import Kept
from bridgetower.index.roots import is_away, of_their_own
from bridgetower.index.writer import Confirmed, IndexWriter, NewImage
from bridgetower.inputs import short
from bridgetower.prefetch import workers
from bridgetower.records import (
    DECODING_VERSION,
    IN_CLOUD,
    File,
    FileContent,
    Fingerprint,
    LeftOut,
    Refused,
    Skipped,
    WalkedFile,
    path_of,
    quiet,
)
from bridgetower.retrieval.calibration_texts import ensure_calibration
from bridgetower.retrieval.contents import (
    Content,
    Dated,
    DecodingCheck,
    Failed,
    Same,
    contents,
    sidecars_of,
    still_holds,
)

if TYPE_CHECKING:
    from bridgetower.encoders.protocol import Embedded, ImageEngine, Vectors
    from bridgetower.retrieval.encode_pictures import Keeper

COMMIT_FILES = 1024  # files without a new picture that are committed together


class IndexModel(Protocol):
    """The part of a model that indexing needs."""

    @property
    def fingerprint(self) -> Fingerprint: ...
    @property
    def engine(self) -> "ImageEngine": ...
    def embed_texts(self, texts: Sequence[str]) -> "Vectors": ...


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run, in files."""

    done: int
    total: int  # 0 until the folders have been walked
    encoded: int  # pictures that went through the network
    skipped: int
    workers: Mapping[str, int] = field(default_factory=dict)  # pictures that each worker of a cluster has encoded


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Counts of a run."""

    files: int  # picture files that were met, skipped ones included
    encoded: int  # pictures, new ones and `renewed`
    renewed: int  # pictures that were encoded again, because they are decoded to other pixels than before
    reused: int  # files whose content the index has already: copies, renames, restored files
    unchanged: int
    redated: int  # of these, files whose own date, of their name or a sidecar, is another now
    removed: int  # files that are gone
    skipped: tuple[Skipped, ...]
    ignored: Mapping[str, int]  # files of other kinds that were passed over, by extension in lower case
    unread: Mapping[str, int]  # pictures that need an extra which is not installed, by extra; not among `skipped`
    excluded: int  # pictures and folders that patterns left out
    left_out: tuple[LeftOut, ...]  # folders that were left out by default and hold pictures, or held indexed ones
    links: int  # links that were passed over
    in_cloud: int  # pictures that were not opened, as their content is in the cloud only; not among `files`
    absent: tuple[Path, ...]  # folders in which nothing was met though the index has files there: these are kept
    note: str | None = None  # why the backup of the catalog was not renewed
    kept: Kept | None = None  # features, after the run; None if the index keeps none


def index(
    paths: Sequence[Path],
    writer: IndexWriter,
    find_model: "Callable[[], IndexModel]",
    rules: Rules = USUAL_RULES,
    *,
    retry: bool = False,
    max_pixels: int | None = None,
    keeper: "Keeper | None" = None,
    on_progress: Callable[[Progress], None] = quiet,
) -> IndexReport:
    """Bring the index up to date with the files in and at `paths`, as far as `rules` let them in.

    `find_model` is called once, and only if there is content that the index does not have. With `retry`, files that
    were skipped are tried again though they have not changed. Pictures of more than `max_pixels` are skipped. `keeper`
    keeps features of new pictures.
    Raises InputError where one of `paths` does not exist, UsageError for `rules` and where one of `paths` lies in the
    folder of the index, StoreError where the index cannot be written, ProcessError where the worker
    processes that decode cannot run, ModelError for an engine that does not return one result for each picture, and the
    errors of `find_model` and the model. On any exception, also KeyboardInterrupt, commits stay, no file is dropped,
    and nothing is published: the next run does both.
    """
    passed_over = PassedOver()
    writer.require_store()
    walk = scan(paths, rules, passed_over, apart=writer.directory, sidecars_of=sidecars_of)
    require_apart(writer.directory, paths)
    roots = sorted({Path(os.path.abspath(path)) for path in paths})
    with writer.catalog.transaction():
        for root in of_their_own(roots, [root for root, _ in writer.catalog.roots()]):
            writer.add_root(root)
    run = _Run(writer, on_progress, keeper)
    run.tell()
    changed = run.meet(walk, retry, max_pixels)
    if changed:
        run.take(writer.catalog.changed(retry=retry, again=run.again), find_model, max_pixels)
    writer.catalog.fill_unknown()
    removed, absent = _sweep(writer, roots, rules, run.unwalked)
    note = writer.finish(changed=changed)
    return IndexReport(
        files=run.total,
        encoded=run.encoded,
        renewed=run.renewed,
        reused=run.reused,
        unchanged=run.unchanged,
        redated=run.redated,
        removed=removed,
        skipped=tuple(run.skipped),
        ignored=dict(sorted(passed_over.extensions.items())),
        unread=dict(sorted(run.unread.items())),
        excluded=passed_over.excluded,
        left_out=tuple(_left_out(writer.catalog, passed_over.by_default, swept=removed > 0)),
        links=passed_over.links,
        in_cloud=run.in_cloud,
        absent=absent,
        note=note,
    )


def _left_out(
    catalog: ChangedFiles, by_default: Mapping[DefaultExclude, ExcludedFolders], *, swept: bool
) -> Iterator[LeftOut]:
    """Yield the folders of each kind that the walk left out, if they hold a picture or a sweep has dropped one."""
    for kind in (kind for kind in DefaultExclude if kind in by_default):
        left = by_default[kind]
        folders = map(path_of, left.folders if swept else ())
        dropped = {folder: number for folder in folders if (number := catalog.count_dropped(folder))}
        if left.pictures or dropped or not left.all_counted:
            yield LeftOut(kind, left.pictures, left.all_counted, sum(dropped.values()), next(iter(dropped), None))


def _sweep(
    writer: IndexWriter, roots: Sequence[Path], rules: Rules, unread: Sequence[Path]
) -> tuple[int, tuple[Path, ...]]:
    """Drop files that the scan of `roots` did not meet; return how many, and the folders that are kept because their
    disk may be absent.

    A root may lie in another. If the walk of the outer root passes over it, only its own scan sweeps it. An inner root
    that is away is kept, too, whatever was met around it. A root that is a file is judged by its folder.
    """

    def is_there(folder: Path) -> bool:
        return writer.catalog.has_met(folder) or not is_away(folder)

    spared = {root: [path for path in unread if path.is_relative_to(root)] for root in roots}
    absent: set[Path] = set()
    for inner, _ in list(writer.catalog.roots()):
        around = [root for root in inner.parents if root in spared]
        if not around:
            continue
        is_file = writer.catalog.known(inner) is not None
        folder = inner.parent if is_file else inner
        there = is_there(folder)
        for root in around:
            apart = passes_over(root, inner, rules, is_file=is_file)
            if apart or not there:
                spared[root].append(inner)
            if not apart and not there and writer.catalog.holds(inner):
                absent.add(folder)
    with writer.catalog.transaction():
        sweeps = {root: writer.sweep(root, spared[root], present=is_there(root)) for root in roots}
    absent.update(root for root, sweep in sweeps.items() if sweep.kept)
    # A folder that cannot be read is among the skipped already.
    absent = {folder for folder in absent if not any(folder.is_relative_to(path) for path in unread)}
    return sum(sweep.removed for sweep in sweeps.values()), tuple(sorted(absent))


class _Run:
    """The counts of one run, and the batch that is being filled."""

    def __init__(self, writer: IndexWriter, report: Callable[[Progress], None], keeper: "Keeper | None") -> None:
        self._writer, self._report, self._keeper = writer, report, keeper
        self._model: IndexModel | None = None  # found with the first new content
        self._batch_size = 1  # of its engine
        self._under_way: dict[bytes, list[Dated]] = {}  # files of the contents in the engine, by hash, in order
        self._new: dict[bytes, NewImage] = {}  # encoded contents, by hash
        self._files: list[tuple[File, bytes]] = []
        self._failed: list[tuple[File, str]] = []
        self._same: dict[bytes, Confirmed] = {}  # images that agree with this decoding, or have another date, by hash
        self._outdated: set[bytes] = set()  # contents in the engine whose image is of an older decoding
        self.total = self.encoded = self.renewed = self.reused = self.unchanged = self.redated = 0
        self.skipped: list[Skipped] = []
        self.unwalked: list[Path] = []  # folders and files that the scan could not read
        self.unread: Counter[str] = Counter()  # files that need an extra which is not installed, by extra
        self.in_cloud = 0  # pictures that were not opened, as that would download them
        self.again: set[str] = set()  # reasons whose files are tried again
        self._workers: Counter[str] = Counter()  # pictures encoded by each

    def meet(self, walk: Iterable[WalkedFile | Skipped], retry: bool, max_pixels: int | None) -> bool:
        """Compare the files of the walk with the index; return whether anything is to be done."""
        met = self._writer.catalog.meet(self._files_of(walk)) - self.in_cloud
        self.total = met + len(self.unwalked)
        self.unchanged = self._writer.catalog.count_unchanged()
        if self.unchanged < met and not retry:
            self._count_still_skipped(max_pixels)
        self.tell()
        return self._done() < self.total

    def _count_still_skipped(self, max_pixels: int | None) -> None:
        """Count the files that are skipped as in an earlier run, but for those that are tried again."""
        from bridgetower.pictures.extras.extra import needed

        holds = still_holds(max_pixels)
        for skipped in self._writer.catalog.still_skipped():
            if not holds(skipped.reason):
                self.again.add(skipped.reason)
            elif (extra := needed(skipped.reason)) is not None:
                self.unread[extra] += 1
            else:
                self.skipped.append(skipped)

    def _files_of(self, walk: Iterable[WalkedFile | Skipped]) -> Iterator[WalkedFile]:
        for item in walk:
            if isinstance(item, Skipped):
                self.skipped.append(item)
                self.unwalked.append(item.path)
            else:
                self.in_cloud += item.size == IN_CLOUD
                yield item

    def take(self, files: Iterable[File], find_model: "Callable[[], IndexModel]", max_pixels: int | None) -> None:
        """Read these files, have the engine encode new contents, and commit all, batch by batch.

        This thread asks the index; a known content never reaches the engine, so a run without new ones needs no engine.
        """
        with workers() as readers, DecodingCheck(max_pixels) as check:
            catalog = self._writer.catalog
            older = check if catalog.has_older(DECODING_VERSION) else None
            new = self._new_contents(contents(readers, files, catalog.image_of, older))
            if (first := next(new, None)) is not None:
                self._model = find_model()
                engine = self._model.engine if self._keeper is None else self._keeper.engine()
                self._embed(engine, chain([first], new), max_pixels)
        self._commit()
        self.tell()

    def _embed(self, engine: "ImageEngine", contents: Iterator[FileContent], max_pixels: int | None) -> None:
        """Have the engine embed `contents`. Raises ModelError, after committing its results, if they are not one for
        each content."""
        from bridgetower.encoders.checked import require_batch_size, require_embedded

        self._batch_size, dim = require_batch_size(engine), self._writer.catalog.fingerprint().dim
        results: Iterable[object] = engine.embed(contents, max_pixels=max_pixels)
        name = f"{type(engine).__name__}.embed"
        if not isinstance(results, Iterable):
            raise ModelError(f"{name}: {short(results)} instead of an iterator of results: mend that engine")
        too_many = False
        try:
            for found in results:
                if too_many := not self._under_way:
                    break
                self._settle(require_embedded(engine, found, dim))
        finally:
            if callable(close := getattr(results, "close", None)):
                close()
        if not too_many:
            next(contents, None)  # an engine that ended early has not asked for all
        if too_many or self._under_way:
            self._commit()
            raise ModelError(
                f"{name}: {'more' if too_many else 'fewer'} results than contents: mend that engine, and make the "
                "index again if it left out or added one in the middle, as results are taken in order"
            )

    def _new_contents(self, checked: Iterable[Content | Same | Failed]) -> Iterator[FileContent]:
        """Yield the contents that the index does not have, or has of an older decoding, each once, as the engine asks
        for them."""
        for item in checked:
            if isinstance(item, Failed):
                self._fail(item.file, item.reason, lasting=item.lasting)
            elif isinstance(item, Same):
                self._same[item.image.hash] = item.image
                self._reuse(item.file, item.image.hash)
            elif item.hash in self._under_way:
                self._under_way[item.hash].append(item.found)
            elif (known := self._image_of(item.hash)) is not None:
                self._reuse(item.found.with_date(known.taken_at), item.hash)
                taken_at = item.found.taken_at(known.taken_at)
                if taken_at != known.taken_at:
                    self._same[item.hash] = Confirmed(item.hash, taken_at)
            else:
                if item.decoding is not None:
                    self._outdated.add(item.hash)
                self._under_way[item.hash] = [item.found]
                if self._keeper is not None:
                    self._keeper.expect(item.found.file)
                yield FileContent(item.data, item.found.file.path, item.hash)
            if len(self._files) + len(self._failed) >= COMMIT_FILES:
                self._commit()
            self.tell()

    def _image_of(self, hash: bytes) -> Image | NewImage | None:
        """Return the image of this content and decoding that the index has, or will have with the next commit."""
        image = self._new.get(hash) or self._writer.catalog.image_of(hash)
        return None if image is None or image.decoding < DECODING_VERSION else image

    def _reuse(self, file: File, hash: bytes) -> None:
        """Take a file whose content the index has. It is unchanged if it was read for the sake of the program alone."""
        known = self._writer.catalog.known(file.path)
        if known is not None and known.image is not None and known.file.is_unchanged(file):
            self.unchanged += 1
            self.redated += known.file.taken_at != file.taken_at
        else:
            self.reused += 1
        self._files.append((file, hash))

    def _settle(self, found: "Embedded | Refused") -> None:
        """Take the result of the oldest content under way: the engine returns them in order."""
        hash = next(iter(self._under_way))
        files, outdated = self._under_way.pop(hash), hash in self._outdated
        self._outdated.discard(hash)
        if isinstance(found, Refused):
            for dated in files:
                self._fail(dated.file, found.reason, lasting=found.lasting)
        else:
            taken_at = files[0].taken_at(found.taken_at)
            if found.worker is not None:
                self._workers[found.worker] += 1
            self._new[hash] = NewImage(hash, found.width, found.height, taken_at, found.vector)
            if self._keeper is not None and found.features is not None:
                self._keeper.hold(hash, found.features)
            self._files += ((dated.with_date(found.taken_at), hash) for dated in files)
            self.reused += len(files) - 1
            self.renewed += outdated
        if len(self._new) >= self._batch_size:
            self._commit()
        self.tell()

    def _fail(self, file: File, reason: str, *, lasting: bool) -> None:
        from bridgetower.pictures.extras.extra import needed

        if (extra := needed(reason)) is not None:
            self.unread[extra] += 1
        else:
            self.skipped.append(Skipped(file.path, reason))
        if lasting:  # else the index keeps what it has, and the next run tries again
            self._failed.append((file, reason))

    def _commit(self) -> None:
        if self._files or self._failed:
            new, same = self._new.values(), self._same.values()
            self._writer.commit(images=new, files=self._files, skipped=self._failed, confirmed=same)
        self.encoded += len(self._new)
        if self._keeper is not None:
            self._keeper.store()
        if self._model is not None and self._new:
            ensure_calibration(self._writer, self._model.embed_texts)
            self._writer.publish_if_behind()
        self._new, self._files, self._failed, self._same = {}, [], [], {}

    def _done(self) -> int:
        others = self.reused + self.unchanged + len(self.skipped) + self.unread.total()
        return self.encoded + len(self._new) + others

    def tell(self) -> None:
        self._report(Progress(self._done(), self.total, self.encoded, len(self.skipped), dict(self._workers)))
