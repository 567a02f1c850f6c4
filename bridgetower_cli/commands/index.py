"""`bt index`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridgetower.errors import UsageError
from bridgetower.records import EngineChoice, Skipped
from bridgetower_cli import render
from bridgetower_cli.failures import SOME_SKIPPED
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    PREPROCESSINGS,
    Device,
    Engine,
    Index,
    InLibrary,
    Model,
    Precision,
    Quiet,
    Settings,
    SharedPaths,
    StorePasswordFile,
    Workers,
    byte_size,
    completing,
    named_path,
    pixel_count,
    settle,
)

if TYPE_CHECKING:
    from bridgetower import IndexReport, LeftOut


def index(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", parser=named_path, help="Folders, walked to any depth, or files."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out what fits, in this run: as in .gitignore, anchored at each PATH. May be given several "
            "times. A file .btignore in a folder does so for good.",
        ),
    ] = None,
    no_default_excludes: Annotated[
        bool,
        typer.Option(
            "--no-default-excludes",
            help="Walk what is left out by default, too: folders of thumbnails, recycle bins, inner folders of photo "
            "libraries, folders with .nomedia or .noimage.",
        ),
    ] = False,
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
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="From now on, let a database recall: postgresql://USER@HOST/DATABASE or milvus://HOST:PORT, without a "
            "password; faiss for files again. Needs no PATH. See docs/stores.md. [default: as the index has it, faiss]",
        ),
    ] = None,
    store_password_file: StorePasswordFile = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each skipped file, then the counts, as one JSON object a line.")
    ] = False,
    index: Index = None,
    in_library: InLibrary = None,
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
    keep_features: Annotated[
        int | None,
        typer.Option(
            metavar="SIZE",
            parser=byte_size,
            help="From now on, keep in the index what verification needs of the newest pictures, as many as fit into "
            "SIZE, as 5GB: searches need not read these again. 0 for none.",
        ),
    ] = None,
    keep_under: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", parser=named_path, help="With --keep-features: only of pictures at or below PATH."
        ),
    ] = None,
    engine: Engine = "local",
    workers: Workers = None,
    shared_paths: SharedPaths = False,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Add pictures to the index, or bring it up to date.

    Only new and changed pictures are read; what was moved or copied is recognised, what was deleted is dropped. Stop
    it at any time: the same command goes on from there. An index keeps the model that it was made with.

    Exits with 3 if some files could not be read: each is named, with the reason, and the others are indexed.
    """
    settings = settle(
        index=index,
        library=in_library,
        needs_index=False,
        model=model,
        device=device,
        precision=precision,
        store_password_file=store_password_file,
    )
    if in_library is not None and not settings.index.exists():
        render.say(f"{in_library} is a new library, in {render.short(settings.index)}")
    if not paths:
        if store is None:
            raise UsageError("nothing to index: give a folder or a file, as in `bt index ~/Pictures`")
        if watch or json:
            raise UsageError("--watch and --json are about a run over a PATH: give one beside --store")
        _move(settings, store)
        return
    if device is not None:  # refuse a missing device, also where nothing is to be encoded
        from bridgetower import choose_runtime

        choose_runtime(settings.device, settings.precision)
    choice = EngineChoice(engine, workers, shared_paths)
    with (
        library(settings, preprocessing=preprocessing, engine=choice) as pictures,
        closing(Meter("indexing", "files")) as meter,
    ):
        how: dict[str, Any] = {
            "exclude": exclude or (),
            "default_excludes": not no_default_excludes,
            "hidden": hidden,
            "follow_symlinks": follow_symlinks,
            "retry": retry,
            "max_pixels": max_pixels,
            "on_progress": lambda progress: meter.update(
                progress.done, progress.total, "indexing", "files", workers=progress.workers
            ),
            "on_publish": lambda done, total: meter.update(done, total, "arranging for search"),
            "keep_features": keep_features,
            "keep_under": keep_under,
            "store": store,
            "on_keep": lambda done, total: meter.update(done, total, "keeping features", "pictures"),
        }
        if watch:
            _report_watch(pictures.watch(paths, **how), meter, len(paths), json=json)
            return
        report = pictures.index(paths, **how)
        _report_run(report, meter.close(), json=json)
    if report.skipped:
        raise typer.Exit(SOME_SKIPPED)


def _move(settings: Settings, store: str) -> None:
    """Let another store recall for the index, and say so."""
    with library(settings) as pictures, closing(Meter("arranging for search", "pictures")) as meter:
        render.note(pictures.move_store(store, on_publish=meter.update))
        summary = pictures.summary()
    recalls = "FAISS" if summary.store is None else summary.store.address
    render.say(f"{recalls} recalls for {render.counted(summary.images, 'picture')}")


