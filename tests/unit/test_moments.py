"""Which span each spelling of a date stands for."""

from datetime import date, datetime, timedelta

import pytest

from bridgetower.errors import UsageError
from bridgetower.moments import Moment, times

NOW = datetime(2024, 3, 31, 18, 30, 5)  # a Sunday


def shown(seconds: int | None) -> str | None:
    return None if seconds is None else str(datetime(1970, 1, 1) + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("taken", "first", "after"),
    [
        ("2023", "2023-01-01", "2024-01-01"),
        ("2023-12", "2023-12-01", "2024-01-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2024-02-29T23:59", "2024-02-29 23:59", "2024-03-01"),
        ("2024-02-29T23:59:30", "2024-02-29 23:59:30", "2024-02-29 23:59:31"),  # as results show it
        (" 2024-02-29  23:59", "2024-02-29 23:59", "2024-03-01"),
        (date(2024, 2, 29), "2024-02-29", "2024-03-01"),
        (datetime(2024, 2, 29, 1, 2, 3, 4), "2024-02-29 01:02:03", "2024-02-29 01:02:04"),
        ("today", "2024-03-31", "2024-04-01"),
        ("0 days ago", "2024-03-31", "2024-04-01"),
        ("Yesterday", "2024-03-30", "2024-03-31"),
        ("31 days ago", "2024-02-29", "2024-03-01"),
        ("this week", "2024-03-25", "2024-04-01"),
        ("last  week", "2024-03-18", "2024-03-25"),
        ("2 weeks ago", "2024-03-11", "2024-03-18"),
        ("this month", "2024-03-01", "2024-04-01"),
        ("last month", "2024-02-01", "2024-03-01"),
        ("3 months ago", "2023-12-01", "2024-01-01"),
        ("this year", "2024-01-01", "2025-01-01"),
        ("last year", "2023-01-01", "2024-01-01"),
        ("10 years ago", "2014-01-01", "2015-01-01"),
        ("2023-05..2023-08", "2023-05-01", "2023-09-01"),
        ("2023 .. 2023-02", "2023-01-01", "2023-03-01"),
        ("last month..yesterday", "2024-02-01", "2024-03-31"),
        ("2023..", "2023-01-01", None),
        ("..2023", None, "2024-01-01"),
        ("0001", "0001-01-01", "0002-01-01"),
        ("9999", "9999-01-01", "9999-12-31 23:59:59"),
    ],
)
def test_a_span_begins_and_ends_where_the_calendar_says(taken: Moment, first: str | None, after: str | None) -> None:
    def padded(when: str | None) -> str | None:
        return None if when is None else str(datetime.fromisoformat(when))

    filter = times(None, None, taken, now=NOW)
    assert (shown(filter.since), shown(filter.before)) == (padded(first), padded(after))
    if isinstance(taken, str) and ".." in taken:
        with pytest.raises(UsageError, match="is a range"):
            times(taken, None)
    else:
        assert shown(times(taken, None, now=NOW).since) == padded(first)
        assert shown(times(None, taken, now=NOW).before) == padded(first)


@pytest.mark.parametrize(
    "taken",
    [
        *("", " ", "..", " .. ", "...", "2024...2025", "2024..x", "soon", "tomorrow", "last day", "-1 days ago"),
        *("1 hour ago", "2024-13", "24", "2024-1-1", "99999 years ago", "0000", "2024-05-17T25:00", 2024),
    ],
)
def test_what_is_no_date_is_refused_with_examples(taken: Moment) -> None:
    with pytest.raises(UsageError, match=r"is no date: write it as .*2024-05-17T18:30.* or \"3 days ago\"$"):
        times(None, None, taken, now=NOW)


def test_a_range_goes_forward_and_stands_alone() -> None:
    for taken in ("2024..2023", "today..yesterday", "2024-05-02..2024-05-01"):
        with pytest.raises(UsageError, match="must not be later"):
            times(None, None, taken, now=NOW)
    for since, before in (("2023", None), (None, "2024"), ("2023", "2024")):
        with pytest.raises(UsageError, match="since and before at once"):
            times(since, before, "2023", now=NOW)


def test_now_is_the_local_clock() -> None:
    before, filter, after = date.today(), times(None, None, "today"), date.today()
    assert shown(filter.since) in {f"{day} 00:00:00" for day in (before, after)}
