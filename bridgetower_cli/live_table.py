"""Show a table on a terminal whose rows settle while they are computed."""

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Self

from bridgetower_cli import render
from bridgetower_cli.terminal.tables import Column

_DRAW_EVERY_S = 0.25


class LiveTable:
    """A context that shows rows on stdout, above a line with the progress; `show` and `update` may be called at any
    rate.

    It may be entered again for the next table, and then the model is loaded. At the end the table is erased, so that
    the caller can write the final one. After an error its last rows stay.
    """

    def __init__(self, doing: str, unit: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._doing, self._unit, self._clock = doing, unit, clock
        self._awaited = "loading the model"

    def __enter__(self) -> Self:
        self._progress = self._awaited
        self._columns: Sequence[Column] = ()
        self._rows: Sequence[Sequence[str]] = ()
        self._height = 0  # lines on the terminal; the cursor is below them
        self._drawn_at = -math.inf
        render.set_aside = self._aside
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        render.set_aside = nullcontext
        self._write("")
        if kind is not None and self._rows:
            render.table(self._columns, self._rows)

    def update(self, done: int, total: int) -> None:
        """Say that `done` of `total` units are done; a `total` of 0 is not known yet."""
        self._awaited = f"the first {self._unit}"  # the model is loaded
        self._progress = f"{done} of {total} {self._unit}" if total else self._awaited
        if not total:  # else rows follow, which are drawn with it
            self._draw_if_due()

    def show(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Draw the table, unless it was just drawn. A part that is larger than the terminal is cut off."""
        self._columns, self._rows = columns, rows
        self._draw_if_due()

    def _draw_if_due(self) -> None:
        if (now := self._clock()) - self._drawn_at >= _DRAW_EVERY_S:
            self._drawn_at = now
            self._draw()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.text import Text

        drawn = io.StringIO()
        console = Console(file=drawn, force_terminal=True)
        room = max(0, console.height - 2)  # the progress and the cursor take a line each
        lines = render.table_lines(self._columns, self._rows[:room])[:room] if self._rows else []
        texts = [*map(Text.from_ansi, lines), Text(f"{self._doing}: {self._progress}", style="dim")]
        console.print(Text("\n").join(texts), no_wrap=True, overflow="crop")
        self._write(drawn.getvalue())

    def _write(self, drawn: str) -> None:
        """Write these lines in the place of those on the terminal, at once so that it does not flicker."""
        erase = f"\r\x1b[{self._height}A\x1b[J" if self._height else ""
        self._height = drawn.count("\n")
        render.verbatim(erase + drawn)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Erase the table while something else is written."""
        stands = self._height > 0
        self._write("")
        yield
        if stands:
            self._draw()
