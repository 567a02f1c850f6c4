"""Show hits in the place of the list, and do what the user wants of them after it."""

from collections.abc import Callable, Sequence

import typer

from bridgetower.records import Hit
from bridgetower_cli import render
from bridgetower_cli.failures import SOME_SKIPPED
from bridgetower_cli.settings import Settings
from bridgetower_cli.showing.options import Showing
from bridgetower_cli.showing.placing import note_indexed, place, view
from bridgetower_cli.showing.question import Question


def show_instead(hits: Sequence[Hit], showing: Showing, asked: Callable[[], Question]) -> bool:
    """Print the page, or the hits beside their pictures; return False where a list is wanted instead.

    Raises MissingExtraError, OutputError, ResourceError.
    """
    if showing.prints_page:
        from bridgetower_cli.showing import page

        page.to_stdout(asked(), hits)
        return True
    if not showing.preview:
        return False
    from bridgetower_cli.showing import preview

    if (obstacle := preview.obstacle()) is not None:
        render.note(obstacle)
        return False
    preview.show(hits)
    return True


def follow(hits: Sequence[Hit], showing: Showing, asked: Callable[[], Question], indexed: Settings | None) -> None:
    """Write the page, place and open the files. `indexed` are the settings of the index, if there is one.

    Exits with 3 where files were skipped. Raises OutputError, ResourceError.
    """
    if showing.html is not None and not showing.prints_page:
        from bridgetower_cli.showing import page

        size = page.write(showing.html, asked(), hits)
        render.say(f"wrote {render.short(showing.html)}: {render.counted(len(hits), 'picture')}, {render.size(size)}")
    files = [hit.path for hit in hits]
    is_done = place(files, showing)
    if indexed is not None:
        note_indexed(showing, indexed)
    is_done = view(files[: showing.viewed]) and is_done
    if not is_done:
        raise typer.Exit(SOME_SKIPPED)
