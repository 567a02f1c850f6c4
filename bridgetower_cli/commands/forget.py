"""`bt forget`."""

from pathlib import Path
from typing import Annotated

import typer

from bridgetower_cli import render
from bridgetower_cli.libraries import library
from bridgetower_cli.settings import Index, InLibrary, Json, Quiet, named_path, settle


def forget(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", parser=named_path, help="Folders, with all below them, or files."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken out, and change nothing.")
    ] = False,
    json: Json = False,
    index: Index = None,
    in_library: InLibrary = None,
    quiet: Quiet = False,
) -> None:
    """Take folders and files out of the index. The pictures themselves are not touched, and need not exist any more.

    What the model made of them is kept until `bt prune`, so that nothing is encoded again where they come back. The
    next `bt index` of a folder around them takes them in again.
    """
    with library(settle(index=index, library=in_library)) as pictures:
        report = pictures.forget(paths, dry_run=dry_run)
    render.note(report.note)
    if json:
        for one in report.forgotten:
            render.json_line({"path": one.path, "files": one.files, "dry_run": dry_run})
    total = render.counted(sum(one.files for one in report.forgotten), "file")
    without = render.counted(report.orphans, "picture")
    said, are = (f"would forget {total}", "would be") if dry_run else (f"forgot {total}", "are")
    kept = f"; the vectors of {without} without a file {are} kept until `bt prune`"
    render.say(f"{said}{kept if report.orphans else ''}")
