"""`bt index`."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower.errors import InputError, LockedError, StoreError, UsageError
from bridgetower.records import INT8
from bridgetower_cli import engine, render
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    DEFAULT_MODEL,
    PREPROCESSINGS,
    Device,
    Index,
    Model,
    Precision,
    Settings,
    completing,
    named_path,
    pixel_count,
    settle,
)

if TYPE_CHECKING:
    from bridgetower.indexing import IndexReport
    from bridgetower.library import Model as FoundModel
    from bridgetower.protocol import ImageEngine
    from bridgetower.records import Fingerprint
    from bridgetower.writer import Writer

SOME_SKIPPED = 3
LOCK_LOOK_S = 1.0  # between two looks at whether another process still writes the index


def index(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", parser=named_path, help="Folders, walked to any depth, or files."),
    ],
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out what fits, in this run: as in .gitignore, anchored at each PATH. May be given several "
            "times. A file .btignore in a folder does so for good.",
        ),
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Walk names that begin with a dot, too.")] = False,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Follow the links in folders; else only those that are a PATH.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try skipped files again, though they have not changed.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Then go on: bring the index up to date whenever something has changed.")
    ] = False,
    index: Index = None,
    model: Model = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            metavar="hf|plain",
            autocompletion=completing(PREPROCESSINGS),
            help="How pictures are cut to size: as the weights are served everywhere, or as they were trained, whole "
            "and without a frame. An index keeps its own. [default: hf]",
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=pixel_count,
            help="Skip pictures that have more pixels, as 400MP; each takes up to 48 bytes of memory. [default: 179MP]",
        ),
    ] = None,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Add pictures to the index, or bring it up to date.

    Only new and changed pictures are read; what was moved or copied is recognised, what was deleted is dropped. Stop
    it at any time: the same command goes on from there. An index keeps the model that it was made with.

    Exits with 3 if some files could not be read: each is named, with the reason, and the others are indexed.
    """
    if preprocessing not in (None, *PREPROCESSINGS):
        raise UsageError(f"preprocessing {preprocessing!r} is unknown: choose one of {', '.join(PREPROCESSINGS)}")
    settings = settle(index=index, model=model, device=device, precision=precision)
    from bridgetower.directory import made_by, require_apart, require_ours, require_place
    from bridgetower.indexing import index as run
    from bridgetower.scan import Rules, scan
    from bridgetower.writer import Writer

    rules = Rules(tuple(exclude or ()), hidden, follow_symlinks)
    _require_there(paths, settings.index)
    scan(paths, rules)  # raises for what cannot be walked, before a model is fetched for it
    begun = made_by(settings.index)
    if begun is None:
        require_place(settings.index)
    else:
        require_ours(settings.index, begun)
    require_apart(settings.index, paths)
    find = cache(lambda: _find(settings, begun, preprocessing))
    # Where nothing says that it may be another one, the model is looked for when there is something to encode.
    may_wait = all(option is None for option in (model, preprocessing, device, precision))
    fingerprint = begun if begun is not None and may_wait else find().fingerprint

    def bring_up_to_date(paths: list[Path], retry: bool) -> "IndexReport":
        with Writer.open(settings.index, fingerprint) as writer, Meter("indexing", "files") as meter:
            writer.on_publish = lambda done, total: meter.update(done, total, "arranging for search")
            return run(
                paths,
                writer,
                lambda: _checked(find(), writer),
                rules,
                retry=retry,
                max_pixels=max_pixels,
                on_progress=lambda progress: meter.update(progress.done, progress.total, "indexing", "files"),
            )

    def begin() -> "IndexReport":
        began = time.monotonic()
        report = bring_up_to_date(paths, retry)
        _tell(report, time.monotonic() - began)
        return report

    if watch:
        from bridgetower.watch import watching

        # From before the first run on: what changes meanwhile is not missed.
        with watching(paths, rules, apart=settings.index, holds=partial(_holds, settings.index)) as bursts:
            _keep_up(paths, bursts, begin(), partial(bring_up_to_date, retry=False))
    elif begin().skipped:
        raise typer.Exit(SOME_SKIPPED)


def _require_there(paths: list[Path], directory: Path) -> None:
    """Raise InputError for a path that is not there though the index knows it: that need be no slip of the pen."""
    for path in paths:
        try:
            os.stat(path)
        except FileNotFoundError as error:
            if _knows(directory, Path(os.path.abspath(path))):
                raise InputError(render.nothing_in(Path(os.path.abspath(path)))) from error
        except OSError:
            pass  # `scan` says it better


def _knows(directory: Path, path: Path) -> bool:
    from bridgetower.store import Store

    with suppress(StoreError), Store.open(directory) as store:
        return store.manifest.knows(path)
    return False


