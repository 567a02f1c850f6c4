"""Options for what becomes of hits besides the list, checked before anything is searched."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import UsageError
from bridgetower_cli import render
from bridgetower_cli.settings import named_path, whole

STDOUT = Path("-")
_MOST_OPENED = 50  # pictures; each may get a window

Html = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=named_path,
        help='Write the results to a page, too: one new file with small pictures in it, for any browser; "-" prints it '
        "in the place of the table.",
    ),
]
Preview = Annotated[
    bool, typer.Option("--preview", help="Show the pictures on the terminal, beside their lines (extra preview).")
]
Open = Annotated[bool, typer.Option("--open", help="Open the first picture in the viewer of the desktop.")]
OpenFirst = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=whole(3, most=_MOST_OPENED),
        help=f"Open the first N pictures in it, at most {_MOST_OPENED}.",
    ),
]
CopyTo = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=named_path,
        help="Copy the pictures to this folder; a name that is taken gets -2, -3, and what is there already stays.",
    ),
]
LinkTo = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", parser=named_path, help="Put symbolic links to the pictures into this folder, in the same way."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="With --copy-to or --link-to: say what would be done, and write nothing there."),
]


@dataclass(frozen=True, slots=True)
class Showing:
    """The options that say where hits go besides the list. Raises UsageError, and MissingExtraError for pictures."""

    html: Path | None = None
    preview: bool = False
    viewed: int = 0  # how many are opened
    copy_to: Path | None = None
    link_to: Path | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.copy_to is not None and self.link_to is not None:
            raise UsageError("--copy-to and --link-to place the same pictures: choose one")
        if self.dry_run and self.folder is None:
            raise UsageError("--dry-run says what --copy-to or --link-to would do: give one of them")
        if self.folder is not None and os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UsageError(f"{render.short(self.folder)}: it is no folder; give one, or a new name")
        if self.html is not None and not self.prints_page:
            _require_new(self.html)
        if self.viewed:
            _require_desktop()
        if self.preview:
            from bridgetower_cli.showing.preview import obstacle

            obstacle()  # raises where the extra is missing; any other is told with the results

    @property
    def prints_page(self) -> bool:
        """Whether the page is the result on stdout."""
        return self.html == STDOUT

    @property
    def folder(self) -> Path | None:
        """The folder for copies or links."""
        return self.copy_to or self.link_to

    def require_one_format(self, *others: str | bool) -> None:
        """Raise UsageError if stdout would get two formats; `others` are the options of those that are wanted."""
        mine = ("--html -" if self.prints_page else "", "--preview" if self.preview else "")
        wanted = [str(option) for option in (*mine, *others) if option]
        if len(wanted) > 1:
            raise UsageError(
                f"{' and '.join(wanted)} are {'two' if len(wanted) == 2 else len(wanted)} formats: choose one"
            )

    def require_outside(self, index: Path) -> None:
        """Raise UsageError for a page, or a folder of copies, in the folder of the index."""
        for place in (self.folder, None if self.prints_page else self.html):
            if place is not None and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(index)):
                raise UsageError(
                    f"{render.short(place)}: it lies in the folder of the index, which holds its own files only; "
                    "give another"
                )


def _require_new(file: Path) -> None:
    if os.path.lexists(file):
        kind = "a folder" if file.is_dir() else "there already"
        raise UsageError(f"{file}: it is {kind}, and nothing is replaced; give a new name")
    if not file.parent.is_dir():
        raise UsageError(f"{file}: there is no folder {file.parent}; make it, or give another")


def _require_desktop() -> None:
    from bridgetower.serving.desktop import file_manager

    if file_manager() is None:
        raise UsageError(
            "there is no desktop here to open pictures on: run it where there is one (on Linux DISPLAY or "
            "WAYLAND_DISPLAY is set, and xdg-open is installed), or take the pictures with --copy-to DIR"
        )
