"""Bring an index up to date with folders and files: once, or whenever something has changed.

A run finds the model only if there is something to encode, or an option that differs from the index.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bridgetower.errors import (
    BridgeTowerError,
    InputError,
    LockedError,
    StoreError,
    UnknownPlaceError,
    UnreachableStoreError,
    UsageError,
)
from bridgetower.files.ignore import Rules
from bridgetower.files.walk import is_in_walk, scan
from bridgetower.files.watch import watching
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Keeping
from bridgetower.index.compatibility import made_by, require_ours
from bridgetower.index.directory import require_apart, require_place
from bridgetower.index.reader import IndexReader, Kept
from bridgetower.index.reader_pool import ReaderPool
from bridgetower.index.roots import known_place, nothing_in, suggestion
from bridgetower.index.vectors.protocol import RecallStore
from bridgetower.index.writer import IndexWriter
from bridgetower.records import Fingerprint, OnProgress, Say
from bridgetower.retrieval.contents import sidecars_of
from bridgetower.retrieval.indexing import IndexModel, IndexReport, Progress, index

if TYPE_CHECKING:  # numpy, which a run that keeps no features may do without
    from bridgetower.index.maintenance import Move
    from bridgetower.retrieval.encode_pictures import Keeper, KeepingModel

    class UpdateModel(IndexModel, KeepingModel, Protocol):
        """The part of a model that an update needs."""


LOCK_LOOK_S = 1.0  # between two tries while another process writes the index


@dataclass(frozen=True, slots=True)
class Keep:
    """Which features a run is to keep from now on; None is as the index says."""

    capacity: int | None = None  # bytes; 0 for none
    under: Path | None = None  # only of pictures there; beside a capacity, None is everywhere

    def applied(self, before: Keeping | None) -> Keeping | None:
        """Return what the index keeps from now on. Raises UsageError for a place without a capacity."""
        capacity = (0 if before is None else before.capacity) if self.capacity is None else self.capacity
        if self == UNCHANGED or not capacity:
            if self.under is not None:
                raise UsageError(
                    "a place to keep features of, but no room for them: say how much, as --keep-features 5GB"
                )
            return before if self == UNCHANGED else None
        under = None if self.under is None else os.fsencode(self.under)
        return Keeping(capacity, under, None if before is None else before.made_by)


UNCHANGED = Keep()


@dataclass(frozen=True, slots=True)
class Update:
    """An index, and the options that its runs share. Raises as `Library.index` does."""

    directory: Path
    recall_store: RecallStore | None
    readers: ReaderPool
    find_model: Callable[
        [Fingerprint | None], "UpdateModel"
    ]  # the model that made an index, or the model for a new one
    must_compare: Callable[
        [Fingerprint], bool
    ]  # whether an option differs from an index, so that a model must be found
    rules: Rules
    max_pixels: int | None
    keep: Keep  # of the first run
    move: "Move | None"  # in the first run, to another store
    on_progress: Callable[[Progress], None]
    on_publish: OnProgress
    on_keep: OnProgress
    say: Say

    def run(self, paths: Sequence[Path], *, retry: bool = False) -> IndexReport:
        """Bring the index up to date with these folders and files, creating it if need be."""
        self.readers.refresh()
        self._require_there(paths)
        scan(paths, self.rules)  # raises for paths that cannot be walked, before a model is fetched
        made = made_by(self.directory)
        if made is None:
            require_place(self.directory)
        else:
            require_ours(self.directory, made)
        require_apart(self.directory, paths)
        fingerprint = self.find_model(made).fingerprint if made is None or self.must_compare(made) else made

        def find_model() -> "UpdateModel":
            model = self.find_model(made)
            writer.take(model.fingerprint)
            return model

        if made is None and self.move is not None:
            self.move.require_reachable(self.directory, fingerprint.dim)
        with (
            self.readers.changing(),
            IndexWriter.open(self.directory, fingerprint, recall_store=self.recall_store) as writer,
        ):
            writer.on_publish = self.on_publish
            if self.move is not None and (note := self.move(writer)) is not None:
                self.say(f"note: {note}")
            keeper = self._keeper(paths, writer, find_model)
            report = index(
                paths,
                writer,
                find_model,
                self.rules,
                retry=retry,
                max_pixels=self.max_pixels,
                keeper=keeper,
                on_progress=self.on_progress,
            )
            if keeper is not None:
                keeper.fill(say=self.say, on_progress=self.on_keep)
        return report if keeper is None else replace(report, kept=self._kept())

    def _keeper(
        self, paths: Sequence[Path], writer: IndexWriter, find_model: Callable[[], "KeepingModel"]
    ) -> "Keeper | None":
        """Return what keeps features, once its model is accepted where an option asks for it; None to keep none."""
        before = writer.catalog.keeping()
        keeping = self.keep.applied(before)
        if keeping is None:
            if before is not None:
                writer.keep(None)
                for file in writer.features().files():
                    if file.kept:
                        file.remove()
            return None
        from bridgetower.retrieval.encode_pictures import Keeper

        if self.keep.under is not None:
            keeping = keeping._replace(under=os.fsencode(self._known(self.keep.under, paths, writer.catalog)))
        keeper = Keeper(writer, keeping, find_model)
        if self.keep != UNCHANGED:
            keeper.accept_model()
        return keeper

    def _known(self, under: Path, paths: Sequence[Path], catalog: Catalog) -> Path:
        """Return a place as the index knows it, or will know it after the walk of `paths`. Raises UnknownPlaceError."""
        roots = [Path(os.path.abspath(path)) for path in paths]

        def knows(place: Path) -> bool:
            return catalog.knows(place) or any(is_in_walk(root, place, self.rules) for root in roots)

        if (known := known_place(under, knows)) is None:
            hint = suggestion(catalog, under)
            raise UnknownPlaceError(f"nothing in the index, or in this run, lies under {under}{hint}")
        return known

    def _kept(self) -> Kept | None:
        with IndexReader.open(self.directory, self.recall_store) as reader:
            return reader.kept()

    def watch(self, paths: Sequence[Path], *, retry: bool) -> Iterator[IndexReport]:
        """Run, and again whenever something has changed below `paths`: yield a report for each run, without end.

        A path that is away for a while is among the `absent` of the reports. Where another process writes the index,
        or its database does not answer, later runs wait, and `say` gets a line.
        """
        # Watch before the first run, so that no change during it is missed.
        holds = partial(may_hold, self.directory)
        with watching(paths, self.rules, apart=self.directory, holds=holds, sidecars_of=sidecars_of) as bursts:
            yield self.run(paths, retry=retry)
            later = replace(self, keep=UNCHANGED, move=None)
            for _ in bursts:
                there = [path for path in paths if os.path.exists(path)]
                try:
                    report = later._run_when_free(there)
                except InputError:  # a path disappeared since: the watch reports that, too
                    continue
                gone = {Path(os.path.abspath(path)) for path in paths if path not in there}
                yield replace(report, absent=tuple(sorted({*report.absent, *gone})))

    def _run_when_free(self, paths: Sequence[Path]) -> IndexReport:
        told = False
        while True:
            try:
                return self.run(paths)
            except LockedError as error:
                note = f"{error.holder}: waiting until it ends"
            except UnreachableStoreError as error:
                note = f"{error.address}: no answer ({error.why}): waiting until it answers"
            if not told:
                self.say(f"note: {note}")
            told = True
            time.sleep(LOCK_LOOK_S)

    def _require_there(self, paths: Sequence[Path]) -> None:
        """Raise InputError for a missing path that the index knows: its disk may be absent."""
        for path in paths:
            try:
                path.stat()
            except FileNotFoundError as error:
                if self._knows(Path(os.path.abspath(path))):
                    raise InputError(nothing_in(path)) from error
            except OSError:
                pass  # `scan` raises with a better message

    def _knows(self, path: Path) -> bool:
        try:
            with self.readers.lend() as reader:
                return reader.catalog.knows(path)
        except StoreError:
            return False


def may_hold(directory: Path, path: Path) -> bool:
    """Whether an index has a picture at or below `path`; True if it cannot be read."""
    try:
        with IndexReader.open(directory) as reader:
            return reader.catalog.holds(path)
    except BridgeTowerError:
        return True
