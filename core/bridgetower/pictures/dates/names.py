"""The date in the name of a file, as telephones, messengers and programs for screenshots write it."""

import re

from bridgetower.pictures.dates.order import Source, Taken
from bridgetower.pictures.dates.spelling import hour_of_day, moment

LONGEST = 255  # characters that are looked at

_TIME = (
    r"(?P<hour>[0-9]{1,2})(?P<sign>[-_.: ])(?P<minute>[0-9]{2})(?P=sign)(?P<second>[0-9]{2})(?![0-9])"
    r"(?:[\s_]?(?P<half>[ap])m\b)?"
)
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # "2019-07-04 10.15.00", "Screenshot 2019-07-04 at 1.15.00 PM", "signal-2019-07-04-101500", "2019_07_04"
        r"(?<![0-9])(?<![0-9][-.])(?P<year>(?:18|19|20)[0-9]{2})(?P<between>[-_.])(?P<month>[0-9]{2})(?P=between)"
        r"(?P<day>[0-9]{2})(?![0-9])"
        rf"(?:(?:[-_. T]|[ _-](?:at|um|à|om|kl\.?)[ _-]){_TIME}"
        r"|[-_ T](?P<hours>[0-9]{2})(?P<minutes>[0-9]{2})(?P<seconds>[0-9]{2})(?:[0-9]{3})?(?![0-9]))?",
        # "20190704_101500", "PXL_20210704_101500123", "IMG20190704101500", "WIN_20190704_10_15_00_Pro"
        r"(?<![0-9])(?<![0-9][-.])(?P<year>(?:19|20)[0-9]{2})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
        r"(?:[-_ .T]?(?P<hours>[0-9]{2})(?P<minutes>[0-9]{2})(?P<seconds>[0-9]{2})(?:_?[0-9]{3})?(?![0-9])"
        r"|[-_ ](?P<hour>[0-9]{2})(?P<sign>[-_.])(?P<minute>[0-9]{2})(?P=sign)(?P<second>[0-9]{2})(?![0-9]))",
        # "IMG-20190704-WA0001", "20190704": eight digits elsewhere are too often a number of another kind
        r"(?:IMG|VID|PANO|MVIMG|BURST|DSC|WP|Screenshot|Scan|Photo|signal)?[-_ ]?"
        r"(?P<year>(?:19|20)[0-9]{2})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?![0-9A-Za-z])",
    )
)
_UTC = re.compile(r"PXL_[0-9]{8}_")  # the camera of Pixel telephones


def taken_in_name(name: str) -> Taken | None:
    """Return the date in the name of a file, with or without its extension; None if there is none.

    The clock is the local one, except in names of Pixel telephones, which are in UTC. Dates with the day first, years
    alone, and counts of seconds are not read: they are ambiguous, or of a download.
    """
    name = name[:LONGEST]
    for number, form in enumerate(_FORMS):
        found = form.match(name) if number == len(_FORMS) - 1 else form.search(name)
        if found is None:
            continue
        parts = found.groupdict()
        year, month, day = (int(found[part]) for part in ("year", "month", "day"))
        if not month or not day:
            continue
        clock = [parts.get(one) or parts.get(f"{one}s") for one in ("hour", "minute", "second")]
        numbers = [None if part is None else int(part) for part in clock]
        if half := parts.get("half"):
            numbers[0] = hour_of_day(numbers[0] or 0, half)
        if date := moment(year, month, day, *numbers) or moment(year, month, day):
            return Taken(Source.NAME_UTC if _UTC.match(name) else Source.NAME, *date)
    return None
