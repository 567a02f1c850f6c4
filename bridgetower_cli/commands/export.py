"""`bt export`."""

from pathlib import Path
from typing import Annotated

import typer

from bridgetower_cli import render
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Index, InLibrary, Quiet, named_path, settle


def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=named_path, help="Where to write it: a new or empty folder.")
    ],
    index: Index = None,
    in_library: InLibrary = None,
    quiet: Quiet = False,
) -> None:
    """Write the index as files that any program reads.

    Prints their folder.

    Vectors as npy, all else as lines of JSON. `bt import` makes an index of them, here or on another machine. The
    folder is there when everything is in it.
    """
    with library(settle(index=index, library=in_library)) as pictures, Meter("exporting", "pictures") as meter:
        exported = pictures.export(folder, on_progress=meter.update)
    render.say(
        f"exported {render.counted(exported.images, 'picture')} ({exported.orphans} without a file), "
        f"{render.counted(exported.files, 'file')}, {exported.skipped} skipped: {render.size(exported.bytes)}"
    )
    render.paths([exported.folder])
