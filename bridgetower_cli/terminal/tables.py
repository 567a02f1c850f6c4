"""Lay out tables without borders, fitted to a terminal."""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat, zip_longest

from bridgetower_cli.terminal import hyperlinks

UNKNOWN = "-"  # in a table, for a missing value
NARROWEST = 8  # characters; the least width of a column of text
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"  # on a terminal; no colours, so NO_COLOR leaves them


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Numbers are right-aligned and uncut; text is wrapped on a narrow terminal."""

    name: str
    number: bool = False
    path: bool = False  # broken after a separator only; other text also at spaces


def table_lines(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    *,
    on_terminal: bool,
    header: bool = True,
    indent: int = 0,
) -> list[str]:
    """Return the lines of a table; those `on_terminal` are fitted to what an `indent` leaves of it, others are uncut.

    A `Linked` cell is a link on a terminal that shows links. A cell breaks at a space, or after the separator of a
    path, and never within a word: where a word is wider than the terminal, the line runs over.
    """
    names = [column.name for column in columns]
    rows = [list(row) for row in rows]
    linked = on_terminal and hyperlinks.are_shown()
    urls = [[getattr(cell, "url", "") if linked else "" for cell in row] for row in rows]
    if on_terminal:
        room = shutil.get_terminal_size().columns - indent - 2 * (len(columns) - 1)  # two spaces between columns
        widths = _widths(columns, [names, *rows], room)
        cells = [list(map(_wrapped, row, widths, columns)) for row in rows]
    else:
        cells = [[[cell] for cell in row] for row in rows]
    if header:
        cells.insert(0, [[name] for name in names])
        urls.insert(0, [""] * len(names))
    widths = [max(_width(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    styled = on_terminal and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    lines = []
    for number, row in enumerate(cells):
        styles = [_BOLD if header and number == 0 else _DIM if cell == [UNKNOWN] else "" for cell in row]
        for parts in zip_longest(*row, fillvalue=""):
            aligned = map(_aligned, parts, widths, columns, styles if styled else repeat(""), urls[number])
            lines.append("  ".join(aligned).rstrip())
    return lines


def _aligned(text: str, width: int, column: Column, style: str, url: str) -> str:
    """Return a line of a cell, filled up to `width`, in a style of the terminal, as a link to a URL if there is one."""
    if column.number:
        text = text.rstrip()
    blank = " " * (width - _width(text))
    if style and text:
        text = f"{style}{text}{_PLAIN}"
    if url and text:
        text = hyperlinks.around(text, url)
    return blank + text if column.number else text + blank


def _width(text: str) -> int:
    """Return the number of columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the width of each column: that of its longest cell, or less where all are wider than `room`.

    The widest columns of text give way first, but none becomes narrower than its longest word.
    """
    cells = list(zip(*rows, strict=True))
    widths = [max(map(_width, column)) for column in cells]
    least = [
        max(_width(word) for cell in texts for word in _words(cell, column))
        for texts, column in zip(cells, columns, strict=True)
    ]
    while sum(widths) > room:
        reducible = [
            place
            for place, column in enumerate(columns)
            if not column.number and widths[place] > max(least[place], NARROWEST)
        ]
        if not reducible:
            break
        widths[max(reducible, key=widths.__getitem__)] -= 1
    return widths


def _words(cell: str, column: Column) -> list[str]:
    """Return the parts between which a cell may be broken."""
    separator, space = re.escape(os.sep), "" if column.path else " "
    return re.findall(f"[^{separator}{space}]*{separator}+|[^{separator}{space}]+ *| +", cell) or [""]


def _wrapped(cell: str, width: int, column: Column) -> list[str]:
    """Return a cell in lines of this width, or longer where a word is longer."""
    lines = [""]
    for word in _words(cell, column):
        if lines[-1] and _width((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return lines