def _tell(report: "IndexReport", seconds: float) -> None:
    """All that there is to say of a run."""
    render.skipped(report.skipped)
    for root in report.absent:
        render.away(root)
    others = _tell_unread(report.ignored)
    render.say(
        f"indexed {report.encoded}, reused {report.reused}, unchanged {report.unchanged}, removed {report.removed}, "
        f"skipped {len(report.skipped)}: {render.counted(report.files, 'file')} in {seconds:.1f} s"
        + (f"; ignored {render.counted(others, 'file')} of other kinds" if others else "")
        + (f"; left out {report.excluded} by patterns" if report.excluded else "")
        + (f"; passed over {render.counted(report.links, 'link')} (--follow-symlinks)" if report.links else "")
    )


def _keep_up(
    paths: list[Path],
    bursts: Iterator[set[Path]],
    last: "IndexReport",
    bring_up_to_date: "Callable[[list[Path]], IndexReport]",
) -> None:
    """Run again after each burst of changes, and say what came of it, for ever."""
    render.say(f"watching {render.counted(len(paths), 'path')}; Ctrl-C ends it")
    away = set(last.absent)
    for _ in bursts:
        there = [path for path in paths if os.path.exists(path)]
        try:
            report = _when_free(partial(bring_up_to_date, there))
        except InputError:  # a path that has gone since: that is a change, too
            continue
        gone = {*report.absent, *(Path(os.path.abspath(path)) for path in paths if path not in there)}
        for folder in sorted(gone - away):
            render.away(folder)
        away = gone
        told = set(last.skipped)
        new = tuple(skip for skip in report.skipped if skip not in told)
        render.skipped(new)
        if report.encoded or report.reused or report.removed or new:
            render.say(
                f"{datetime.now():%H:%M:%S} indexed {report.encoded}, reused {report.reused}, "
                f"removed {report.removed}, skipped {len(new)}"
            )
        last = report


def _when_free(run: "Callable[[], IndexReport]") -> "IndexReport":
    """What `run` returns, as soon as no other process is writing the index."""
    told = False
    while True:
        try:
            return run()
        except LockedError as error:
            if not told:
                render.say(f"note: {error.holder}: waiting until it ends")
            told = True
        time.sleep(LOCK_LOOK_S)


def _holds(directory: Path, path: Path) -> bool:
    """Whether the index has a picture at or below `path`. In doubt it may."""
    from bridgetower.store import Store

    try:
        with Store.open(directory) as store:
            return store.holds(path)
    except StoreError:
        return True


def _checked(model: "FoundModel", writer: "Writer") -> "ImageEngine":
    """What encodes, now that it is known to be that of the index. Raises StoreError where it is not."""
    writer.take(model.fingerprint)
    return model.engine


def _tell_unread(ignored: Mapping[str, int]) -> int:
    """Name the kinds of pictures that were met and cannot be read: whoever has them expects to find them. Returns how
    many other files were ignored."""
    from bridgetower.scan import UNREAD_EXTENSIONS

    kinds = {extension: number for extension, number in sorted(ignored.items()) if extension in UNREAD_EXTENSIONS}
    if kinds:
        listed = ", ".join(f"{number} x {extension}" for extension, number in kinds.items())
        render.say(
            f"note: {render.counted(sum(kinds.values()), 'picture')} of kinds that bt cannot read, not in the index: "
            f"{listed}; convert them, to JPEG for example"
        )
    return sum(ignored.values()) - sum(kinds.values())


def _find(settings: Settings, begun: "Fingerprint | None", preprocessing: str | None) -> "FoundModel":
    """Find the model: an index that has pictures keeps its own, with preprocessing and precision; a new one takes what
    the settings say.

    Raises ModelError, and UsageError for a device or a precision that is not to be had.
    """
    if begun is None:
        return engine.find(settings.model, settings, preprocessing=preprocessing)
    settings = _in_family(begun.precision_family, settings)
    if settings.named_model is None and settings.model not in (begun.model, DEFAULT_MODEL):
        render.say(f"note: the index keeps its model {begun.model:.300}; {settings.model} is for new ones")
    return engine.that_made(begun, settings, preprocessing=preprocessing)


def _in_family(family: str, settings: Settings) -> Settings:
    """The settings with the precision in which to add to an index that has pictures of this family: what --precision
    says, which may be refused, else one of the family."""
    from bridgetower.runtime import precision_for

    precision = settings.precision
    if settings.named_precision is None and precision != "auto" and (precision == INT8) != (family == INT8):
        render.say(f"note: the index keeps its precision, {render.precisions(family)}; {precision} is for new ones")
        precision = "auto"
    return replace(settings, precision=precision_for(family, precision))
