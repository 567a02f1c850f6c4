"""Parse the dates that bound a search. All raise UsageError.

Each date stands for a span: a year, a month, a week from its Monday, a day, a minute, or the second of a datetime.
`since` and `before` are where a span begins, `taken` is all of it. Dates are local: of the clock in a picture.
"""

import re
from datetime import date, datetime, time, timedelta
from typing import NoReturn

from bridgetower.errors import UsageError
from bridgetower.inputs import short, spaced
from bridgetower.records import Filter

# "2024", "2024-05", "2024-05-17", "2024-05-17T18:30", "yesterday", "last week", "3 days ago", a date, or a datetime
Moment = str | date | datetime

_WRITTEN = re.compile(r"(\d{4})(-\d\d)?(-\d\d)?(?:[T ](\d\d:\d\d(:\d\d)?))?")
_AGO = re.compile(r"(\d{1,5}) (day|week|month|year)s? ago")
_PERIODS = ("week", "month", "year")
_RELATIVE = {
    "today": "0 days ago",
    "yesterday": "1 day ago",
    **{f"this {period}": f"0 {period}s ago" for period in _PERIODS},
    **{f"last {period}": f"1 {period} ago" for period in _PERIODS},
}
_1970 = datetime(1970, 1, 1)


def times(
    since: Moment | None, before: Moment | None, taken: Moment | None = None, *, now: datetime | None = None
) -> Filter:
    """Return the filter for pictures taken at `since` or later, and earlier than `before`; or within `taken`.

    `taken` may be a range of two dates, "2024-05..2024-08", with both spans in it; one of the two may be left out.
    Relative dates count back from `now`, by default the local time.
    """
    now = datetime.now() if now is None else now
    if taken is not None:
        if since is not None or before is not None:
            raise UsageError("taken says since and before at once: give it alone, or these two")
        return _within(taken, now)
    first = None if since is None else _seconds(_span(since, now)[0])
    after = None if before is None else _seconds(_span(before, now)[0])
    if first is not None and after is not None and first >= after:
        raise UsageError(
            "since must be earlier than before, which is left out itself: all of 2024 is since 2024, before 2025"
        )
    return Filter(since=first, before=after)


def shown(seconds: int | None) -> datetime | None:
    """Return the time that a clock shows so many seconds after 1970; None if unknown, or outside the calendar."""
    try:
        return None if seconds is None else _1970 + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _within(taken: Moment, now: datetime) -> Filter:
    """Return the filter for a span, or for a range of two spans."""
    begin: Moment | None = taken
    end: Moment | None = taken
    if isinstance(taken, str) and ".." in taken:
        begin, end = (written.strip() or None for written in taken.split("..", 1))
        if begin is None and end is None:
            _no_date(taken)
    first = None if begin is None else _seconds(_span(begin, now)[0])
    after = None if end is None else _seconds(_span(end, now)[1])
    if first is not None and after is not None and first >= after:
        raise UsageError(f"{short(taken)}: the first date of a range must not be later than its last one")
    return Filter(since=first, before=after)


def _span(when: Moment, now: datetime) -> tuple[datetime, datetime]:
    """Return where a span begins, and where the next one does. Refuse a datetime with a zone."""
    if isinstance(when, datetime):
        if when.tzinfo is not None:
            raise UsageError(f"{when}: pictures are dated by the clock where they were taken; give a time without zone")
        begin, unit = when.replace(microsecond=0), "second"
    elif isinstance(when, date):
        begin, unit = datetime.combine(when, time()), "day"
    elif isinstance(when, str):
        try:
            begin, unit = _written(spaced(when).lower(), now)
        except (ValueError, OverflowError):
            _no_date(when)
    else:
        _no_date(when)
    try:
        return begin, _moved(begin, 1, unit)
    except (ValueError, OverflowError):
        return begin, datetime.max  # of the calendar


def _written(text: str, now: datetime) -> tuple[datetime, str]:
    """Return where the span of a date begins, and its unit. Raises ValueError, OverflowError."""
    if ago := _AGO.fullmatch(_RELATIVE.get(text, text)):
        number, unit = int(ago[1]), ago[2]
        day = datetime.combine(now, time())
        first = {"day": day, "week": day - timedelta(day.weekday()), "month": day.replace(day=1)}
        begin = first.get(unit, day.replace(month=1, day=1))
        return _moved(begin, -number, unit), unit
    found = _WRITTEN.fullmatch(text.upper())
    if found is None:
        raise ValueError
    year, month, of_month, clock, second = found.groups()
    begin = datetime.fromisoformat(f"{year}{month or '-01'}{of_month or '-01'}T{clock or '00:00'}")
    return begin, "second" if second else "minute" if clock else "day" if of_month else "month" if month else "year"


def _moved(begin: datetime, number: int, unit: str) -> datetime:
    """Return a moment that is `number` units later. Raises ValueError or OverflowError outside the calendar."""
    if unit not in ("month", "year"):
        return begin + timedelta(**{f"{unit}s": number})
    months = 12 * begin.year + begin.month - 1 + number * (12 if unit == "year" else 1)
    return begin.replace(year=months // 12, month=months % 12 + 1)


def _seconds(when: datetime) -> int:
    """Return the seconds since 1970 on the same clock; see `Filter`."""
    return (when - _1970) // timedelta(seconds=1)


def _no_date(value: object) -> NoReturn:
    if isinstance(value, str) and ".." in value and value.strip(". "):
        raise UsageError(f"{short(value)} is a range: give it as taken, or its two dates as since and before")
    raise UsageError(
        f"{short(value)} is no date: write it as 2024, 2024-05, 2024-05-17, 2024-05-17T18:30, yesterday, "
        '"last week" or "3 days ago"'
    )
