"""Which files a query is about, as SQL: those at or below a path, those that pass a filter."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bridgetower.records import LARGEST, Filter

# A folder and all below it, as one range of the primary key: `path >= root`, `path < after`, and of these not the
# neighbours such as "photos-old" that sort between "photos" and "photos/". Parameters: see `range_of`.
_UNDER = "path >= :root{0} AND path < :after{0} AND (path = :root{0} OR path >= :below{0})"
UNDER = _UNDER.format("")
# The time of a picture. Over all files it comes from the index of times alone, as images are large rows.
TIME = """(image IN (SELECT id FROM images WHERE taken_at >= :since AND taken_at < :before)
    OR mtime_ns >= :since_ns AND mtime_ns < :before_ns AND image IN (SELECT id FROM images WHERE taken_at IS NULL))"""
TIME_OF_ONE = """CASE WHEN taken_at IS NULL THEN mtime_ns >= :since_ns AND mtime_ns < :before_ns
    ELSE taken_at >= :since AND taken_at < :before END"""


def range_of(root: Path, name: object = "") -> dict[str, bytes]:
    """The parameters of `UNDER`, or of another one whose parameters have this `name`, too."""
    path, separator = os.fsencode(root), os.fsencode(os.sep)
    below = path if path.endswith(separator) else path + separator
    return {f"root{name}": path, f"below{name}": below, f"after{name}": below[:-1] + bytes([below[-1] + 1])}


def where(filter: Filter, time: str) -> str:
    """The condition of a filter on `files`; parameters: see `limits`."""
    conditions = [f"({UNDER})"] if filter.under is not None else ["true"]
    conditions += (f"NOT ({_UNDER.format(number)})" for number in range(len(filter.apart)))
    if filter.since is not None or filter.before is not None:
        conditions.append(time)
    return " AND ".join(conditions)


def limits(filter: Filter) -> dict[str, Any]:
    """The parameters of `where`."""
    since = -LARGEST if filter.since is None else filter.since
    before = LARGEST if filter.before is None else filter.before
    found: dict[str, Any] = {
        "since": since,
        "before": before,
        "since_ns": _instant(since) * 10**9,
        "before_ns": _instant(before) * 10**9,
    }
    found = {name: max(-LARGEST, min(limit, LARGEST)) for name, limit in found.items()}
    if filter.under is not None:
        found |= range_of(filter.under)
    for number, folder in enumerate(filter.apart):
        found |= range_of(folder, number)
    return found


def _instant(shown: int) -> int:
    """Unix seconds of the moment when this machine's clock shows so many since 1970."""
    try:
        return int((datetime(1970, 1, 1) + timedelta(seconds=shown)).timestamp())
    except (ValueError, OverflowError, OSError):  # too far away for a zone to matter
        return shown
