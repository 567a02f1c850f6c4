"""`bt fill`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower.errors import NoIndexError, PictureError, UsageError
from bridgetower.records import Word, WordCount
from bridgetower_cli import render
from bridgetower_cli.failures import no_match
from bridgetower_cli.libraries import ask_library, ask_model
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    Device,
    FeaturesCache,
    FeaturesDir,
    Index,
    InLibrary,
    Json,
    NoServer,
    Precision,
    Quiet,
    RequiredText,
    Settings,
    StorePasswordFile,
    Top,
    Verbose,
    model_name,
    named_path,
    settle,
    whole,
)
from bridgetower_cli.terminal.hyperlinks import linked
from bridgetower_cli.terminal.tables import Column

if TYPE_CHECKING:
    from bridgetower import Filled, Library
    from bridgetower.serving.local.client import RemoteLibrary


def fill(
    text: RequiredText,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", parser=named_path, help="Read the words out of this picture; may be given several times."
        ),
    ] = None,
    top: Top = 5,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="Count pictures instead: each one that the sentence fits has one vote, for its own word.",
        ),
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(
            parser=whole(100), metavar="N", help="Read so many pictures of the index. [default: 20, on a GPU 100]"
        ),
    ] = None,
    json: Json = False,
    features_cache: FeaturesCache = None,
    features_dir: FeaturesDir = None,
    store_password_file: StorePasswordFile = None,
    index: Index = None,
    in_library: InLibrary = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            parser=model_name,
            help="As for bt match with --image, else as for bt search. [env with --image: BT_MODEL]",
        ),
    ] = None,
    device: Device = None,
    precision: Precision = None,
    no_server: NoServer = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fill in each <mask> of a text from pictures.

    With --image these are the pictures that you name. Without, the whole index answers: the pictures that fit the
    sentence best are found, and each has the say that its match gives it. With --each every picture has one vote: its
    own word, if the sentence with that word is true of it.

    Exits with 1 if there is nothing to read, as in an empty index, or with --each nothing to count.
    """
    from bridgetower.inputs import masked

    masked(text)  # may raise, so before a model is fetched
    for option, given in (("--each", each), ("--depth", depth is not None)):
        if image and given:
            raise UsageError(f"{option} is for the pictures of the index: leave it out, or --image")
    settings = settle(
        index=index,
        library=in_library,
        needs_index=not image,
        model=model,
        device=device,
        precision=precision,
        features_cache=features_cache,
        features_dir=features_dir,
        store_password_file=store_password_file,
        no_server=no_server,
        verbose=verbose,
    )
    filled = _from_images(text, image, top, settings) if image else _from_library(text, top, depth, each, settings)
    render.skipped(filled.skipped)
    render.passed_over(filled.gone, filled.barred, filled.away)
    render.in_cloud(filled.in_cloud)
    if not filled.words:
        raise no_match("none of the pictures could be read")
    if each:
        _show_counts(filled, json)
    elif json:
        for word in filled.words:
            render.json_line(_fields(word))
    else:
        _table(filled.words)


def _from_images(text: str, images: list[Path], top: int, settings: Settings) -> "Filled":
    from bridgetower.files.content import unreachable

    paths = [Path(os.path.abspath(path)) for path in images]
    for error in unreachable(paths):
        raise error  # before a model is fetched
    with Meter("reading", "pictures") as meter:
        filled = ask_model(settings, lambda asked: asked.fill(text, paths, top=top, on_progress=meter.update))
    for skip in filled.skipped:  # the user named each picture, so a result without one would mislead
        raise PictureError(skip.path, skip.reason)
    return filled


def _from_library(text: str, top: int, depth: int | None, each: bool, settings: Settings) -> "Filled":
    with Meter("reading", "pictures") as meter:

        def ask(asked: "Library | RemoteLibrary") -> "tuple[Filled, bool]":
            """Return the words, and whether the index holds no picture."""
            filled = asked.fill(text, top=top, depth=depth, each=each, on_progress=meter.update)
            return filled, not filled.words and not len(asked)

        try:
            filled, is_empty = ask_library(settings, ask)
        except NoIndexError as error:
            raise NoIndexError(f"{render.no_index(error)}, or name a picture with --image FILE") from error
        if is_empty:
            raise no_match(f"{render.empty_index(settings.index)}, or name a picture with --image FILE")
    return filled


def _fields(word: Word) -> dict[str, object]:
    return {
        "mask": word.mask,
        "rank": word.rank,
        "token": word.token,
        "probability": word.probability,
        "images": word.images,
        "count": word.count,
    }


def _first(images: tuple[Path, ...]) -> str:
    return linked(render.short(images[0]), images[0]) if images else ""


def _show_counts(filled: "Filled", json: bool) -> None:
    """Show how many of the pictures that fit say which word. Raises typer.Exit if none fits."""
    read = render.counted(filled.read, "picture")
    if not filled.counts:
        raise no_match(f"none of {read} fits the sentence with its own word in it", verified=filled.read)
    render.say(f"counted {filled.fitting} of {read}: the sentence with its own word is true of each")
    if json:
        for count in filled.counts:
            render.json_line(_count_fields(count))
    else:
        _count_table(filled.counts)


def _count_fields(count: WordCount) -> dict[str, object]:
    return {
        "mask": count.mask,
        "rank": count.rank,
        "token": count.token,
        "count": count.count,
        "share": count.share,
        "images": count.images,
    }


def _table(words: tuple[Word, ...]) -> None:
    columns = [Column("word"), Column("probability", number=True), Column("seen in", path=True)]
    _by_mask(
        words,
        columns,
        [[render.visible(word.token), render.score(word.probability), _first(word.images)] for word in words],
    )


def _count_table(counts: tuple[WordCount, ...]) -> None:
    columns = [Column("word"), Column("count", number=True), Column("share", number=True), Column("as in", path=True)]
    _by_mask(
        counts,
        columns,
        [[render.visible(one.token), str(one.count), f"{100 * one.share:.1f}%", _first(one.images)] for one in counts],
    )


def _by_mask(words: Sequence[Word | WordCount], columns: list[Column], rows: list[list[str]]) -> None:
    """Write a table, with a column for the mask if there are several."""
    masks = 1 + max(word.mask for word in words)
    if masks > 1:
        columns.insert(0, Column("mask", number=True))
        rows = [[f"{word.mask + 1} of {masks}", *row] for word, row in zip(words, rows, strict=True)]
    render.table(columns, rows)
