"""`bt prune`."""

from typing import Annotated

import typer

from bridgetower_cli import render
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Index, InLibrary, Json, Quiet, StorePasswordFile, settle
from bridgetower_cli.terminal.tables import Column


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, about how much that is, and change nothing.")
    ] = False,
    json: Json = False,
    index: Index = None,
    in_library: InLibrary = None,
    store_password_file: StorePasswordFile = None,
    quiet: Quiet = False,
) -> None:
    """Remove what leads to no picture any more, and free its space.

    Files that are gone from the disk are dropped, unless nothing at all is left in the folder that was indexed: that is
    what a disk that is not mounted looks like. Pictures without a file are removed; should one come back, it is encoded
    again.
    """
    with (
        library(settle(index=index, library=in_library, store_password_file=store_password_file)) as pictures,
        Meter("looking for", "files") as meter,
    ):
        pruned = pictures.prune(dry_run=dry_run, on_progress=meter.update)
    for root in pruned.absent:
        render.away(root)
    render.note(pruned.note)
    if json:
        render.json_line(
            {
                "files": pruned.files,
                "pictures": pruned.images,
                "features": pruned.features,
                "bytes": pruned.bytes,
                "absent": list(pruned.absent),
                "dry_run": dry_run,
            }
        )
        return
    rows = [
        ["files that are gone", str(pruned.files)],
        ["pictures without a file", str(pruned.images)],
        ["pictures kept for searches", str(pruned.features)],
        ["would free at most about" if dry_run else "freed", render.size(pruned.bytes)],
    ]
    render.table([Column(""), Column("", number=True)], rows, header=False)
