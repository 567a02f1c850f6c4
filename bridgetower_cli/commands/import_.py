"""`bt import`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import UsageError
from bridgetower_cli import render
from bridgetower_cli.failures import SOME_SKIPPED
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Index, InLibrary, Quiet, StorePasswordFile, named_path, settle


def import_(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", parser=named_path, help="What `bt export` wrote.")
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=named_path, help="Instead of FOLDER: an npy file of vectors that another model made."
        ),
    ] = None,
    paths: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=named_path, help="With --vectors: a line of JSON for each, the path of its picture."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --vectors: what to call the model that made them.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=named_path,
            help="With --vectors: an npy file of vectors of typical texts, by which recall is measured; 256 are kept.",
        ),
    ] = None,
    map: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Paths that begin with OLD begin with NEW on this machine; may be given several times.",
        ),
    ] = None,
    index: Index = None,
    in_library: InLibrary = None,
    store_password_file: StorePasswordFile = None,
    quiet: Quiet = False,
) -> None:
    """Add vectors that were made elsewhere, or begin an index of them.

    FOLDER is an export of another index. With --vectors it is those of any other model, one for each picture: `bt
    search TEXT --query-vector` then recalls by them and verifies with a model of its own.

    Everything is checked before anything is written. Stop it at any time: the same command goes on from there.

    Exits with 3 if pictures of --vectors could not be read: each is named, with the reason, the others are added.
    """
    moves = _moves(map or [])
    if (folder is None) == (vectors is None):
        raise UsageError("nothing to import, or two things: give a FOLDER that `bt export` wrote, or --vectors FILE")
    if vectors is None and (paths or name or queries):
        raise UsageError("--paths, --name and --queries belong to --vectors; a FOLDER has all that it needs")
    if vectors is not None and (paths is None or name is None):
        raise UsageError("--vectors needs --paths FILE, a path for each of them, and --name, the model that made them")
    settings = settle(index=index, library=in_library, needs_index=False, store_password_file=store_password_file)
    later = "its pictures are shown" if vectors is None else "import its pictures again"
    for new in dict.fromkeys(moves.values()):
        if not os.path.lexists(new):
            render.say(f"note: {render.short(new)}, which --map names, is not there now: {later} once it is")
    with library(settings) as pictures, Meter("importing", "rows") as meter:
        if folder is not None:
            report = pictures.import_folder(folder, moves=moves, on_progress=meter.update)
        else:
            assert vectors is not None and paths is not None and name is not None
            report = pictures.import_vectors(
                vectors, paths, name, queries=queries, moves=moves, on_progress=meter.update
            )
    render.skipped(report.skipped)
    for old in report.unused:
        render.say(f"note: no path begins with {old}, which --map names")
    if report.differing:
        render.say(
            f"note: {render.counted(report.differing, 'picture')} came with quite another vector than the index has, "
            "which it keeps; for the others make a new index with --index DIR"
        )
    if report.queries:
        render.say(f"took {render.counted(report.queries, 'vector')} of texts, by which recall is measured")
    skipped = f", skipped {len(report.skipped)}" if vectors is not None else ""
    render.say(f"imported {report.images}, known {report.known}{skipped}: {render.counted(report.files, 'file')}")
    render.note(report.note)
    if report.skipped:
        raise typer.Exit(SOME_SKIPPED)


def _moves(given: list[str]) -> dict[str, Path]:
    moves = {}
    for move in given:
        old, equals, new = move.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--map {move}: write it as OLD=NEW, as in --map /srv/photos=/home/me/photos")
        moves[old] = Path(os.path.abspath(os.path.expanduser(new)))
    return moves
