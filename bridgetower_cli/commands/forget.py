"""`bt forget`."""

from pathlib import Path
from typing import Annotated

import typer

from bridgetower_cli import render
from bridgetower_cli.settings import Index, Json, named_path, settle


def forget(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", parser=named_path, help="Folders, with all below them, or files."),
    ],
    json: Json = False,
    index: Index = None,
) -> None:
    """Take folders and files out of the index. The pictures themselves are not touched, and need not exist any more.

    What the model made of them is kept until `bt prune`, so that nothing is encoded again where they come back. The
    next `bt index` of a folder around them takes them in again.
    """
    settings = settle(index=index)
    from bridgetower.upkeep import forget as take_out
    from bridgetower.writer import Writer

    with Writer.resume(settings.index) as writer:
        forgotten = take_out(writer, paths)
        orphans = writer.manifest.counts().orphans
    if json:
        for one in forgotten:
            render.json_line({"path": one.path, "files": one.files})
    kept = f"; the vectors of {render.counted(orphans, 'picture')} without a file are kept until `bt prune`"
    total = sum(one.files for one in forgotten)
    render.say(f"forgot {render.counted(total, 'file')}{kept if orphans else ''}")
