"""Parse the dates that bound a search. All raise UsageError."""

import re
from datetime import UTC, date, datetime, time
from typing import NoReturn

from bridgetower.errors import UsageError
from bridgetower.inputs import short
from bridgetower.records import Filter

Moment = str | date | datetime  # "2024", "2024-05", "2024-05-17", "2024-05-17T18:30", a date, or a datetime

_WRITTEN = re.compile(r"(\d{4})(-\d\d)?(-\d\d)?(?:[T ](\d\d:\d\d))?")


def moment(when: Moment) -> int:
    """Return the seconds since 1970 on a local clock; see `Filter`. Refuse a datetime with a zone."""
    if isinstance(when, datetime):
        if when.tzinfo is not None:
            raise UsageError(f"{when}: pictures are dated by the clock where they were taken; give a time without zone")
        shown = when.replace(tzinfo=UTC)
    elif isinstance(when, date):
        shown = datetime.combine(when, time(), UTC)
    elif isinstance(when, str):
        shown = _written(when)
    else:
        _no_date(when)
    return int(shown.timestamp())


def times(since: Moment | None, before: Moment | None) -> Filter:
    """Return the filter for pictures taken at `since` or later, and earlier than `before`."""
    first = None if since is None else moment(since)
    after = None if before is None else moment(before)
    if first is not None and after is not None and first >= after:
        raise UsageError(
            "since must be earlier than before, which is left out itself: all of 2024 is since 2024, before 2025"
        )
    return Filter(since=first, before=after)


def _written(text: str) -> datetime:
    found = _WRITTEN.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        year, month, day, clock = found.groups()
        return datetime.fromisoformat(f"{year}{month or '-01'}{day or '-01'}T{clock or '00:00'}").replace(tzinfo=UTC)
    except ValueError:
        _no_date(text)


def _no_date(value: object) -> NoReturn:
    raise UsageError(f"{short(value)} is no date: write it as 2024, 2024-05, 2024-05-17 or 2024-05-17T18:30")
