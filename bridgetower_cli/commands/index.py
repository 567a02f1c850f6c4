"""`bt index`."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import NoIndexError, UsageError
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
    settle,
)

SOME_SKIPPED = 3


def index(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", parser=named_path, help="Folders, walked to any depth, or files."),
    ],
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
    from bridgetower.indexing import batch_size
    from bridgetower.indexing import index as bring_up_to_date
    from bridgetower.scan import scan
    from bridgetower.store import Writer

    scan(paths)  # raises for a path that does not exist, before a model is fetched for it
    name, own_preprocessing, settings = _made_with(settings)
    chosen = engine.find(name, settings, preprocessing=preprocessing or own_preprocessing)
    began = time.monotonic()
    with Writer.open(settings.index, chosen.fingerprint) as writer, Meter("indexing", "files") as meter:
        report = bring_up_to_date(
            paths,
            writer,
            chosen.checkpoint.preprocessing,
            lambda: chosen.encoder,
            batch_size=batch_size(chosen.runtime),
            on_progress=lambda progress: meter.update(progress.done, progress.total),
        )
    render.skipped(report.skipped)
    for root in report.absent:
        render.say(
            f"note: nothing found in {render.short(root)}, so what the index has of it is kept: is its disk there?"
        )
    others = _tell_unread(report.ignored)
    render.say(
        f"indexed {report.encoded}, reused {report.reused}, unchanged {report.unchanged}, removed {report.removed}, "
        f"skipped {len(report.skipped)}: {render.counted(report.files, 'file')} in {time.monotonic() - began:.1f} s"
        + (f"; ignored {render.counted(others, 'file')} of other kinds" if others else "")
    )
    if report.skipped:
        raise typer.Exit(SOME_SKIPPED)


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


def _made_with(settings: Settings) -> tuple[str, str | None, Settings]:
    """Model, preprocessing and the settings, with the precision: an index that has pictures keeps its own; a new one
    takes what the settings say, and None for what belongs to the model.

    Raises StoreError for what is wrong with the index, before a model is fetched for it.
    """
    from bridgetower.store import Store, require_ours, require_place

    try:
        with Store.open(settings.index) as store:
            summary = store.summary()
    except NoIndexError:
        require_place(settings.index)
        return settings.model, None, settings
    if not (summary.images or summary.orphans):
        return settings.model, None, settings
    require_ours(settings.index, summary.fingerprint)
    settings = _in_family(summary.fingerprint.precision_family, settings)
    preprocessing = summary.fingerprint.preprocessing
    if settings.named_model is not None:
        return settings.named_model, preprocessing, settings
    own = engine.model_of(summary.fingerprint)
    if settings.model not in (own, DEFAULT_MODEL):
        render.say(f"note: the index keeps its model {own}; {settings.model} is for new ones")
    return own, preprocessing, settings


def _in_family(family: str, settings: Settings) -> Settings:
    """The settings with the precision in which to add to an index that has pictures of this family: what --precision
    says, which may be refused, else one of the family."""
    from bridgetower.encoder import precision_for

    precision = settings.precision
    if settings.named_precision is None and precision != "auto" and (precision == INT8) != (family == INT8):
        render.say(f"note: the index keeps its precision, {family}; {precision} is for new ones")
        precision = "auto"
    return replace(settings, precision=precision_for(family, precision))
