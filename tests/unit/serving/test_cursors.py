"""Searches that clients may go on with: their order, their time, their number, and their end."""

import threading
from collections.abc import Generator, Iterator

import pytest

from bridgetower.serving.cursors import Cursors, UnknownCursor


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pages(number: int, closed: list[int] | None = None) -> Generator[int, None, None]:
    """Pages 0, 1, ... up to one below `number`, of which the first has been taken."""

    def made() -> Iterator[int]:
        try:
            yield from range(number)
        finally:
            if closed is not None:
                closed.append(number)

    found = made()
    next(found)
    return found  # type: ignore[return-value]


def cursors(most: int = 16, clock: Clock | None = None) -> Cursors[int]:
    return Cursors(lambda page: page == 4, most=most, seconds=100, clock=clock or Clock())


def test_each_cursor_leads_to_one_page_and_can_be_sent_again() -> None:
    kept = cursors()
    used: list[str] = []
    seen: list[int] = []
    cursor: str | None = kept.keep(pages(5))
    while cursor is not None:
        used.append(cursor)
        page, cursor = kept.next(cursor)
        assert kept.next(used[-1]) == (page, cursor)  # as a client whose connection broke
        seen.append(page)
    assert seen == [1, 2, 3, 4]
    assert kept.next(used[-1]) == (4, None)
    with pytest.raises(UnknownCursor):
        kept.next("unknown")


def test_an_older_cursor_leads_nowhere() -> None:
    kept = cursors()
    first = kept.keep(pages(5))
    _, second = kept.next(first)
    assert second is not None
    kept.next(second)
    with pytest.raises(UnknownCursor):
        kept.next(first)


def test_time_closes_a_search_and_use_renews_it() -> None:
    clock, closed = Clock(), list[int]()
    kept = cursors(clock=clock)
    cursor = kept.keep(pages(5, closed))
    clock.now = 99
    _, following = kept.next(cursor)
    assert following is not None
    clock.now = 198
    kept.next(following)
    clock.now = 298
    kept.expire()
    assert closed == [5] and len(kept) == 0
    with pytest.raises(UnknownCursor):
        kept.next(following)


def test_one_that_was_never_used_gives_way_first() -> None:
    closed = list[int]()
    kept = cursors(most=3)
    used = kept.keep(pages(5, closed))
    _, going_on = kept.next(used)
    assert going_on is not None
    unused = [kept.keep(pages(number, closed)) for number in (6, 7, 8, 9)]
    assert closed == [6, 7] and len(kept) == 3
    assert kept.next(going_on)[0] == 2
    with pytest.raises(UnknownCursor):
        kept.next(unused[0])
    for cursor in unused[2:]:
        kept.next(cursor)
    last = kept.keep(pages(10, closed))
    assert closed == [6, 7, 5]  # all were used: the one that was used least recently
    assert kept.next(last)[0] == 1


def test_an_error_ends_a_search() -> None:
    def broken() -> Generator[int, None, None]:
        yield 0
        raise RuntimeError

    made = broken()
    next(made)
    kept = cursors()
    cursor = kept.keep(made)
    with pytest.raises(RuntimeError):
        kept.next(cursor)
    with pytest.raises(UnknownCursor):
        kept.next(cursor)
    assert len(kept) == 0


def test_close_completes_the_page_that_is_being_made() -> None:
    begun, go, closed = threading.Event(), threading.Event(), list[int]()

    def slow() -> Generator[int, None, None]:
        try:
            yield 0
            begun.set()
            assert go.wait(10)
            yield 1
            yield 4
        finally:
            closed.append(0)

    made = slow()
    next(made)
    kept = cursors()
    cursor = kept.keep(made)
    got: list[int] = []
    asking = threading.Thread(target=lambda: got.append(kept.next(cursor)[0]))
    asking.start()
    assert begun.wait(10)
    closing = threading.Thread(target=kept.close)
    closing.start()
    go.set()
    asking.join(10)
    closing.join(10)
    assert got == [1] and closed == [0]
    kept.keep(pages(5, closed))
    assert closed == [0, 5] and len(kept) == 0  # nothing is kept any more
