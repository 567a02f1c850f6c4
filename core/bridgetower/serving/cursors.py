"""Keep the searches that clients may go on with, each open at one state of the index.

A cursor is good for one next page, which has another. The one that was used last may be sent again, as a client does
whose connection broke: it gets the same page. Any other is unknown. All methods block, so they run in threads.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bridgetower import Found

_T = TypeVar("_T")

MOST = 16  # searches that are kept
SECONDS = 300.0  # for which they are kept after their last page


@dataclass(frozen=True, slots=True)
class Page:
    """Some hits of a search, and how many are before them."""

    found: Found
    before: int
    is_last: bool


class UnknownCursor(Exception):
    """The cursor was never given out, or its search is no longer kept."""


@dataclass(eq=False, slots=True)
class _Open(Generic[_T]):
    pages: Generator[_T, Any, None] | None  # None: it has ended
    until: float  # of the clock of `Cursors`
    cursor: str | None  # of the next page
    used: str | None = None  # the cursor that was sent last
    page: tuple[_T, str | None] | None = None  # to which it led, and the cursor of the next one
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while `pages` runs


class Cursors(Generic[_T]):
    """Iterators of pages by cursor.

    Where there are too many, the oldest whose cursor was never used is closed for a new one, as most clients want one
    page; if there is none, the one that was used least recently.
    """

    def __init__(
        self,
        is_last: Callable[[_T], bool],
        *,
        most: int = MOST,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Every iterator ends with a page for which `is_last` holds."""
        self._is_last, self._most, self._seconds, self._clock = is_last, most, seconds, clock
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Open[_T]] = OrderedDict()  # by `id`, the least recently used first
        self._closed = False

    def __len__(self) -> int:
        """How many searches are kept."""
        return len(self._open)

    def keep(self, pages: Generator[_T, Any, None]) -> str:
        """Keep an iterator, and return the cursor of its next page."""
        kept = _Open(pages, self._clock() + self._seconds, cursor := _new())
        with self._lock:
            over = [kept] if self._closed else []
            if not self._closed:
                if len(self._open) >= self._most:
                    others = self._open.values()
                    over.append(next((one for one in others if one.used is None), next(iter(others))))
                    del self._open[id(over[0])]
                self._open[id(kept)] = kept
        _close(over)
        return cursor

    def next(self, cursor: str, sent: Any = None) -> tuple[_T, str | None]:
        """Return the page of a cursor, and the cursor of the one after it; None at the end.

        `sent` is the value of the `yield` at which the iterator goes on. Raises UnknownCursor, and whatever the
        iterator raises, which ends it.
        """
        kept = self._find(cursor)
        with kept.lock:
            if cursor == kept.used and kept.page is not None:
                return kept.page
            if cursor != kept.cursor or kept.pages is None:
                raise UnknownCursor
            kept.used, kept.cursor, kept.page = cursor, None, None
            try:
                page = kept.pages.send(sent)
            except BaseException:
                with self._lock:
                    self._open.pop(id(kept), None)
                raise
            if self._is_last(page):
                kept.pages.close()
                kept.pages = None
            else:
                kept.cursor = _new()
            kept.page, kept.until = (page, kept.cursor), self._clock() + self._seconds
            return kept.page

    def expire(self) -> None:
        """Close the searches whose time is over."""
        now = self._clock()
        self._close_those(lambda kept: kept.until <= now)

    def clear(self) -> None:
        """Close all searches."""
        self._close_those(lambda kept: True)

    def close(self) -> None:
        """Close all searches, now and later."""
        self._closed = True
        self.clear()

    def _find(self, cursor: str) -> _Open[_T]:
        self.expire()
        with self._lock:
            for kept in self._open.values():
                if cursor in (kept.cursor, kept.used):
                    self._open.move_to_end(id(kept))
                    return kept
        raise UnknownCursor

    def _close_those(self, are_over: Callable[[_Open[_T]], bool]) -> None:
        with self._lock:
            over = [kept for kept in self._open.values() if are_over(kept)]
            for kept in over:
                del self._open[id(kept)]
        _close(over)


def _new() -> str:
    return secrets.token_urlsafe(24)


def _close(over: list[_Open[_T]]) -> None:
    for kept in over:
        with kept.lock:  # a page that is being made is completed first
            if kept.pages is not None:
                with suppress(Exception):  # nobody waits for its pages
                    kept.pages.close()
                kept.pages = None