def _report_run(report: "IndexReport", seconds: float, *, json: bool) -> None:
    """Report one run."""
    if not json:
        render.skipped(report.skipped)
    for root in report.absent:
        render.away(root)
    _report_unread(report.unread)
    _report_left_out(report.left_out)
    _report_dropped(report.left_out)
    render.in_cloud(report.in_cloud)
    if report.renewed:
        render.say(
            f"note: {render.counted(report.renewed, 'picture')} encoded again, as this version reads them better"
        )
    render.note(report.note)
    if json:
        _print_run(report, report.skipped, seconds)
        return
    others = sum(report.ignored.values())
    render.say(
        f"indexed {report.encoded}, reused {report.reused}, unchanged {report.unchanged}, removed {report.removed}, "
        f"skipped {len(report.skipped)}{_more(report)}: {render.counted(report.files, 'file')} in {seconds:.1f} s"
        + (f"; ignored {render.counted(others, 'file')} of other kinds" if others else "")
        + (f"; left out {report.excluded} by patterns" if report.excluded else "")
        + (f"; passed over {render.counted(report.links, 'link')} (--follow-symlinks)" if report.links else "")
    )
    if report.kept is not None:
        kept = report.kept
        render.say(f"kept the features of {render.counted(kept.images, 'picture')}, {render.size(kept.bytes)}")


def _more(report: "IndexReport") -> str:
    """Return the counts that are seldom above 0."""
    unread = sum(report.unread.values())
    return (f", without their extra {unread}" if unread else "") + (
        f" ({render.counted(report.redated, 'date')} changed)" if report.redated else ""
    )


def _print_run(report: "IndexReport", skipped: Sequence[Skipped], seconds: float) -> None:
    """Print one run for programs: each of the `skipped` files, then the counts."""
    for skip in skipped:
        render.json_line({"skipped": skip.path, "reason": skip.reason})
    render.json_line(
        {
            "files": report.files,
            "indexed": report.encoded,
            "renewed": report.renewed,
            "reused": report.reused,
            "unchanged": report.unchanged,
            "redated": report.redated,
            "removed": report.removed,
            "skipped_total": len(report.skipped),
            "ignored": report.ignored,
            "unread": report.unread,
            "excluded": report.excluded,
            "links": report.links,
            "absent": report.absent,
            "note": report.note,
            "kept": None if report.kept is None else report.kept.images,
            "kept_bytes": None if report.kept is None else report.kept.bytes,
            "seconds": seconds,
        }
    )


def _report_watch(reports: "Iterator[IndexReport]", meter: Meter, paths: int, *, json: bool) -> None:
    """Report the first run over this number of paths, and the changes of each later run, without end."""
    last = next(reports)
    _report_run(last, meter.close(), json=json)
    render.say(f"watching {render.counted(paths, 'path')}; Ctrl-C ends it")
    for report in reports:
        seconds = meter.close()
        for folder in sorted({*report.absent} - {*last.absent}):
            render.away(folder)
        if report.note != last.note:
            render.note(report.note)
        _report_dropped(report.left_out)
        told = set(last.skipped)
        new = tuple(skip for skip in report.skipped if skip not in told)
        changed = report.encoded or report.reused or report.removed or new
        if changed and json:
            _print_run(report, new, seconds)
        elif changed:
            render.skipped(new)
            render.say(
                f"{datetime.now():%H:%M:%S} indexed {report.encoded}, reused {report.reused}, "
                f"removed {report.removed}, skipped {len(new)}"
            )
        last = report


def _report_unread(extras: Mapping[str, int]) -> None:
    """Name each extra that pictures need and that is not installed, with the command."""
    if extras:
        from bridgetower import how_to_install

        for extra, number in extras.items():
            pictures = f"{render.counted(number, 'picture')} {'needs' if number == 1 else 'need'}"
            render.say(f"note: {pictures} the extra {extra} and cannot be indexed without it: {how_to_install(extra)}")


def _report_left_out(folders: "Sequence[LeftOut]") -> None:
    """Say how many pictures are in folders that are left out by default."""
    folders = [one for one in folders if one.pictures or not one.all_counted]
    numbers = [("" if one.all_counted else "at least ") + str(one.pictures) for one in folders]
    if folders:
        first = numbers[0] + (" picture" if numbers[0] == "1" else " pictures")
        counts = [f"{number} in {one.kind}" for number, one in zip([first, *numbers[1:]], folders, strict=True)]
        render.say(f"note: left out {', '.join(counts)} (--no-default-excludes takes them in)")


def _report_dropped(folders: "Sequence[LeftOut]") -> None:
    """Say how many indexed pictures were dropped because their folders are left out by default."""
    dropped = [one for one in folders if one.example is not None]
    if dropped:
        number = sum(one.dropped for one in dropped)
        *kinds, last = (one.kind for one in dropped)
        pictures = f"{render.counted(number, 'indexed picture')} in {', '.join(kinds)}{' and ' * bool(kinds)}{last}"
        examples = ", ".join(render.short(one.example) for one in dropped if one.example is not None)
        render.say(
            f"note: {pictures} {'is' if number == 1 else 'are'} left out now, as in {examples}; --no-default-excludes "
            "takes them in again without encoding, until `bt prune`"
        )
