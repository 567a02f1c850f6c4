"""Read a date as cameras and editors write it.

A zone and a fraction of a second are left out: the clock where the picture was taken counts. A partial date stands for
the first moment of its span. Impossible values, and years before 1800 or after 2100, count as absent.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

YEARS = range(1800, 2101)
LONGEST = 64  # characters that are looked at
DAY = 86400  # seconds

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_ZONE = r"[ ]*(?:Z|UTC|(?:UTC|GMT)?[+-][0-9]{1,2}:?(?:[0-9]{2})?|GMT)?"
_FRACTION = r"(?:[.,][0-9]*)?"
_FORMS = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        # "2019:07:04 10:15:00", "2019-07-04T10:15:00.5+02:00", "2019/7/4", "2019:07", "2019"
        r"(?P<year>[0-9]{4})(?:[-:/. ](?P<month>[ 0-9]?[0-9])(?:[-:/. ](?P<day>[ 0-9]?[0-9])"
        r"(?:[ T:_-]{1,2}(?P<hour>[ 0-9]?[0-9])(?P<sign>[-:. ])(?P<minute>[ 0-9]?[0-9])"
        rf"(?:(?P=sign)(?P<second>[ 0-9]?[0-9]){_FRACTION})?{_ZONE})?)?)?",
        # "20190704", "20190704T101500+0200"
        r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
        rf"(?:[T ]?(?P<hour>[0-9]{{2}})(?P<minute>[0-9]{{2}})(?:(?P<second>[0-9]{{2}}){_FRACTION})?{_ZONE})?",
        # RFC 1123, and the locales of desktops: "Thu, 4 Jul 2019 10:15:00 +0200", "Thu 04 Jul 2019 10:15:00 AM CEST"
        r"(?:[a-z]{3,9},?[ ]+)?(?P<day>[0-9]{1,2})[ -](?P<name>[a-z]{3})[a-z]*[ -](?P<year>[0-9]{4}|[0-9]{2})"
        rf"(?:,?[ ]+(?P<hour>[0-9]{{1,2}}):(?P<minute>[0-9]{{2}})(?::(?P<second>[0-9]{{2}}){_FRACTION})?"
        r"(?:[ ]?(?P<half>[ap])m)?(?:[ ]?[+-][0-9:]{2,5}|[ ][ a-z0-9:()+-]*)?)?",
        # asctime and date(1): "Thu Jul  4 10:15:00 2019", "Thu Jul  4 10:15:00 CEST 2019"
        r"(?:[a-z]{3,9},?[ ]+)?(?P<name>[a-z]{3})[a-z]*[ ]+(?P<day>[0-9]{1,2})"
        r"[ ]+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
        r"(?:[ ]+(?:[a-z]{1,5}|[+-][0-9]{4}))?[ ]+(?P<year>[0-9]{4})(?:[ ]+[+-][0-9]{4})?",
    )
)


class Moment(NamedTuple):
    """A date as written."""

    at: int  # seconds since 1970 on the clock that was read
    span: int  # seconds that are meant: 1 for a full date


def read(written: str | bytes) -> Moment | None:
    """Return the moment of a written date, None if it is absent, impossible, or in no known spelling."""
    text = written[:LONGEST].decode("latin-1") if isinstance(written, bytes) else written[:LONGEST]
    text = text.partition("\0")[0].strip().rstrip(": ")  # EXIF fills unknown parts with blanks between the colons
    return next((_of(found.groupdict()) for form in _FORMS if (found := form.fullmatch(text))), None)


def _of(parts: dict[str, str | None]) -> Moment | None:
    """Return the moment of the parts of a form."""
    name, half, year = parts.get("name"), parts.get("half"), parts["year"] or ""
    numbers = [int(part) if (part := parts.get(key)) else None for key in ("month", "day", "hour", "minute", "second")]
    if name is not None:
        if name.lower() not in _MONTHS:
            return None
        numbers[0] = _MONTHS.index(name.lower()) + 1
    if half is not None:
        numbers[2] = hour_of_day(numbers[2] or 0, half)
    century = 0 if len(year) == 4 else 1900 if int(year) > 70 else 2000  # as exiftool does
    return moment(century + int(year), *numbers)


def moment(
    year: int,
    month: int | None = None,
    day: int | None = None,
    hour: int | None = None,
    minute: int | None = None,
    second: int | None = None,
) -> Moment | None:
    """Return the first moment of the span that these numbers name, None if they are impossible.

    All that follows a None, or a month or day of 0, is left out. The hour may be 24 at the end of a day, and the second
    60.
    """
    if year not in YEARS:
        return None
    try:
        if not month:
            return _between(datetime(year, 1, 1), datetime(year + 1, 1, 1))
        if not day:
            return _between(datetime(year, month, 1), datetime(year + month // 12, month % 12 + 1, 1))
        date = datetime(year, month, day)
    except ValueError:  # month 13, 30 February
        return None
    if hour is None or minute is None:
        return _between(date, date + timedelta(days=1))
    if not (hour < 24 or (hour, minute, second or 0) == (24, 0, 0)) or minute > 59 or (second or 0) > 60:
        return None
    start = date + timedelta(hours=hour, minutes=minute, seconds=second or 0)
    return _between(start, start + timedelta(seconds=60 if second is None else 1))


def hour_of_day(hour: int, half: str) -> int:
    """Return the hour of 24 of an hour before or after noon; `half` begins with a or p."""
    return hour % 12 + (12 if half.lower().startswith("p") else 0) if 1 <= hour <= 12 else hour


def _between(start: datetime, end: datetime) -> Moment:
    return Moment(int(start.replace(tzinfo=UTC).timestamp()), int((end - start).total_seconds()))
