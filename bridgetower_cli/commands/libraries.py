"""`bt libraries`."""

from pathlib import Path

from bridgetower.errors import BridgeTowerError, NoIndexError
from bridgetower_cli import render
from bridgetower_cli.config.file import place, read
from bridgetower_cli.config.places import faults, libraries
from bridgetower_cli.settings import Json, Quiet
from bridgetower_cli.terminal.tables import Column


def list_libraries(json: Json = False, quiet: Quiet = False) -> None:
    """Show the indexes that have a name, with their pictures and folders.

    `bt index PHOTOS --library NAME` makes one, and each command that takes --index takes --library NAME instead.
    """
    file = read(place())
    shown = [(name, folder, *_counted(folder)) for name, folder in libraries(file).items()]
    if json:
        for name, folder, pictures, problem in shown:
            render.json_line({"name": name, "folder": folder, "pictures": pictures, "problem": problem})
    else:
        render.table(
            [Column("library"), Column("pictures", number=True), Column("folder", path=True)],
            [
                [
                    render.visible(name),
                    render.UNKNOWN if pictures is None else str(pictures),
                    render.visible(str(folder)),
                ]
                for name, folder, pictures, _ in shown
            ],
        )
    for problem in (*(problem for *_, problem in shown), *faults(file)):
        render.note(problem)


def _counted(folder: Path) -> tuple[int | None, str | None]:
    """Return the number of pictures of an index, and why it is not known; an index that is not there has neither."""
    from bridgetower.library import Library

    try:
        with Library(folder) as library:
            return len(library), None
    except NoIndexError:
        return None, None
    except BridgeTowerError as error:
        return None, str(error)
