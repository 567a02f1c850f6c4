"""Show the pictures of hits on a terminal, each beside its lines of text."""

import base64
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridgetower.errors import MissingExtraError, PictureError
from bridgetower.records import Hit
from bridgetower_cli import render
from bridgetower_cli.asking.hits import against_of, name_of
from bridgetower_cli.terminal.graphics import Graphics, Protocol, ask
from bridgetower_cli.terminal.tables import Column

_COLUMNS, _ROWS = 32, 8  # of characters, the most for a picture
_LEAST_COLUMNS, _LEAST_ROWS = 20, 4  # of a terminal
_GAP = 2
_SIDE = 512  # pixels


def obstacle() -> str | None:
    """Return why no pictures can be shown on stdout; None if they can. Raises MissingExtraError."""
    if sys.stdout is None or not sys.stdout.isatty():
        return "pictures are shown on a terminal only"
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return "no pictures: this terminal shows none (TERM=dumb)"
    if os.environ.get("NO_COLOR"):
        return "no pictures: there are none without colours (NO_COLOR)"
    columns, rows = _size()
    if columns < _LEAST_COLUMNS or rows < _LEAST_ROWS:
        return f"no pictures: the terminal is too small, or does not say its size ({columns} columns, {rows} rows)"
    from importlib.util import find_spec

    if find_spec("textual_image") is None:
        from bridgetower import how_to_install

        raise MissingExtraError(Path("--preview"), f"needs the extra preview: {how_to_install('preview')}")
    return None


def show(hits: Sequence[Hit]) -> None:
    """Write hits to the terminal, each with its picture, as they are read. Raises ResourceError, OutputError."""
    from bridgetower import thumbnails

    canvas = _Canvas(ask())
    for hit, picture in zip(hits, thumbnails([hit.path for hit in hits], _SIDE), strict=True):
        lines = _lines(hit, canvas.indent)
        if isinstance(picture, PictureError):
            canvas.write([*lines, f"no picture: {render.harmless(picture.reason)}"], 0)
        else:
            canvas.write(lines, canvas.draw(picture))


def _size() -> tuple[int, int]:
    """Return the columns and rows of the terminal; zeros if it does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file
        return 0, 0


def _lines(hit: Hit, indent: int) -> list[str]:
    """Return what is written beside a picture."""
    facts = [] if hit.verified else ["unverified"]
    facts += [f"match {render.score(hit.match)}"] if hit.match is not None else []
    facts += [f"not {against_of(hit)}"] if hit.against else []
    facts += [f"similarity {render.score(hit.similarity)}"] if hit.similarity is not None else []
    names = render.table_lines([Column("", path=True)], [[name_of(hit)]], header=False, indent=indent)
    lines = ["  ".join(facts), *names]
    return lines if hit.taken_at is None else [*lines, f"{hit.taken_at:%Y-%m-%d %H:%M}"]


def _folded(lines: Sequence[str], width: int) -> list[str]:
    """Return lines, links among them, in lines of at most `width`."""
    from rich.console import Console
    from rich.text import Text

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=max(1, width))
    console.print(Text("\n").join(map(Text.from_ansi, lines)), overflow="fold")
    return [line.rstrip() for line in file.getvalue().splitlines()]


class _Canvas:
    """The place of pictures at the left of the terminal, in the best protocol that it has."""

    def __init__(self, graphics: Graphics) -> None:
        columns, rows = _size()
        self._graphics = graphics
        self._columns, self._rows = min(_COLUMNS, columns // 3), min(_ROWS, rows - 2)
        self.indent = self._columns + _GAP

    def draw(self, jpeg: bytes) -> int:
        """Draw a picture, and return its rows; the cursor is at the start of the line below. Raises OutputError."""
        if self._graphics.protocol is Protocol.ITERM:
            drawn, rows = _for_iterm(jpeg, self._columns, self._rows), self._rows
        else:
            try:
                drawn = self._drawn(jpeg)
            except OSError as error:  # the library writes a part to stdout by itself
                raise render.unwritable(error) from error
            rows = drawn.count("\n")
        render.verbatim(drawn)
        return rows

    def write(self, lines: Sequence[str], rows: int) -> None:
        """Write lines beside the picture of so many rows that was just drawn, then an empty one."""
        lines = _folded(lines, _size()[0] - self.indent)  # a line that ran over would go on below the picture
        up = f"\x1b[{rows}A" if rows else ""
        beside = "".join(f"\x1b[{self.indent}C{line}\r\n" for line in lines)
        down = "\n" * max(0, rows - len(lines))
        render.verbatim(f"{up}{beside}{down}\n")

    def _drawn(self, jpeg: bytes) -> str:
        """Return a picture as the library writes it, fitted to the place."""
        from rich.console import Console

        with _nothing_asked(self._graphics.cell):
            from textual_image import renderable

            kinds = {
                Protocol.KITTY: renderable.TGPImage,
                Protocol.SIXEL: renderable.SixelImage,
                Protocol.HALF_CELLS: renderable.HalfcellImage,
            }
            file = io.StringIO()
            console = Console(
                file=file,
                force_terminal=True,
                width=self._columns,
                height=self._rows,
                # A placeholder of Kitty has the number of its picture as its colour.
                color_system="truecolor" if self._graphics.protocol is Protocol.KITTY else "auto",
            )
            console.print(kinds[self._graphics.protocol](io.BytesIO(jpeg), width="auto", height="auto"), end="")
        return file.getvalue()


def _for_iterm(jpeg: bytes, columns: int, rows: int) -> str:
    """Return a picture in the protocol of iTerm2, as large as fits in the place.

    The lines are made first, so that nothing scrolls between the two sequences that keep and restore the cursor.
    """
    encoded = base64.b64encode(jpeg).decode("ascii")
    options = f"inline=1;size={len(jpeg)};width={columns};height={rows};preserveAspectRatio=1"
    return "\n" * rows + f"\x1b7\x1b[{rows}A\x1b]1337;File={options}:{encoded}\x07\x1b8"


@contextmanager
def _nothing_asked(cell: tuple[int, int] | None) -> Iterator[None]:
    """Keep textual-image from asking the terminal in this block, which it does when it is imported, too.

    It waits a tenth of a second for an answer, takes typed letters for one, and leaves late ones to the shell. Without
    `sys.__stdin__` it asks nothing; the size of a character is in two variables that it reads.
    """
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)  # it would tell that it could not ask
    names = ("TEXTUAL_CELL_WIDTH", "TEXTUAL_CELL_HEIGHT")
    before, stdin = {name: os.environ.get(name) for name in names}, sys.__stdin__
    sys.__stdin__ = None  # type: ignore[misc]
    if cell is not None:
        os.environ.update(zip(names, map(str, cell), strict=True))
    try:
        yield
    finally:
        sys.__stdin__ = stdin  # type: ignore[misc]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
